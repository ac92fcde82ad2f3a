//! Events out of the delivery log, and one of them with its data.

use anyhow::Result;
use clap::Args;
use fanfare_domain::{EventId, TenantId};
use serde_json::Value;

use crate::{
    client::{
        api::{Api, text},
        delivery::Narrow,
        listing::{self, Listing, Table, cell, cells},
        text::{body, printable},
    },
    output::{Output, Tone},
};

/// How many lines of an event's data are shown.
const DATA_LINES_MAX: usize = 200;

/// Options of `fanfare event list`.
#[derive(Args, Clone, Debug)]
pub(crate) struct List {
    /// The tenant.
    tenant: TenantId,
    #[command(flatten)]
    narrow: Narrow,
    #[command(flatten)]
    listing: Listing,
}

/// An event of a tenant.
#[derive(Args, Clone, Debug)]
pub(crate) struct Named {
    /// The tenant.
    tenant: TenantId,
    /// The event's id.
    event: EventId,
}

const EVENTS: Table = Table {
    headings: &["event", "type", "bytes", "accepted", "ordering key"],
    row: |one| cells(one, ["id", "type", "data_bytes", "accepted_at", "ordering_key"]),
    key: |one| cell(one, "id"),
    empty: "There are no such events.",
};

/// Lists events.
pub(super) async fn list(options: &List, api: &Api, output: Output) -> Result<()> {
    let path = format!("/v1/tenants/{}/events", options.tenant);
    let query = options.narrow.query();
    listing::show(api, &path, (&query, &options.listing), &EVENTS, output).await
}

/// Shows an event.
pub(super) async fn get(named: &Named, api: &Api, output: Output) -> Result<()> {
    let found = api.get(&format!("/v1/tenants/{}/events/{}", named.tenant, named.event)).await?;
    if output.json {
        output.document(&found);
        return Ok(());
    }
    output.fields(&[
        ("event", output.tone(Tone::Strong, &cell(&found, "id"))),
        ("type", cell(&found, "type")),
        ("tenant", cell(&found, "tenant_id")),
        ("accepted", cell(&found, "accepted_at")),
        ("occurred", cell(&found, "occurred_at")),
        ("ordering key", cell(&found, "ordering_key")),
        ("idempotency key", cell(&found, "idempotency_key")),
        ("trace", cell(&found, "trace_id")),
        ("attributes", attributes(&found)),
    ]);
    output.line("");
    if found.get("available").and_then(Value::as_bool) != Some(true) {
        output.line("The event log does not have its data any more.");
        return Ok(());
    }
    let data = found.get("data").map(Value::to_string).unwrap_or_default();
    for line in body(data.as_bytes(), DATA_LINES_MAX) {
        output.line(&printable(&line));
    }
    Ok(())
}

fn attributes(found: &Value) -> String {
    let attributes = found.get("attributes").and_then(Value::as_object);
    let pairs = attributes.into_iter().flatten();
    let pairs = pairs.map(|(name, _)| {
        let value = found.get("attributes").map_or("", |all| text(all, name));
        printable(&format!("{name}={value}"))
    });
    pairs.collect::<Vec<_>>().join(" ")
}
