//! `fanfare trace`: the story of a delivery, or of an event's deliveries, as a tree with times. All of
//! it is read from the journal: nothing needs to have been exported.

mod tree;

use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use fanfare_domain::{DeliveryId, EventId, TenantId};
use serde_json::{Value, json};

use super::api::{Api, text};
use crate::output::{Output, Tone};

pub(crate) const EXAMPLES: &str = "\
Examples:
  fanfare trace acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare trace acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// Of how many deliveries of an event the story is told.
const DELIVERIES_MAX: usize = 50;

/// Whose story.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The tenant.
    tenant: TenantId,
    /// The delivery's id, or the event's.
    #[arg(value_name = "DELIVERY|EVENT")]
    id: Traced,
}

#[derive(Clone, Copy, Debug)]
enum Traced {
    Delivery(DeliveryId),
    Event(EventId),
}

/// Text that is neither.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not an id of the form dlv_ or evt_ and 26 characters")]
struct Neither;

impl FromStr for Traced {
    type Err = Neither;

    fn from_str(text: &str) -> Result<Self, Neither> {
        let event = || text.parse().map(Self::Event).map_err(|_| Neither);
        text.parse().map(Self::Delivery).or_else(|_| event())
    }
}

/// What is known of a delivery.
struct Story {
    trace: Value,
    delivery: Value,
    facts: Vec<Value>,
}

/// Tells it.
pub(crate) async fn trace(options: &Options, api: &Api, output: Output) -> Result<()> {
    let tenant = &options.tenant;
    let (ids, left_out) = match options.id {
        Traced::Delivery(id) => (vec![id.to_string()], 0),
        Traced::Event(id) => deliveries(api, tenant, id).await?,
    };
    let mut stories = Vec::with_capacity(ids.len());
    for id in ids {
        let path = format!("/v1/tenants/{tenant}/deliveries/{id}");
        stories.push(Story {
            trace: api.get(&format!("{path}/trace")).await?,
            delivery: api.get(&path).await?,
            facts: api.list(&format!("{path}/facts")).await?,
        });
    }
    if output.json {
        output.document(&json!({ "deliveries": documents(stories), "left_out": left_out }));
        return Ok(());
    }
    if stories.is_empty() {
        output.line("No endpoint wanted the event.");
        return Ok(());
    }
    for line in tree::lines(&stories, output) {
        output.line(&line);
    }
    if left_out > 0 {
        output.line(&output.tone(Tone::Dim, &format!("… and {left_out} more deliveries")));
    }
    Ok(())
}

/// The deliveries of an event, and how many more there are.
async fn deliveries(api: &Api, tenant: &TenantId, event: EventId) -> Result<(Vec<String>, usize)> {
    let found = api.list(&format!("/v1/tenants/{tenant}/events/{event}/deliveries")).await?;
    let ids = found.iter().map(|one| String::from(text(one, "id")));
    // Who skips has none.
    let mut ids: Vec<_> = ids.filter(|id| !id.is_empty()).collect();
    let left_out = ids.len().saturating_sub(DELIVERIES_MAX);
    ids.truncate(DELIVERIES_MAX);
    Ok((ids, left_out))
}

fn documents(stories: Vec<Story>) -> Vec<Value> {
    let document = |Story { trace, delivery, facts }| json!({ "trace": trace, "delivery": delivery, "facts": facts });
    stories.into_iter().map(document).collect()
}
