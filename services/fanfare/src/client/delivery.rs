//! `fanfare delivery`.

mod attempt;
mod live;
mod search;
mod timeline;

use anyhow::Result;
use clap::Subcommand;
use fanfare_domain::{DeliveryId, TenantId};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

pub(crate) use self::search::{DeadLetters, Narrow, dead_letters};
pub(crate) use self::timeline::words;
use super::{
    again::{View, Watch},
    api::{Api, text},
    listing, replay,
};
use crate::output::{Output, Tone};

const EXAMPLES: &str = "\
Examples:
  fanfare delivery list acme --state exhausted,refused --type 'invoice.*' --since 1h
  fanfare delivery list acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare delivery get acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare delivery get acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w --watch
  fanfare delivery attempt acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w 2
  fanfare delivery retry acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// Of how many deliveries a list shows how they stand: each takes a request, which reads the
/// journal.
const STATES_MAX: usize = 20;

/// How many of these requests there may be at once.
const REQUESTS_MAX: usize = 4;

/// What can be done with deliveries.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List deliveries, newest event first, or those of one event.
    #[command(after_help = EXAMPLES)]
    List(Box<search::Options>),
    /// Show all that happened to a delivery.
    #[command(after_help = EXAMPLES)]
    Get {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show what happens to a tenant's deliveries, as it happens.
    #[command(after_help = live::EXAMPLES)]
    Watch(live::Options),
    /// List the attempts of a delivery.
    Attempts {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show an attempt: the whole request as it was sent, and the answer.
    #[command(after_help = EXAMPLES)]
    Attempt {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
        /// The attempt's number, from 1.
        number: u32,
    },
    /// End a delivery without another attempt.
    #[command(after_help = EXAMPLES)]
    Cancel {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
    },
    /// Make the next attempt of a delivery now.
    #[command(after_help = EXAMPLES)]
    Retry {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
    },
    /// Make a new delivery of what was delivered, or failed.
    #[command(after_help = EXAMPLES)]
    Replay {
        /// The tenant.
        tenant: TenantId,
        /// The delivery's id.
        delivery: DeliveryId,
    },
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::List(options) => match options.event.filter(|_| options.is_one_event()) {
            Some(event) => {
                let tenant = &options.tenant;
                let path = format!("/v1/tenants/{tenant}/events/{event}/deliveries");
                list(api, tenant, api.list(&path).await?, output).await;
            }
            None => search::deliveries(&options, api, output).await?,
        },
        Command::Get { tenant, delivery, watch } => {
            let path = path(&tenant, &delivery.to_string());
            let ask = async || {
                let found = api.get(&path).await?;
                let facts = api.list(&format!("{path}/facts")).await?;
                Ok(json!({ "delivery": found, "facts": facts }))
            };
            watch.run(ask, View { show, is_over: has_ended }, output).await?;
        }
        Command::Watch(options) => live::run(options, api, output).await?,
        Command::Attempts { tenant, delivery, watch } => {
            let path = format!("{}/attempts", path(&tenant, &delivery.to_string()));
            let show = |found: &Value, output| listing::print(found, &attempt::ATTEMPTS, output);
            watch.list((api, &path), show, output).await?;
        }
        Command::Attempt { tenant, delivery, number } => {
            let path = format!("{}/attempts/{number}", path(&tenant, &delivery.to_string()));
            attempt::show(&api.get(&path).await?, output);
        }
        Command::Cancel { tenant, delivery } => {
            order(api, (tenant, delivery), "cancel", output).await?;
        }
        Command::Retry { tenant, delivery } => {
            order(api, (tenant, delivery), "retry", output).await?;
        }
        Command::Replay { tenant, delivery } => {
            let path = format!("{}/replay", path(&tenant, &delivery.to_string()));
            replay::show(&api.post(&path, &json!({})).await?, output);
        }
    }
    Ok(())
}

/// Asks for something to be done with a delivery.
async fn order(
    api: &Api,
    (tenant, delivery): (TenantId, DeliveryId),
    what: &str,
    output: Output,
) -> Result<()> {
    let path = path(&tenant, &delivery.to_string());
    let taken = api.post(&format!("{path}/{what}"), &json!({})).await?;
    if output.json {
        output.document(&taken);
    } else if text(&taken, "outcome") == "under_way" {
        output.line("Nothing to do: its next attempt is under way, or about to be.");
    } else {
        output.line(&format!(
            "Taken. `fanfare delivery get {tenant} {delivery}` shows what comes of it."
        ));
    }
    Ok(())
}

fn path(tenant: &TenantId, delivery: &str) -> String {
    format!("/v1/tenants/{tenant}/deliveries/{delivery}")
}

async fn list(api: &Api, tenant: &TenantId, found: Vec<Value>, output: Output) {
    if output.json {
        output.document(&Value::Array(found));
        return;
    }
    if found.is_empty() {
        output.line("No endpoint wanted the event.");
        return;
    }
    let row = |one: &Value| ["id", "endpoint_id"].map(|name| String::from(text(one, name)));
    if found.len() > STATES_MAX {
        let rows: Vec<_> = found.iter().map(|one| row(one).to_vec()).collect();
        output.table(&["delivery", "endpoint"], &rows);
        output.line("\n`fanfare delivery get` shows how each stands.");
        return;
    }
    let states = stream::iter(&found).map(|one| state(api, tenant, one)).buffered(REQUESTS_MAX);
    let states: Vec<String> = states.collect().await;
    let rows = found.iter().zip(states).map(|(one, state)| {
        let [delivery, endpoint] = row(one);
        vec![delivery, endpoint, state]
    });
    output.table(&["delivery", "endpoint", "state"], &rows.collect::<Vec<_>>());
}

/// Asks how a delivery of an event stands.
async fn state(api: &Api, tenant: &TenantId, one: &Value) -> String {
    let id = text(one, "id");
    if id.is_empty() {
        // It skips: there is no delivery.
        return String::from(text(one, "routing"));
    }
    match api.get(&path(tenant, id)).await {
        Ok(found) => String::from(text(&found, "state")),
        // The list is worth more than this one cell.
        Err(_) => String::from("unknown"),
    }
}

fn has_ended(found: &Value) -> bool {
    let state = found.get("delivery").map_or("", |delivery| text(delivery, "state"));
    ["delivered", "exhausted", "refused", "cancelled"].contains(&state)
}

fn show(whole: &Value, output: Output) {
    if output.json {
        output.document(whole);
        return;
    }
    let found = whole.get("delivery").unwrap_or(&Value::Null);
    let facts = whole.get("facts").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
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
