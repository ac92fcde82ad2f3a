//! Rate limits, of endpoints and of tenants: as they are written, as the API takes them, and as
//! they are shown.

use std::{fmt, str::FromStr};

use clap::Args;
use fanfare_domain::{
    endpoint::{RateLimit, RatePeriod},
    settings::parse_within,
};
use serde_json::{Value, json};

use super::{
    api::text,
    setting::{Parted, Setting, setting},
    text::printable,
};

/// The API's name of a rate limit.
pub(crate) const MEMBER: &str = "rate_limit";

/// How many may be begun, and in what time: `20/s` or `100/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    requests: u32,
    per: RatePeriod,
}

/// Options of a rate limit. What is not given is left as it is.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct RateOptions {
    /// How many requests may be begun in a second or a minute, like 10/s or 300/m; none for any
    /// number, which is the default.
    #[arg(long, value_parser = setting::<Rate>, value_name = "RATE")]
    pub(crate) rate_limit: Option<Setting<Rate>>,
    /// How many of those may be begun at once after a pause [default: as it was, or 1].
    #[arg(long, value_parser = burst, value_name = "NUMBER")]
    pub(crate) rate_burst: Option<u32>,
}

/// Reads how many may be begun at once.
pub(crate) fn burst(text: &str) -> Result<u32, String> {
    parse_within(text, &(1..=RateLimit::BURST_MAX))
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || String::from("write it as a number and a time, like 10/s or 300/m");
        let (requests, per) = text.split_once('/').ok_or_else(malformed)?;
        let per = match per.trim() {
            "s" | "second" => RatePeriod::Second,
            "m" | "minute" => RatePeriod::Minute,
            _ => return Err(malformed()),
        };
        Ok(Self { requests: parse_within(requests, &(1..=RateLimit::REQUESTS_MAX))?, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = match self.per {
            RatePeriod::Second => "s",
            RatePeriod::Minute => "m",
        };
        write!(f, "{}/{per}", self.requests)
    }
}

impl Rate {
    /// The rate of a limit, as the API has it; `None` if it is none that could be written here.
    fn of(limit: &Value) -> Option<Self> {
        let requests = limit.get("requests").and_then(Value::as_u64)?;
        format!("{requests}/{}", text(limit, "per")).parse().ok()
    }

    /// The rate as the API takes it.
    pub(crate) fn json(self) -> Value {
        let per = match self.per {
            RatePeriod::Second => "second",
            RatePeriod::Minute => "minute",
        };
        json!({ "requests": self.requests, "per": per })
    }
}

/// How often a key or a link may ask.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct CallRate {
    /// How many requests it may make in a second or a minute, like 100/s or 3000/m [default: what the
    /// service's settings say].
    #[arg(long, value_name = "RATE")]
    rate_limit: Option<Rate>,
    /// How many of those may come at once [default: all of them, up to 1000].
    #[arg(long, value_parser = burst, value_name = "NUMBER", requires = "rate_limit")]
    rate_burst: Option<u32>,
}

impl CallRate {
    /// Adds what was given to what the API is sent.
    pub(crate) fn add_to(self, body: &mut Value) {
        let Some(mut limit) = self.rate_limit.map(Rate::json) else { return };
        if let (Some(burst), Some(members)) = (self.rate_burst, limit.as_object_mut()) {
            members.insert(String::from("burst"), burst.into());
        }
        if let Some(members) = body.as_object_mut() {
            members.insert(String::from(MEMBER), limit);
        }
    }
}

impl RateOptions {
    /// Returns what was given.
    pub(crate) fn parted(self) -> Parted {
        Parted {
            whole_name: "rate limit",
            part_option: "--rate-burst",
            part_name: "burst",
            whole: self.rate_limit.map(|limit| limit.map(Rate::json)),
            part: self.rate_burst.map(|burst| json!(burst)),
        }
    }
}

/// Shows the rate limit of an endpoint or a tenant as the API has it; empty if there is none.
pub(crate) fn shown(limited: &Value) -> String {
    let Some(limit) = limited.get(MEMBER).filter(|limit| !limit.is_null()) else {
        return String::new();
    };
    let Some(rate) = Rate::of(limit) else { return printable(&limit.to_string()) };
    match limit.get("burst").and_then(Value::as_u64) {
        None | Some(0 | 1) => rate.to_string(),
        Some(burst) => format!("{rate}, {burst} at once"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_shown_as_it_is_written() {
        for (written, shown_as) in
            [("20/s", "20/s"), ("20/second", "20/s"), ("100/m", "100/m"), (" 1 / minute", "1/m")]
        {
            let limit = written.parse::<Rate>().unwrap().json();
            assert_eq!(shown(&json!({ "rate_limit": limit })), shown_as, "{written}");
        }
    }

    #[test]
    fn a_burst_is_shown_if_there_is_one() {
        let limited =
            |burst| json!({ "rate_limit": { "requests": 300, "per": "minute", "burst": burst } });
        assert_eq!(shown(&limited(1)), "300/m");
        assert_eq!(shown(&limited(5)), "300/m, 5 at once");
    }

    #[test]
    fn no_limit_is_shown_as_nothing_and_a_strange_one_as_it_is() {
        assert_eq!(shown(&json!({ "rate_limit": null })), "");
        assert_eq!(shown(&json!({})), "");
        let strange = json!({ "rate_limit": { "per": "hour", "requests": 5 } });
        assert_eq!(shown(&strange), strange["rate_limit"].to_string());
    }

    #[test]
    fn what_is_no_rate_is_refused_with_a_hint() {
        for (written, hint) in [
            ("20", "like 10/s or 300/m"),
            ("20/h", "like 10/s or 300/m"),
            ("20/s+5", "like 10/s or 300/m"),
            ("/s", "between 1 and 10000"),
            ("0/s", "between 1 and 10000"),
            ("10001/m", "between 1 and 10000"),
            ("-1/s", "between 1 and 10000"),
        ] {
            let refused = written.parse::<Rate>().unwrap_err();
            assert!(refused.contains(hint), "{written}: {refused}");
        }
        for beyond in ["0", "1001"] {
            assert!(burst(beyond).unwrap_err().contains("between 1 and 1000"), "{beyond}");
        }
        assert_eq!(burst("1000"), Ok(1_000));
    }
}
