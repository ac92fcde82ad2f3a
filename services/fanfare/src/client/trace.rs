//! `fanfare trace`: the story of a delivery, or of an event's deliveries, as a tree with times. All of
//! it is read from the journal: nothing needs to have been exported. Only which replays an event had is looked
//! up in the delivery log, where that can be read.

mod tree;

use std::str::FromStr;

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::{DeliveryId, EventId, TenantId};
use serde_json::{Value, json};

use super::api::{Api, Problem, text};
use crate::output::{Output, Tone};

pub(crate) const EXAMPLES: &str = "\
Examples:
  fanfare trace dlv_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare trace acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// Of how many deliveries the story is told: of those that an event's acceptance caused, and of those that
/// replays made.
const DELIVERIES_MAX: usize = 50;
/// How many deliveries of an event in the delivery log are looked through for replays.
const LOOKED_THROUGH_MAX: usize = 5_000;

/// Whose story.
#[derive(Args, Debug)]
#[command(allow_missing_positional = true)]
pub(crate) struct Options {
    /// The tenant; an operator's key finds it out.
    tenant: Option<TenantId>,
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

/// What came of an event for one endpoint.
enum Branch {
    /// A delivery.
    Told(Box<Story>),
    /// A delivery whose story could not be read, and why.
    Untold { delivery: String, endpoint: String, problem: String },
    /// None: the endpoint was paused, and skipped what came meanwhile.
    Skipped { endpoint: String },
}

/// What came of an event when it was matched: for the first time, or by a replay.
struct Matching {
    /// 0 for the event's acceptance; counts replays.
    generation: u64,
    /// How many deliveries it made, also those that are not told of; unknown where one was asked for.
    deliveries: Option<usize>,
    branches: Vec<Branch>,
}

/// A delivery that is to be told of.
struct Named {
    generation: u64,
    delivery: String,
    endpoint: String,
}

/// What an event came to.
#[derive(Default)]
struct Found {
    matchings: Vec<Matching>,
    /// How many deliveries are not told of.
    left_out: usize,
    /// What could not be found out, in words.
    unknown: Option<String>,
}

/// Tells it.
pub(crate) async fn trace(options: &Options, api: &Api, output: Output) -> Result<()> {
    let tenant = &match &options.tenant {
        Some(tenant) => tenant.clone(),
        None => owner(api, options.id).await?,
    };
    let (found, about) = match options.id {
        Traced::Delivery(id) => {
            let story = story(api, tenant, &id.to_string()).await?;
            let generation =
                story.trace.get("generation").and_then(Value::as_u64).unwrap_or_default();
            let branches = vec![Branch::Told(Box::new(story))];
            let matchings = vec![Matching { generation, deliveries: None, branches }];
            (Found { matchings, ..Found::default() }, None)
        }
        Traced::Event(id) => (of_event(api, tenant, id).await?, Some(id)),
    };
    if output.json {
        output.document(&document(found));
        return Ok(());
    }
    if found.matchings.iter().all(|matching| matching.branches.is_empty()) {
        output.line("No endpoint wanted the event.");
    }
    for line in tree::lines(&found.matchings, about, output) {
        output.line(&line);
    }
    if found.left_out > 0 {
        let more = format!("… and {} more deliveries", found.left_out);
        output.line(&output.tone(Tone::Dim, &more));
    }
    if let Some(unknown) = &found.unknown {
        output.line(&output.tone(Tone::Dim, unknown));
    }
    Ok(())
}

/// Finds out whose it is.
async fn owner(api: &Api, id: Traced) -> Result<TenantId> {
    let path = match id {
        Traced::Delivery(id) => format!("/v1/deliveries/{id}"),
        Traced::Event(id) => format!("/v1/events/{id}"),
    };
    let found = api.get(&path).await;
    let found = found.context("find out whose it is: with a tenant's key, say the tenant too")?;
    text(&found, "tenant_id").parse().context("understand whose it is")
}

async fn story(api: &Api, tenant: &TenantId, id: &str) -> Result<Story> {
    let path = format!("/v1/tenants/{tenant}/deliveries/{id}");
    Ok(Story {
        trace: api.get(&format!("{path}/trace")).await?,
        delivery: api.get(&path).await?,
        facts: api.list(&format!("{path}/facts")).await?,
    })
}

/// Finds what the event's acceptance came to in the journal, and what replays made of it in the
/// delivery log.
async fn of_event(api: &Api, tenant: &TenantId, event: EventId) -> Result<Found> {
    let path = format!("/v1/tenants/{tenant}/events/{event}/deliveries");
    let (mut named, mut skipped) = (Vec::new(), Vec::new());
    for one in api.list(&path).await? {
        let endpoint = String::from(text(&one, "endpoint_id"));
        match text(&one, "id") {
            // Who skips has none.
            "" => skipped.push(Branch::Skipped { endpoint }),
            id => named.push(Named { generation: 0, delivery: String::from(id), endpoint }),
        }
    }
    let mut found = Found::default();
    let mut first = told(api, tenant, named, &mut found.left_out).await?;
    if first.is_empty() && !skipped.is_empty() {
        first.push(Matching { generation: 0, deliveries: Some(0), branches: Vec::new() });
    }
    if let Some(matching) = first.first_mut() {
        matching.branches.extend(skipped);
    }
    let replayed = match replays(api, tenant, event).await {
        Ok((replayed, true)) => replayed,
        Ok((replayed, false)) => {
            let looked = LOOKED_THROUGH_MAX;
            found.unknown = Some(format!(
                "Replays were looked for among {looked} deliveries of the event; there are more."
            ));
            replayed
        }
        Err(error) => {
            let problem = Problem::of(&error).map(ToString::to_string);
            let Some(problem) = problem else { return Err(error) };
            found.unknown = Some(format!("Whether it was replayed is not known: {problem}"));
            Vec::new()
        }
    };
    found.matchings = first;
    found.matchings.extend(told(api, tenant, replayed, &mut found.left_out).await?);
    Ok(found)
}

/// The deliveries that replays made of an event, replay by replay; and whether these are all.
async fn replays(api: &Api, tenant: &TenantId, event: EventId) -> Result<(Vec<Named>, bool)> {
    let path = format!("/v1/tenants/{tenant}/deliveries?event={event}");
    let (listed, are_all) = api.list_up_to(&path, LOOKED_THROUGH_MAX).await?;
    let named = |one: &Value| Named {
        generation: one.get("generation").and_then(Value::as_u64).unwrap_or_default(),
        delivery: String::from(text(one, "id")),
        endpoint: String::from(text(one, "endpoint_id")),
    };
    let mut replayed: Vec<_> =
        listed.iter().map(named).filter(|named| named.generation > 0).collect();
    replayed.sort_by(|one, other| {
        (one.generation, &one.endpoint).cmp(&(other.generation, &other.endpoint))
    });
    Ok((replayed, are_all))
}

/// Tells the stories of the first of these, which are in the order of their matchings. What the API does
/// not tell of one is said in its place.
async fn told(
    api: &Api,
    tenant: &TenantId,
    named: Vec<Named>,
    left_out: &mut usize,
) -> Result<Vec<Matching>> {
    *left_out += named.len().saturating_sub(DELIVERIES_MAX);
    let mut matchings: Vec<Matching> = Vec::new();
    for (index, Named { generation, delivery, endpoint }) in named.into_iter().enumerate() {
        if matchings.last().is_none_or(|last| last.generation != generation) {
            let (deliveries, branches) = (Some(0), Vec::new());
            matchings.push(Matching { generation, deliveries, branches });
        }
        let Some(matching) = matchings.last_mut() else { continue };
        matching.deliveries = matching.deliveries.map(|count| count + 1);
        if index >= DELIVERIES_MAX {
            continue;
        }
        matching.branches.push(match story(api, tenant, &delivery).await {
            Ok(story) => Branch::Told(Box::new(story)),
            Err(error) => match Problem::of(&error).map(ToString::to_string) {
                Some(problem) => Branch::Untold { delivery, endpoint, problem },
                None => return Err(error),
            },
        });
    }
    Ok(matchings)
}

fn document(found: Found) -> Value {
    let Found { matchings, left_out, unknown } = found;
    let (mut deliveries, mut untold, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for branch in matchings.into_iter().flat_map(|matching| matching.branches) {
        match branch {
            Branch::Told(story) => {
                let Story { trace, delivery, facts } = *story;
                deliveries.push(json!({ "trace": trace, "delivery": delivery, "facts": facts }));
            }
            Branch::Untold { delivery, endpoint, problem } => untold.push(json!({
                "delivery_id": delivery, "endpoint_id": endpoint, "problem": problem,
            })),
            Branch::Skipped { endpoint } => skipped.push(endpoint),
        }
    }
    json!({
        "deliveries": deliveries,
        "skipped_by": skipped,
        "untold": untold,
        "left_out": left_out,
        "unknown": unknown,
    })
}
