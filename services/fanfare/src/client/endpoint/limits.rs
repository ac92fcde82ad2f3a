//! How an endpoint is sent to: from the command line to what the API takes.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use clap::Args;
use fanfare_domain::{
    endpoint::{Batching, RateLimit},
    settings::{parse_duration, parse_within},
};
use serde_json::{Map, Value, json};

/// The most requests that may be in flight to an endpoint, as the API has it.
const CONCURRENCY_MAX: u16 = 1_000;

/// Options of `fanfare endpoint create` and `update`. What is not given is left as it is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Limits {
    /// How many requests may be in flight at once; none for the default of 16.
    #[arg(long, value_parser = setting::<Concurrency>, value_name = "NUMBER")]
    concurrency: Option<Setting<Concurrency>>,
    /// How long an attempt may take; none for what the tenant's profile says.
    #[arg(long, value_parser = setting::<Span>, value_name = "DURATION")]
    timeout: Option<Setting<Span>>,
    /// How many requests may be begun in a second or a minute, like 10/s or 300/m; none for any
    /// number, which is the default.
    #[arg(long, value_parser = setting::<Rate>, value_name = "RATE")]
    rate_limit: Option<Setting<Rate>>,
    /// How many of those may be begun at once after a pause [default: 1].
    #[arg(long, requires = "rate_limit", value_name = "NUMBER")]
    rate_burst: Option<NonZeroU32>,
    /// How many events a request may carry, as a JSON array, where the tenant's profile has
    /// batches; none for one each, which is the default.
    #[arg(long, value_parser = setting::<Events>, value_name = "NUMBER")]
    batch: Option<Setting<Events>>,
    /// How long the first event of a batch waits for others [default: 0s].
    #[arg(long, requires = "batch", value_parser = parse_duration, value_name = "DURATION")]
    batch_wait: Option<Duration>,
    /// Which events wait for the one before them to be delivered; none is the default.
    #[arg(long, value_parser = ["none", "key", "all"], value_name = "ORDER")]
    ordering: Option<String>,
}

/// A value that is set, or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting<T> {
    /// It is set.
    To(T),
    /// It is taken away.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Concurrency(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Events(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

/// A number of requests, and in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    requests: u32,
    per: &'static str,
}

impl FromStr for Concurrency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_within(text, &(1..=CONCURRENCY_MAX)).map(Self)
    }
}

impl FromStr for Events {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_within(text, &(Batching::EVENTS_MIN..=Batching::EVENTS_MAX)).map(Self)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self).map_err(|error| error.to_string())
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || String::from("write it as a number and a time, like 10/s or 300/m");
        let (requests, per) = text.split_once('/').ok_or_else(malformed)?;
        let per = match per.trim() {
            "s" | "second" => "second",
            "m" | "minute" => "minute",
            _ => return Err(malformed()),
        };
        Ok(Self { requests: parse_within(requests, &(1..=RateLimit::REQUESTS_MAX))?, per })
    }
}

/// Reads a value, or `none`.
fn setting<T: FromStr<Err = String>>(text: &str) -> Result<Setting<T>, String> {
    if text.trim() == "none" { Ok(Setting::None) } else { text.parse().map(Setting::To) }
}

impl<T: Copy> Setting<T> {
    fn json(self, value: impl FnOnce(T) -> Value) -> Value {
        match self {
            Self::To(it) => value(it),
            Self::None => Value::Null,
        }
    }
}

impl Limits {
    /// Adds what was given, as the API takes it.
    pub(super) fn add_to(&self, members: &mut Map<String, Value>) {
        let Self { concurrency, timeout, rate_limit, rate_burst, batch, batch_wait, ordering } =
            self;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let rate = |Rate { requests, per }| {
            let burst = rate_burst.map_or(1, NonZeroU32::get);
            json!({ "requests": requests, "per": per, "burst": burst })
        };
        let batching = |Events(max_events)| {
            let max_wait = batch_wait.unwrap_or_default();
            json!({ "max_events": max_events, "max_wait_ms": millis(max_wait) })
        };
        let given = [
            ("concurrency", concurrency.map(|it| it.json(|Concurrency(number)| json!(number)))),
            ("timeout_ms", timeout.map(|it| it.json(|Span(span)| json!(millis(span))))),
            ("rate_limit", rate_limit.map(|it| it.json(rate))),
            ("batch", batch.map(|it| it.json(batching))),
            ("ordering", ordering.clone().map(Value::String)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                members.insert(String::from(name), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        limits: Limits,
    }

    fn read(words: &str) -> Result<Value, String> {
        let line = Line::command().try_get_matches_from(words.split_whitespace());
        let line = line.and_then(|matches| Line::from_arg_matches(&matches));
        let mut members = Map::new();
        line.map_err(|error| error.to_string())?.limits.add_to(&mut members);
        Ok(Value::Object(members))
    }

    #[test]
    fn what_is_given_is_set_and_none_takes_it_away() {
        assert_eq!(read("x"), Ok(json!({})));
        let all = "x --concurrency 4 --timeout 2500ms --rate-limit 300/m --rate-burst 5 --batch 50 \
                   --batch-wait 200ms";
        let expected = json!({
            "concurrency": 4,
            "timeout_ms": 2_500,
            "rate_limit": { "requests": 300, "per": "minute", "burst": 5 },
            "batch": { "max_events": 50, "max_wait_ms": 200 },
        });
        assert_eq!(read(all), Ok(expected));
        assert_eq!(read("x --ordering key"), Ok(json!({ "ordering": "key" })));
        let short = json!({
            "rate_limit": { "requests": 10, "per": "second", "burst": 1 },
            "batch": { "max_events": 2, "max_wait_ms": 0 },
        });
        assert_eq!(read("x --rate-limit 10/s --batch 2"), Ok(short));
        let none = "x --concurrency none --timeout none --rate-limit none --batch none";
        let expected =
            json!({ "concurrency": null, "timeout_ms": null, "rate_limit": null, "batch": null });
        assert_eq!(read(none), Ok(expected));
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_hint() {
        for (words, hint) in [
            ("x --rate-limit 10", "like 10/s or 300/m"),
            ("x --rate-limit 10/h", "like 10/s or 300/m"),
            ("x --rate-limit 0/s", "between 1 and 10000"),
            ("x --rate-burst 3", "--rate-limit"),
            ("x --batch 1", "between 2 and 1000"),
            ("x --batch-wait 1s", "--batch"),
            ("x --ordering id", "possible values: none, key, all"),
            ("x --concurrency 1001", "between 1 and 1000"),
        ] {
            let refused = read(words).unwrap_err();
            assert!(refused.contains(hint), "{words}: {refused}");
        }
    }
}
