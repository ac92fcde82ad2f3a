//! The attempts of a delivery, and one of them with its whole request and answer.

use serde_json::Value;

use super::timeline::took;
use crate::{
    client::{
        api::text,
        listing::{Table, cell, cells},
        text::{body, printable},
    },
    output::{Output, Tone},
};

/// How many lines of a body are shown.
const BODY_LINES_MAX: usize = 200;

/// How the attempts of a delivery are listed.
pub(super) const ATTEMPTS: Table = Table {
    headings: &["attempt", "outcome", "answer", "took", "started", "next"],
    row,
    key: |one| cell(one, "attempt"),
    empty: "No attempt was made yet.",
};

fn row(one: &Value) -> Vec<String> {
    let mut row = cells(one, ["attempt", "outcome"]);
    row.push(answer(one));
    row.push(took(one));
    row.extend(cells(one, ["started_at", "retry_at"]));
    row
}

/// The status, the fault, or both where the profile shows a status for a fault.
fn answer(one: &Value) -> String {
    let both = [cell(one, "status"), cell(one, "fault")];
    both.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Shows an attempt.
pub(super) fn show(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let tone = if text(found, "outcome") == "accepted" { Tone::Good } else { Tone::Bad };
    output.fields(&[
        ("delivery", output.tone(Tone::Strong, &cell(found, "delivery_id"))),
        ("attempt", cell(found, "attempt")),
        ("outcome", output.tone(tone, &format!("{} {}", cell(found, "outcome"), answer(found)))),
        ("detail", cell(found, "detail")),
        ("started", cell(found, "started_at")),
        ("took", took(found)),
        ("next at", cell(found, "retry_at")),
        ("event", cell(found, "event_id")),
        ("endpoint", cell(found, "endpoint_id")),
        ("revision", cell(found, "config_revision")),
    ]);
    let nothing = Value::Null;
    let request = found.get("request").unwrap_or(&nothing);
    output.line("");
    let url = format!("{} {}", cell(request, "method"), cell(request, "url"));
    output.line(&output.tone(Tone::Strong, &url));
    message(request, output);
    output.line(&output.tone(Tone::Dim, fidelity(text(request, "fidelity"))));
    output.line("");
    match found.get("response") {
        Some(response) if !response.is_null() => {
            output.line(&output.tone(Tone::Strong, &format!("HTTP {}", cell(response, "status"))));
            message(response, output);
            if response.get("truncated").and_then(Value::as_bool) == Some(true) {
                output.line(&output.tone(Tone::Dim, "The body was longer, or broke off."));
            }
        }
        _ => output.line("There was no answer."),
    }
}

fn message(message: &Value, output: Output) {
    let headers = message.get("headers").and_then(Value::as_array);
    for header in headers.into_iter().flatten() {
        let name = output.tone(Tone::Dim, &format!("{}:", cell(header, "name")));
        output.line(&format!("{name} {}", cell(header, "value")));
    }
    let lines = body(text(message, "body").as_bytes(), BODY_LINES_MAX);
    if !lines.is_empty() {
        output.line("");
    }
    for line in lines {
        output.line(&printable(&line));
    }
}

/// Says how sure it is that the request is shown as it was sent.
fn fidelity(name: &str) -> &'static str {
    match name {
        "verified" => "This is what was sent: its signature is the one on record.",
        "unverified" => "The secret of then is not known any more: nobody can tell if this is it.",
        "changed" => "The profile has changed since: this is how it would be sent now.",
        "incomplete" => "It was a batch, of which not all deliveries are on record.",
        "event_gone" => "The event is no longer in the log, so that there is no body to show.",
        "not_sent" => "Nothing was sent: the request could not be made.",
        _ => "",
    }
}
