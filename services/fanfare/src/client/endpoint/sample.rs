//! `fanfare endpoint test`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::EventType;
use serde_json::{Value, json};

use super::{
    super::api::{Api, text},
    Named,
};
use crate::output::{Output, Tone};

/// How long the answer may take: an endpoint may take up to a minute, and the API gives up before.
const ANSWER: Duration = Duration::from_secs(90);

const EXAMPLES: &str = "\
Examples:
  fanfare endpoint test acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w invoice.paid
  fanfare endpoint test acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w invoice.paid '{\"invoice\": 7}'";

/// What to send.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    endpoint: Named,
    /// The type of the sample.
    #[arg(value_name = "TYPE")]
    event_type: EventType,
    /// Its data as JSON [default: the catalogue's example].
    #[arg(value_name = "DATA")]
    sample: Option<String>,
}

/// Sends a sample, and shows what the endpoint answers.
pub(crate) async fn run(options: &Options, api: &Api, output: Output) -> Result<()> {
    let mut body = json!({ "event_type": options.event_type.to_string() });
    if let (Some(data), Some(members)) = (&options.sample, body.as_object_mut()) {
        let data = serde_json::from_str(data).context("the data is not JSON")?;
        members.insert(String::from("data"), data);
    }
    let api = api.with_patience(ANSWER);
    let tried = api.post(&format!("{}/test", options.endpoint.path()), &body).await?;
    if output.json {
        output.document(&tried);
        return Ok(());
    }
    let part = |name: &str| tried.get(name).unwrap_or(&Value::Null);
    let (request, attempt) = (part("request"), part("attempt"));
    output.line(&output.tone(Tone::Strong, &format!("POST {}", text(request, "url"))));
    for (name, value) in request.get("headers").and_then(Value::as_object).into_iter().flatten() {
        output.line(&format!("{name}: {}", value.as_str().unwrap_or_default()));
    }
    output.line("");
    output.line(text(request, "body"));
    output.line("");
    output.line(&serde_json::to_string_pretty::<Value>(attempt)?);
    Ok(())
}
