//! `fanfare replay`.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use fanfare_domain::{DeliveryId, EndpointId, JobId, TenantId, settings::parse_duration};
use fanfare_service::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{
    again::{View, Watch},
    api::{Api, text},
};
use crate::output::{Output, Tone};

const START_EXAMPLES: &str = "\
Examples:
  fanfare replay start acme --since 2h --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare replay start acme --since 7d --which missing --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare replay start acme --since 1d --until 12h --which all --types 'invoice.*'";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  fanfare replay redrive acme dlv_01jd3x6y8kqz7v5m2n4p6r8t0w
  fanfare replay redrive acme --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// What can be done with replays.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deliver events of a time again: what failed, all, or what was never delivered.
    #[command(after_help = START_EXAMPLES)]
    Start(Start),
    /// Deliver dead letters again: some deliveries that failed, or all that are exhausted of an
    /// endpoint.
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive {
        /// The tenant.
        tenant: TenantId,
        /// The ids of deliveries, up to 1,000.
        #[arg(required_unless_present = "endpoint")]
        deliveries: Vec<DeliveryId>,
        /// All dead letters of this endpoint: not what was refused or cancelled.
        #[arg(long, conflicts_with = "deliveries")]
        endpoint: Option<EndpointId>,
    },
    /// List the replays of a tenant.
    List {
        /// The tenant.
        tenant: TenantId,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show a replay, and how far it is.
    Get {
        #[command(flatten)]
        replay: Named,
        #[command(flatten)]
        watch: Watch,
    },
    /// Cancel a replay; deliveries that it has made go on.
    Cancel(Named),
}

/// What to replay.
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// The tenant.
    tenant: TenantId,
    /// How long ago the first events were accepted, for example 2h.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    since: Duration,
    /// How long ago the last ones were; until now if left out.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    until: Option<Duration>,
    /// Which of them.
    #[arg(long, value_enum, default_value = "failed")]
    which: Which,
    /// To this endpoint only.
    #[arg(long)]
    endpoint: Option<EndpointId>,
    /// Only events of these types: patterns.
    #[arg(long, value_delimiter = ',', value_name = "PATTERNS", conflicts_with = "endpoint")]
    types: Vec<String>,
}

/// Names a replay.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The tenant.
    tenant: TenantId,
    /// The replay's id.
    replay: JobId,
}

/// Which events are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// Those whose last delivery failed for good, but for what a person cancelled.
    Failed,
    /// Those whose last delivery is a dead letter: exhausted.
    Exhausted,
    /// All that the endpoint wants as it is now.
    All,
    /// Those of them that it never had a delivery of.
    Missing,
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::Start(start) => {
            let (path, body) = start.request();
            show(&api.post(&path, &body).await?, output);
        }
        Command::Redrive { tenant, deliveries, endpoint } => {
            let deliveries: Vec<String> = deliveries.iter().map(DeliveryId::to_string).collect();
            let body = match endpoint {
                Some(endpoint) => json!({ "endpoint_id": endpoint.to_string() }),
                None => json!({ "deliveries": deliveries }),
            };
            let path = format!("/v1/tenants/{tenant}/dead-letters/redrive");
            show(&api.post(&path, &body).await?, output);
        }
        Command::List { tenant, watch } => {
            let path = format!("/v1/tenants/{tenant}/replays");
            watch.list((api, &path), list, output).await?;
        }
        Command::Get { replay, watch } => {
            let ask = async || api.get(&replay.path()).await;
            let is_over = |found: &Value| text(found, "state") != "running";
            watch.run(ask, View { show, is_over }, output).await?;
        }
        Command::Cancel(named) => {
            let path = format!("{}/cancel", named.path());
            show(&api.post(&path, &json!({})).await?, output);
        }
    }
    Ok(())
}

impl Start {
    /// The path and the body of the request.
    fn request(&self) -> (String, Value) {
        let Self { tenant, since, until, which, endpoint, types } = self;
        let now = SystemClock.now();
        let at = |ago: Duration| now.saturating_sub(ago).to_string();
        let mut body = json!({ "since": at(*since), "which": which.name() });
        if let Some(members) = body.as_object_mut() {
            members.extend(until.map(|ago| (String::from("until"), Value::String(at(ago)))));
            if endpoint.is_none() {
                members.insert(String::from("event_types"), json!(types));
            }
        }
        let path = match endpoint {
            Some(endpoint) => format!("/v1/tenants/{tenant}/endpoints/{endpoint}/replay"),
            None => format!("/v1/tenants/{tenant}/replays"),
        };
        (path, body)
    }
}

impl Named {
    fn path(&self) -> String {
        format!("/v1/tenants/{}/replays/{}", self.tenant, self.replay)
    }
}

impl Which {
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
            Self::All => "all",
            Self::Missing => "missing",
        }
    }
}

fn number(found: &Value, name: &str) -> String {
    found.get(name).and_then(Value::as_u64).unwrap_or_default().to_string()
}

fn list(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let found = found.as_array().map_or(&[][..], Vec::as_slice);
    if found.is_empty() {
        output.line("There are no replays here.");
        return;
    }
    let row = |one: &Value| {
        let [id, state, endpoint, since] =
            ["id", "state", "endpoint_id", "since"].map(|name| String::from(text(one, name)));
        vec![id, state, number(one, "made"), endpoint, since]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    output.table(&["replay", "state", "made", "endpoint", "since"], &rows);
}

/// Shows a replay.
pub(crate) fn show(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let state = text(found, "state");
    let tone = match state {
        "done" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Warning,
    };
    let field = |name| String::from(text(found, name));
    output.fields(&[
        ("replay", output.tone(Tone::Strong, text(found, "id"))),
        ("state", output.tone(tone, state)),
        ("failure", field("failure")),
        ("which", field("which")),
        ("endpoint", field("endpoint_id")),
        ("since", field("since")),
        ("until", field("until")),
        ("looked at", number(found, "looked_at")),
        ("made", number(found, "made")),
    ]);
    let behind = found.get("behind_endpoint_ids").and_then(Value::as_array);
    for id in behind.into_iter().flatten().filter_map(Value::as_str) {
        output.line(&format!("behind      {id}"));
    }
    let ids = found.get("delivery_ids").and_then(Value::as_array);
    for id in ids.into_iter().flatten().filter_map(Value::as_str) {
        output.line(&format!("delivery    {id}"));
    }
}
