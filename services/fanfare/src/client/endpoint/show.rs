//! Endpoints, for people.

use std::time::Duration;

use fanfare_domain::TenantId;
use serde_json::Value;

use super::security;
use crate::{
    client::{
        api::text,
        rate,
        text::{printable, span},
    },
    output::{Output, Tone},
};

/// Shows an endpoint with its secret, which is not shown again.
pub(super) fn with_secret(made: &Value, done: &str, output: Output) {
    if output.json {
        output.document(made);
        return;
    }
    output.line(&format!("{} {}", output.tone(Tone::Good, done), text(made, "id")));
    output.fields(&[
        ("url", printable(text(made, "url"))),
        ("types", types(made)),
        ("secret", output.tone(Tone::Strong, text(made, "secret"))),
    ]);
    output.line("");
    output.line("Keep the secret: it verifies the signatures, and is not shown again.");
}

/// Shows an endpoint's secrets again.
pub(super) fn revealed(shown: &Value, output: Output) {
    if output.json {
        output.document(shown);
        return;
    }
    let secrets = shown.get("secrets").and_then(Value::as_array).cloned().unwrap_or_default();
    let row = |secret: &Value| {
        let expires = Some(text(secret, "expires_at")).filter(|end| !end.is_empty());
        vec![
            output.tone(Tone::Strong, text(secret, "secret")),
            String::from(text(secret, "created_at")),
            String::from(expires.unwrap_or("current")),
        ]
    };
    let rows: Vec<_> = secrets.iter().map(row).collect();
    output.table(&["secret", "created", "expires"], &rows);
}

/// Shows an endpoint.
pub(super) fn endpoint(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let (tone, state) = state(found);
    let plain = |name| printable(text(found, name));
    let secrets = found.get("secrets").and_then(Value::as_array).map_or(0, Vec::len);
    output.fields(&[
        ("id", plain("id")),
        ("tenant", plain("tenant_id")),
        ("url", plain("url")),
        ("name", plain("name")),
        ("description", plain("description")),
        ("types", types(found)),
        ("filter", plain("filter")),
        ("state", output.tone(tone, &state)),
        ("health", health(found)),
        ("headers", words(found, "headers")),
        (
            "timeout",
            number(found, "timeout_ms")
                .map(|ms| span(Duration::from_millis(ms)))
                .unwrap_or_default(),
        ),
        (
            "concurrency",
            number(found, "concurrency").map(|number| number.to_string()).unwrap_or_default(),
        ),
        ("order", plain("ordering")),
        ("rate limit", rate::shown(found)),
        ("batches", batches(found)),
        ("trace headers", trace_context(found)),
        ("authentication", security::authentication(found)),
        ("tls", security::tls(found)),
        ("validation", security::validation(found)),
        ("retries", retries(found)),
        ("secrets", secrets.to_string()),
        ("created", plain("created_at")),
        ("changed", plain("updated_at")),
    ]);
}

/// Shows a tenant's endpoints.
pub(super) fn list(tenant: &TenantId, found: Vec<Value>, output: Output) {
    if output.json {
        output.document(&Value::Array(found));
        return;
    }
    if found.is_empty() {
        output.line(&format!(
            "{tenant} has no endpoints yet. Make one with: fanfare endpoint create {tenant} https://…"
        ));
        return;
    }
    let row = |one: &Value| {
        let (tone, state) = state(one);
        vec![
            String::from(text(one, "id")),
            output.tone(tone, &state),
            types(one),
            printable(text(one, "url")),
            printable(text(one, "name")),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    output.table(&["endpoint", "state", "types", "url", "name"], &rows);
}

/// Whether an endpoint gets deliveries, and how good that is.
pub(super) fn state(endpoint: &Value) -> (Tone, String) {
    let state = text(endpoint, "state");
    let why = match state {
        "paused" => text(endpoint, "pause_mode"),
        "disabled" => text(endpoint, "disabled_reason"),
        _ => "",
    };
    let tone = match state {
        "active" => Tone::Good,
        "paused" => Tone::Warning,
        _ => Tone::Bad,
    };
    let shown = if why.is_empty() {
        String::from(state)
    } else {
        format!("{state} ({})", why.replace('_', " "))
    };
    (tone, shown)
}

/// How it does at the moment; empty if its dispatcher did not say.
fn health(endpoint: &Value) -> String {
    let Some(health) = endpoint.get("health").filter(|health| health.is_object()) else {
        return String::new();
    };
    let breaker = match text(health, "state") {
        "closed" => String::from("is sent to"),
        "open" => format!("fails: held back since {}", text(health, "since")),
        "half_open" => format!("recovers since {}", text(health, "since")),
        other => printable(other),
    };
    let count = |name| number(health, name).unwrap_or_default();
    let (held, in_flight, window) = (count("held"), count("in_flight"), count("window"));
    let until = health.get("quiet_until").and_then(Value::as_str);
    let quiet = until.map(|until| format!("; asked for silence until {until}"));
    let quiet = quiet.unwrap_or_default();
    let words = format!("{breaker}; {in_flight} of {window} in flight, {held} waiting{quiet}");
    printable(&words)
}

fn types(endpoint: &Value) -> String {
    words(endpoint, "event_types")
}

fn words(endpoint: &Value, name: &str) -> String {
    let all = endpoint.get(name).and_then(Value::as_array);
    let words = all.into_iter().flatten().filter_map(Value::as_str);
    printable(&words.collect::<Vec<_>>().join(", "))
}

fn number(endpoint: &Value, name: &str) -> Option<u64> {
    endpoint.get(name).and_then(Value::as_u64)
}

/// How many events a request may carry; empty for one.
fn batches(endpoint: &Value) -> String {
    let Some(batch) = endpoint.get("batch").filter(|batch| !batch.is_null()) else {
        return String::new();
    };
    let max_events = number(batch, "max_events").unwrap_or(0);
    let wait = Duration::from_millis(number(batch, "max_wait_ms").unwrap_or(0));
    format!("up to {max_events} events, after {} at most", span(wait))
}

/// Whether requests say which trace they belong to; empty if that is the profile's to say.
fn trace_context(endpoint: &Value) -> String {
    let wanted = endpoint.get("trace_context").and_then(Value::as_bool);
    wanted.map(|wanted| String::from(if wanted { "yes" } else { "no" })).unwrap_or_default()
}

/// The delays of an endpoint's own retry policy; empty if it is the profile's.
fn retries(endpoint: &Value) -> String {
    let delays = endpoint.pointer("/retry/delays");
    match delays.and_then(|delays| delays.get("list")).and_then(Value::as_array) {
        Some(list) => {
            let words: Vec<_> = list.iter().filter_map(Value::as_str).collect();
            format!("after {}", words.join(", "))
        }
        None => delays.map(Value::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_comes_with_its_reason() {
        let active = json!({ "state": "active", "pause_mode": null });
        assert_eq!(state(&active), (Tone::Good, String::from("active")));
        let paused = json!({ "state": "paused", "pause_mode": "hold" });
        assert_eq!(state(&paused), (Tone::Warning, String::from("paused (hold)")));
        let disabled = json!({ "state": "disabled", "disabled_reason": "gone" });
        assert_eq!(state(&disabled), (Tone::Bad, String::from("disabled (gone)")));
    }

    #[test]
    fn batches_are_said_in_words() {
        let limited = json!({ "batch": { "max_events": 50, "max_wait_ms": 200 } });
        assert_eq!(batches(&limited), "up to 50 events, after 200 ms at most");
        assert_eq!(batches(&json!({ "batch": null })), "");
    }

    #[test]
    fn health_is_shown_where_it_is_known() {
        let open = json!({ "health": {
            "state": "open", "since": "2026-01-02T03:04:05.000Z", "window": 16, "in_flight": 1,
            "held": 64, "quiet_until": null,
        } });
        let since = "held back since 2026-01-02T03:04:05.000Z";
        assert_eq!(health(&open), format!("fails: {since}; 1 of 16 in flight, 64 waiting"));
        assert_eq!(health(&json!({ "health": null })), "");
    }

    #[test]
    fn only_an_endpoints_own_delays_are_shown() {
        let own = json!({ "retry": { "delays": { "list": ["1s", "5m"] } } });
        assert_eq!(retries(&own), "after 1s, 5m");
        assert_eq!(retries(&json!({ "retry": null })), "");
    }
}
