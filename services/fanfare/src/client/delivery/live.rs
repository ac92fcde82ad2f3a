//! `fanfare delivery watch`: what happens to a tenant's deliveries, from the API's stream.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use fanfare_domain::{EndpointId, TenantId, TypePattern};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    client::{
        api::{Api, Problem, text},
        listing::{Query, cell},
        stop::Stop,
    },
    output::{Output, Tone},
};

pub(super) const EXAMPLES: &str = "\
Examples:
  fanfare delivery watch acme
  fanfare delivery watch acme --state exhausted,refused --type 'invoice.*'
  fanfare --json delivery watch acme --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// How long the stream may be silent: it says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(35);
/// How long one message can be: that of a delivery is some hundred bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long to wait before going on where it ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of `fanfare delivery watch`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The tenant.
    tenant: TenantId,
    /// Only those to this endpoint.
    #[arg(long)]
    endpoint: Option<EndpointId>,
    /// Only what brings them into this state, or one of several with commas between them.
    #[arg(long, value_name = "STATE,…")]
    state: Option<String>,
    /// Only those of this type, or one that a pattern chooses, such as `invoice.*`.
    #[arg(long = "type", value_name = "PATTERN")]
    pattern: Option<TypePattern>,
}

/// Why a stream ended.
enum Ended {
    /// Nobody reads any more.
    Unread,
    /// It can be gone on with.
    Broken,
    /// The caller may not watch any more.
    Unauthorized,
}

/// Shows what happens until it is told to stop.
pub(super) async fn run(options: Options, api: &Api, output: Output) -> Result<()> {
    let query = Query::default()
        .with("endpoint", options.endpoint)
        .with("state", options.state.as_ref())
        .with("type", options.pattern.as_ref());
    let path = query.path_only(&format!("/v1/tenants/{}/live", options.tenant))?;
    let mut stop = Stop::install()?;
    let mut place = String::new();
    // Once it was open, a server that is away for a while ends nothing.
    let (mut has_begun, mut away) = (false, false);
    output.say(&output.tone(Tone::Dim, "Watching deliveries. Ctrl-C ends it."));
    loop {
        let watched = tokio::select! {
            watched = watch(api, &path, &mut place, output) => watched,
            () = stop.asked() => return Ok(()),
        };
        has_begun |= watched.is_ok() || !place.is_empty();
        match watched {
            Ok(Ended::Unread) => return Ok(()),
            Ok(Ended::Broken) => away = false,
            Ok(Ended::Unauthorized) => {
                bail!("the API key does not work any more, or the tenant is gone");
            }
            Err(error) if is_gone(&error) && !place.is_empty() => {
                output.note("some of what happened meanwhile is not shown: going on from now");
                place.clear();
            }
            Err(error) if !has_begun || is_final(&error) => return Err(error),
            Err(error) if !away => {
                output.note(&format!("{error:#}: going on where it ended"));
                away = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = stop.asked() => return Ok(()),
        }
    }
}

/// Tells whether it cannot be gone on where it ended.
fn is_gone(error: &anyhow::Error) -> bool {
    Problem::of(error).is_some_and(|problem| problem.code.as_deref() == Some("place_gone"))
}

fn is_final(error: &anyhow::Error) -> bool {
    Problem::of(error).is_some_and(|problem| problem.status < 500 && problem.status != 429)
}

/// Shows a stream to its end, and notes how far it came.
async fn watch(api: &Api, path: &str, place: &mut String, output: Output) -> Result<Ended> {
    let after = [("Last-Event-ID", place.as_str())];
    let headers = if place.is_empty() { &[][..] } else { &after[..] };
    let mut response = api.open(path, headers).await?;
    let mut lines = Lines::default();
    loop {
        let chunk = timeout(SILENCE, response.chunk()).await;
        let Ok(Ok(Some(chunk))) = chunk else { return Ok(Ended::Broken) };
        lines.add(&chunk);
        while let Some(message) = lines.next() {
            if message.event == "end" {
                let told: Value = serde_json::from_str(&message.data).unwrap_or_default();
                let is_final = text(&told, "reason") == "unauthorized";
                return Ok(if is_final { Ended::Unauthorized } else { Ended::Broken });
            }
            if !message.data.is_empty() {
                let one: Value = serde_json::from_str(&message.data)
                    .context("the API's stream is not JSON: is it Fanfare's API?")?;
                let line = if output.json { one.to_string() } else { line(&one, output) };
                if output.offer(&line).is_break() {
                    return Ok(Ended::Unread);
                }
            }
            if !message.id.is_empty() {
                *place = message.id;
            }
        }
        ensure!(lines.bytes.len() <= MESSAGE_BYTES_MAX, "it is no stream of deliveries");
    }
}

/// What comes of a stream, until it is a whole message.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
}

/// A message of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    event: String,
    id: String,
    data: String,
}

impl Lines {
    fn add(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// Takes the next whole message.
    fn next(&mut self) -> Option<Message> {
        let end = self.bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let rest = self.bytes.split_off(end + 2);
        let block = std::mem::replace(&mut self.bytes, rest);
        let mut message = Message::default();
        for line in String::from_utf8_lossy(&block).lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name {
                "event" => message.event = String::from(value),
                "id" => message.id = String::from(value),
                "data" => message.data = String::from(value),
                _ => {}
            }
        }
        Some(message)
    }
}

/// What happened, for people.
fn line(one: &Value, output: Output) -> String {
    let state = text(one, "state");
    let tone = match state {
        "delivered" => Tone::Good,
        "exhausted" | "refused" | "cancelled" => Tone::Bad,
        "retrying" => Tone::Warning,
        _ => Tone::Dim,
    };
    let fact = text(one, "fact");
    let outcome = match text(one, "fault") {
        "" => cell(one, "status"),
        fault => String::from(fault),
    };
    let mut parts = vec![
        output.tone(Tone::Dim, text(one, "at")),
        output.tone(tone, &format!("{:<18}", if state.is_empty() { fact } else { state })),
        cell(one, "delivery_id"),
        cell(one, "event_type"),
    ];
    for (name, value) in [
        ("attempt", cell(one, "attempt")),
        ("answer", outcome),
        ("next", cell(one, "next_attempt_at")),
        ("reason", cell(one, "reason")),
    ] {
        if !value.is_empty() {
            parts.push(format!("{name} {value}"));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_put_together_however_they_come() {
        let mut lines = Lines::default();
        let text = "retry: 1000\nid: 4.1\n\nid: 5.0\ndata: {\"a\": \"b: c\"}\n\n:\nid: 6.9\n\nevent: end\n";
        let mut found = Vec::new();
        for byte in text.as_bytes() {
            lines.add(&[*byte]);
            found.extend(lines.next());
        }
        let message = |id: &str, data: &str| Message {
            event: String::new(),
            id: String::from(id),
            data: String::from(data),
        };
        assert_eq!(
            found,
            [message("4.1", ""), message("5.0", "{\"a\": \"b: c\"}"), message("6.9", "")]
        );
    }

    #[test]
    fn a_line_says_what_matters_and_steers_no_terminal() {
        let output = Output { json: false, colours: false };
        let one = json!({
            "at": "2026-11-22T10:00:00Z", "fact": "attempt_made", "state": "retrying",
            "delivery_id": "dlv_1", "event_type": "a\u{1b}[31m", "attempt": 2, "status": 500,
            "next_attempt_at": "2026-11-22T10:00:05Z", "reason": null,
        });
        let shown = line(&one, output);
        assert!(shown.contains("attempt 2  answer 500  next 2026-11-22T10:00:05Z"), "{shown}");
        assert!(!shown.contains('\u{1b}') && !shown.contains("reason"), "{shown}");
    }
}
