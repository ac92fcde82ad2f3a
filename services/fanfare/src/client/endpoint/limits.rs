//! How an endpoint is sent to: from the command line to what the API takes.

use std::{str::FromStr, time::Duration};

use clap::Args;
use fanfare_domain::{
    endpoint::Batching,
    settings::{parse_duration, parse_within},
};
use serde_json::{Map, Value, json};

use crate::client::{
    rate::{self, RateOptions},
    setting::{Misfit, Parted, Setting, setting},
};

/// The most requests that may be in flight to an endpoint, as the API has it.
const CONCURRENCY_MAX: u16 = 1_000;
/// The API's name of how many events a request may carry.
const BATCH: &str = "batch";

/// Options of `fanfare endpoint create` and `update`. What is not given is left as it is.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Limits {
    /// How many requests may be in flight at once; none for the default of 16.
    #[arg(long, value_parser = setting::<Concurrency>, value_name = "NUMBER")]
    concurrency: Option<Setting<Concurrency>>,
    /// How long an attempt may take; none for what the tenant's profile says.
    #[arg(long, value_parser = setting::<Span>, value_name = "DURATION")]
    timeout: Option<Setting<Span>>,
    #[command(flatten)]
    rate: RateOptions,
    /// How many events a request may carry, as a JSON array, where the tenant's profile has
    /// batches; none for one each, which is the default.
    #[arg(long, value_parser = setting::<Events>, value_name = "NUMBER")]
    batch: Option<Setting<Events>>,
    /// How long the first event of a batch waits for others [default: as it was, or 0s].
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    batch_wait: Option<Duration>,
    /// Which events wait for the one before them to be delivered; none is the default.
    #[arg(long, value_parser = ["none", "key", "all"], value_name = "ORDER")]
    ordering: Option<String>,
    /// Whether requests say which trace they belong to; none for what the tenant's profile says.
    #[arg(long, value_parser = ["yes", "no", "none"], value_name = "WHETHER")]
    trace_context: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Concurrency(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Events(u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span(Duration);

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

fn millis(span: Duration) -> Value {
    json!(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// What the API takes for a word.
fn yes_or_no(word: &str) -> Value {
    match word {
        "yes" => Value::Bool(true),
        "no" => Value::Bool(false),
        _ => Value::Null,
    }
}

impl Limits {
    /// Tells whether what was given is to be completed by what the endpoint has.
    pub(super) fn are_incomplete(&self) -> bool {
        self.rate.parted().is_incomplete() || self.batching().is_incomplete()
    }

    /// Adds what was given, as the API takes it, completed by what the endpoint has; of one that
    /// is to be made, that is null.
    pub(super) fn add_to(
        &self,
        members: &mut Map<String, Value>,
        current: &Value,
    ) -> Result<(), Misfit> {
        let concurrency = self.concurrency.map(|it| it.json(|Concurrency(number)| json!(number)));
        let given = [
            ("concurrency", concurrency),
            ("timeout_ms", self.timeout.map(|it| it.json(|Span(span)| millis(span)))),
            (rate::MEMBER, self.rate.parted().onto(current.get(rate::MEMBER))?),
            (BATCH, self.batching().onto(current.get(BATCH))?),
            ("ordering", self.ordering.clone().map(Value::String)),
            ("trace_context", self.trace_context.as_deref().map(yes_or_no)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                members.insert(String::from(name), value);
            }
        }
        Ok(())
    }

    fn batching(&self) -> Parted {
        let whole = |Events(max_events)| json!({ "max_events": max_events });
        Parted {
            whole_name: "batch size",
            part_option: "--batch-wait",
            part_name: "max_wait_ms",
            whole: self.batch.map(|batch| batch.map(whole)),
            part: self.batch_wait.map(millis),
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

    fn parse(words: &str) -> Result<Limits, String> {
        let line = Line::command().try_get_matches_from(words.split_whitespace());
        let line = line.and_then(|matches| Line::from_arg_matches(&matches));
        line.map(|line| line.limits).map_err(|error| error.to_string())
    }

    fn read(words: &str, current: &Value) -> Result<Value, String> {
        let mut members = Map::new();
        let added = parse(words)?.add_to(&mut members, current);
        added.map(|()| Value::Object(members)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_given_is_set_and_none_takes_it_away() {
        assert_eq!(read("x", &Value::Null), Ok(json!({})));
        let all = "x --concurrency 4 --timeout 2500ms --rate-limit 300/m --rate-burst 5 --batch 50 \
                   --batch-wait 200ms";
        let expected = json!({
            "concurrency": 4,
            "timeout_ms": 2_500,
            "rate_limit": { "requests": 300, "per": "minute", "burst": 5 },
            "batch": { "max_events": 50, "max_wait_ms": 200 },
        });
        assert_eq!(read(all, &Value::Null), Ok(expected));
        for (word, value) in [("yes", json!(true)), ("no", json!(false)), ("none", Value::Null)] {
            let traced = read(&format!("x --trace-context {word}"), &Value::Null);
            assert_eq!(traced, Ok(json!({ "trace_context": value })));
        }
        let ordered = read("x --ordering key", &Value::Null);
        assert_eq!(ordered, Ok(json!({ "ordering": "key" })));
        let short = json!({
            "rate_limit": { "requests": 10, "per": "second" },
            "batch": { "max_events": 2 },
        });
        assert_eq!(read("x --rate-limit 10/s --batch 2", &Value::Null), Ok(short));
        let none = "x --concurrency none --timeout none --rate-limit none --batch none";
        let expected =
            json!({ "concurrency": null, "timeout_ms": null, "rate_limit": null, "batch": null });
        assert_eq!(read(none, &Value::Null), Ok(expected));
    }

    #[test]
    fn what_is_not_given_of_a_limit_stays() {
        let current = json!({
            "rate_limit": { "requests": 10, "per": "minute", "burst": 100 },
            "batch": { "max_events": 50, "max_wait_ms": 5_000 },
        });
        let rate = |requests, per, burst| {
            let limit = json!({ "requests": requests, "per": per, "burst": burst });
            json!({ "rate_limit": limit })
        };
        let batch =
            |events, wait| json!({ "batch": { "max_events": events, "max_wait_ms": wait } });
        for (words, expected) in [
            ("x --rate-limit 20/s", rate(20, "second", 100)),
            ("x --rate-burst 3", rate(10, "minute", 3)),
            ("x --batch 100", batch(100, 5_000)),
            ("x --batch-wait 1s", batch(50, 1_000)),
        ] {
            assert_eq!(read(words, &current), Ok(expected), "{words}");
            assert!(parse(words).unwrap().are_incomplete(), "{words}");
        }
        for words in ["x --rate-limit 1/s --rate-burst 1 --batch none", "x --concurrency 3"] {
            assert!(!parse(words).unwrap().are_incomplete(), "{words}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_hint() {
        let none = json!({ "rate_limit": null, "batch": null });
        for (words, hint) in [
            ("x --rate-limit 10", "like 10/s or 300/m"),
            ("x --rate-limit 0/s", "between 1 and 10000"),
            ("x --rate-burst 0", "between 1 and 1000"),
            ("x --rate-burst 3", "no rate limit that --rate-burst"),
            ("x --rate-limit none --rate-burst 3", "--rate-burst cannot go with"),
            ("x --batch 1", "between 2 and 1000"),
            ("x --batch-wait 1s", "no batch size that --batch-wait"),
            ("x --batch none --batch-wait 1s", "--batch-wait cannot go with"),
            ("x --ordering id", "possible values: none, key, all"),
            ("x --concurrency 1001", "between 1 and 1000"),
        ] {
            let refused = read(words, &none).unwrap_err();
            assert!(refused.contains(hint), "{words}: {refused}");
        }
    }
}
