//! `fanfare delivery`.

mod timeline;

use anyhow::Result;
use clap::Subcommand;
use fanfare_domain::{DeliveryId, EventId, TenantId};
use serde_json::{Value, json};

use super::api::{Api, text};
use crate::output::{Output, Tone};

const EXAMPLES: &str = "\
Examples:
  fanfare delivery list acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare delivery get acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// What can be done with deliveries.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the deliveries of an event, one for each endpoint that wanted it.
    #[command(after_help = EXAMPLES)]
    List {
        /// The tenant.
        tenant: TenantId,
        /// The event's id.
        event: EventId,
    },
    /// Show all that happened to a delivery.
    #[command(after_help = EXAMPLES)]
    Get {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
    },
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::List { tenant, event } => {
            let path = format!("/v1/tenants/{tenant}/events/{event}/deliveries");
            list(api.list(&path).await?, output);
        }
        Command::Get { tenant, delivery } => {
            let path = format!("/v1/tenants/{tenant}/deliveries/{delivery}");
            let found = api.get(&path).await?;
            let facts = api.list(&format!("{path}/facts")).await?;
            show(&found, &facts, output);
        }
    }
    Ok(())
}

fn list(found: Vec<Value>, output: Output) {
    if output.json {
        output.document(&Value::Array(found));
        return;
    }
    if found.is_empty() {
        output.line("No endpoint wanted the event.");
        return;
    }
    let row = |one: &Value| {
        ["id", "endpoint_id", "routing"].map(|name| String::from(text(one, name))).to_vec()
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    output.table(&["delivery", "endpoint", "routing"], &rows);
}

fn show(found: &Value, facts: &[Value], output: Output) {
    if output.json {
        output.document(&json!({ "delivery": found, "facts": facts }));
        return;
    }
    let state = text(found, "state");
    let tone = match state {
        "delivered" => Tone::Good,
        "exhausted" | "refused" => Tone::Bad,
        _ => Tone::Warning,
    };
    let number = |name| found.get(name).and_then(Value::as_u64).unwrap_or_default();
    let generation = number("generation");
    output.fields(&[
        ("delivery", output.tone(Tone::Strong, text(found, "id"))),
        ("state", output.tone(tone, state)),
        ("event", String::from(text(found, "event_id"))),
        ("endpoint", String::from(text(found, "endpoint_id"))),
        ("tenant", String::from(text(found, "tenant_id"))),
        ("replay", if generation == 0 { String::new() } else { generation.to_string() }),
        ("attempts", number("attempts").to_string()),
        ("next at", String::from(text(found, "next_attempt_at"))),
    ]);
    output.line("");
    if facts.is_empty() {
        output.line("Nothing has happened to it yet.");
    }
    for fact in facts {
        for line in timeline::lines(fact, output) {
            output.line(&line);
        }
    }
}
