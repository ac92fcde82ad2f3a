//! Lists of deliveries and of dead letters, out of the delivery log.

use anyhow::Result;
use clap::Args;
use fanfare_domain::{EndpointId, EventId, TenantId, TypePattern};
use serde_json::Value;

use crate::{
    client::{
        api::{Api, text},
        listing::{self, Listing, Query, Table, cell, cells},
        options::Ago,
    },
    output::Output,
};

/// Options of `fanfare delivery list`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The tenant.
    pub(super) tenant: TenantId,
    /// Only those of this event: straight from the journal, which has what was sent a moment ago.
    pub(super) event: Option<EventId>,
    /// Only those to this endpoint.
    #[arg(long)]
    endpoint: Option<EndpointId>,
    /// Only those in this state, or one of several with commas between them.
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    #[command(flatten)]
    narrow: Narrow,
    #[command(flatten)]
    listing: Listing,
}

/// Options of `fanfare dead-letter list`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeadLetters {
    /// The tenant.
    tenant: TenantId,
    /// Only those to this endpoint.
    #[arg(long)]
    endpoint: Option<EndpointId>,
    #[command(flatten)]
    narrow: Narrow,
    #[command(flatten)]
    listing: Listing,
}

/// What narrows lists down that are about events.
#[derive(Args, Clone, Debug)]
pub(crate) struct Narrow {
    /// Only those of this type, or one that a pattern chooses, such as `invoice.*`.
    #[arg(long = "type", value_name = "PATTERN")]
    pattern: Option<TypePattern>,
    /// Only those of events accepted since then: a duration ago such as 10m, or a time (RFC 3339).
    #[arg(long, value_name = "WHEN")]
    since: Option<Ago>,
    /// Only those of events accepted before then: a duration ago, or a time.
    #[arg(long, value_name = "WHEN")]
    until: Option<Ago>,
    /// Only those with this in their type, or with this id or beginning of an event's id.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
}

impl Narrow {
    /// Returns what it says as a query.
    pub(crate) fn query(&self) -> Query {
        Query::default()
            .with("type", self.pattern.as_ref())
            .with("since", self.since.as_ref())
            .with("until", self.until.as_ref())
            .with("search", self.search.as_ref())
    }

    const fn is_all(&self) -> bool {
        let Self { pattern, since, until, search } = self;
        pattern.is_none() && since.is_none() && until.is_none() && search.is_none()
    }
}

impl Options {
    /// Tells whether the journal can answer: all deliveries of an event, and nothing else.
    pub(super) const fn is_one_event(&self) -> bool {
        let Self { tenant: _, event, endpoint, state, narrow, listing } = self;
        event.is_some()
            && endpoint.is_none()
            && state.is_none()
            && narrow.is_all()
            && !listing.watch
    }
}

const DELIVERIES: Table = Table {
    headings: &["delivery", "state", "type", "endpoint", "attempts", "last", "accepted"],
    row,
    key,
    empty: "There are no such deliveries.",
};

const DEAD_LETTERS: Table = Table { empty: "There are no such dead letters.", ..DELIVERIES };

/// Lists deliveries.
pub(super) async fn deliveries(options: &Options, api: &Api, output: Output) -> Result<()> {
    let query = options
        .narrow
        .query()
        .with("endpoint", options.endpoint)
        .with("state", options.state.as_ref())
        .with("event", options.event);
    let path = format!("/v1/tenants/{}/deliveries", options.tenant);
    listing::show(api, &path, (&query, &options.listing), &DELIVERIES, output).await
}

/// Lists dead letters.
pub(crate) async fn dead_letters(options: &DeadLetters, api: &Api, output: Output) -> Result<()> {
    let query = options.narrow.query().with("endpoint", options.endpoint);
    let path = format!("/v1/tenants/{}/dead-letters", options.tenant);
    listing::show(api, &path, (&query, &options.listing), &DEAD_LETTERS, output).await
}

fn row(one: &Value) -> Vec<String> {
    let last = match text(one, "last_fault") {
        "" => cell(one, "last_status"),
        fault => String::from(fault),
    };
    let mut row = cells(one, ["id", "state", "event_type", "endpoint_id", "attempts"]);
    row.extend([last, cell(one, "accepted_at")]);
    row
}

/// A delivery is shown again when its state or its number of attempts has changed.
fn key(one: &Value) -> String {
    cells(one, ["id", "state", "attempts"]).join(" ")
}
