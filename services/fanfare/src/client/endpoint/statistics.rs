//! `fanfare endpoint statistics`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Named;
use crate::{
    client::{again::Watch, api::Api, listing::cell, text::thousands},
    output::{Output, Tone},
};

/// Options of `fanfare endpoint statistics`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    endpoint: Named,
    /// How far back to look.
    #[arg(long, value_enum, default_value = "24h")]
    window: Window,
    #[command(flatten)]
    watch: Watch,
}

/// A time that ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Window {
    /// The last hour.
    #[value(name = "1h")]
    Hour,
    /// The last 24 hours.
    #[value(name = "24h")]
    Day,
    /// The last seven days.
    #[value(name = "7d")]
    Week,
}

impl Window {
    const fn name(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }
}

/// Shows how an endpoint did lately.
pub(super) async fn run(options: &Options, api: &Api, output: Output) -> Result<()> {
    let window = options.window.name();
    let path = format!("{}/statistics?window={window}", options.endpoint.path());
    let show = |found: &Value, output| show(options, found, output);
    options.watch.one((api, &path), show, output).await
}

fn show(options: &Options, found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let rate = found.get("success_rate").and_then(Value::as_f64);
    let rate = rate.map_or_else(|| String::from("-"), |rate| format!("{:.2} %", rate * 100.0));
    let nothing = Value::Null;
    let latency = found.get("latency_ms").unwrap_or(&nothing);
    let percentile = |name: &str| match cell(latency, name).as_str() {
        "" => String::new(),
        millis => format!("{millis} ms"),
    };
    output.fields(&[
        ("endpoint", output.tone(Tone::Strong, &options.endpoint.endpoint.to_string())),
        ("since", cell(found, "since")),
        ("delivered", output.tone(Tone::Accent, &rate)),
        ("deliveries", counts(found.get("deliveries"), &[])),
        ("attempts", counts(found.get("attempts"), &["by_status", "by_fault"])),
        ("statuses", counts(found.pointer("/attempts/by_status"), &[])),
        ("faults", counts(found.pointer("/attempts/by_fault"), &[])),
        ("p50", percentile("p50")),
        ("p95", percentile("p95")),
        ("p99", percentile("p99")),
    ]);
}

/// Names and numbers, without those that are 0.
fn counts(found: Option<&Value>, without: &[&str]) -> String {
    let members = found.and_then(Value::as_object).into_iter().flatten();
    let counts = members.filter(|(name, _)| !without.contains(&name.as_str()));
    let counts =
        counts.filter_map(|(name, count)| Some((name, count.as_u64().filter(|n| *n > 0)?)));
    let counts: Vec<_> =
        counts.map(|(name, count)| format!("{name} {}", thousands(count))).collect();
    counts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_of_nothing_are_left_out() {
        let found = json!({"accepted": 12_000, "failed": 0, "by_status": {"200": 1}});
        assert_eq!(counts(Some(&found), &["by_status"]), "accepted 12,000");
        assert_eq!(counts(None, &[]), "");
    }
}
