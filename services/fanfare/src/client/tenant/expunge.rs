//! `fanfare tenant expunge`.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use fanfare_domain::TenantId;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::path;
use crate::{
    client::{
        api::{Api, text},
        stop::Stop,
    },
    output::{Output, Tone},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  fanfare tenant expunge acme --confirm acme --reason 'asked for by the customer'
  fanfare tenant expunge acme --confirm acme --no-wait
  fanfare tenant expunge acme --status";

/// How often it is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Options of `fanfare tenant expunge`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The tenant's id.
    tenant: TenantId,
    /// The tenant's id once more.
    #[arg(long, value_name = "TENANT", required_unless_present = "status")]
    confirm: Option<TenantId>,
    /// Why, for the audit.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Do not wait until it is done: it goes on by itself.
    #[arg(long)]
    no_wait: bool,
    /// Only show how far it is, or when it was done.
    #[arg(long, conflicts_with_all = ["confirm", "no_wait", "reason"])]
    status: bool,
}

/// Removes everything that is kept of a tenant, or shows how far that is.
pub(super) async fn run(options: Options, api: &Api, output: Output) -> Result<()> {
    let path = format!("{}/expunge", path(&options.tenant));
    if options.status {
        show(&api.get(&path).await?, output);
        return Ok(());
    }
    let confirm = options.confirm.as_ref().unwrap_or(&options.tenant);
    ensure!(*confirm == options.tenant, "--confirm does not name the same tenant");
    let headers = [("Fanfare-Reason", options.reason.as_str())];
    let headers = if options.reason.is_empty() { &[][..] } else { &headers[..] };
    let body = json!({ "confirm": confirm.as_str() });
    let mut found = api.post_with(&path, &body, headers).await?;
    if !options.no_wait {
        let mut stop = Stop::install()?;
        let spinner = output.spinner("removing everything; Ctrl-C leaves it to go on by itself");
        while text(&found, "state") == "running" {
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = stop.asked() => break,
            }
            found = api.get(&path).await?;
        }
        spinner.finish_and_clear();
    }
    show(&found, output);
    Ok(())
}

fn show(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let state = text(found, "state");
    let tone = if state == "finished" { Tone::Good } else { Tone::Warning };
    let field = |name| String::from(text(found, name));
    let log = match found.get("delivery_log_forgot").and_then(Value::as_bool) {
        Some(true) => "has forgotten it",
        Some(false) => "is forgetting it",
        None => "cannot be asked",
    };
    let removed = found.get("removed").and_then(Value::as_object);
    let removed = removed.into_iter().flatten().map(|(kind, count)| format!("{kind} {count}"));
    output.fields(&[
        ("tenant", output.tone(Tone::Strong, text(found, "tenant_id"))),
        ("state", output.tone(tone, state)),
        ("asked by", field("who")),
        ("why", field("why")),
        ("begun", field("begun_at")),
        ("waits for", field("waits_for").replace('_', " ")),
        ("finished", field("finished_at")),
        ("id rests until", field("id_rests_until")),
        ("removed", removed.collect::<Vec<_>>().join(", ")),
        ("delivery log", String::from(log)),
    ]);
}
