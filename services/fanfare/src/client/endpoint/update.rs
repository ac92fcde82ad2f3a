//! `fanfare endpoint update`: from the command line to what the API takes.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Named, limits::Limits, security::Security};
use crate::client::{
    options::{Pair, map},
    setting::Misfit,
};

/// Options of `fanfare endpoint update`. What is not given stays as it is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) endpoint: Named,
    /// Where deliveries go.
    #[arg(long)]
    url: Option<String>,
    /// Which event types it wants, with commas between: all of them, not only what is new.
    #[arg(long, value_delimiter = ',', value_name = "PATTERNS")]
    types: Option<Vec<String>>,
    /// Which events of these types it wants, by their content: an expression, or none for all.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// What people call it.
    #[arg(long)]
    name: Option<String>,
    /// What else people should know.
    #[arg(long)]
    description: Option<String>,
    /// A header to add to every request; may be given several times, and others stay.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<Pair>,
    /// A header to add no more; may be given several times.
    #[arg(long = "remove-header", value_name = "NAME")]
    removed: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    security: Security,
    /// Show nothing of ourselves in the header authorization any more.
    #[arg(long, conflicts_with_all = ["bearer", "basic", "oauth2_token_url"])]
    no_authentication: bool,
    /// Speak TLS as with all others again.
    #[arg(long, conflicts_with_all = ["ca", "client_certificate"])]
    no_tls: bool,
}

impl Options {
    /// Tells whether what is to change depends on the endpoint as it is.
    pub(super) fn are_incomplete(&self) -> bool {
        self.limits.are_incomplete()
    }

    /// Returns what is to change of an endpoint; what it is now may be null unless the options
    /// [are incomplete](Self::are_incomplete).
    pub(super) fn patch(&self, current: &Value) -> Result<Value, Misfit> {
        let mut members = Map::new();
        let texts = [("url", &self.url), ("name", &self.name), ("description", &self.description)];
        for (name, value) in texts {
            if let Some(value) = value {
                members.insert(String::from(name), json!(value));
            }
        }
        if let Some(types) = &self.types {
            members.insert(String::from("event_types"), json!(types));
        }
        if let Some(filter) = &self.filter {
            let expression = Some(filter).filter(|text| *text != "none");
            members.insert(String::from("filter"), json!(expression));
        }
        let set = map(&self.headers).into_iter().map(|(name, value)| (name, Some(value)));
        let removed = self.removed.iter().map(|name| (name.clone(), None));
        let headers: BTreeMap<String, Option<String>> = removed.chain(set).collect();
        if !headers.is_empty() {
            members.insert(String::from("headers"), json!(headers));
        }
        self.limits.add_to(&mut members, current)?;
        self.security.add_to(&mut members);
        for (name, gone) in [("authentication", self.no_authentication), ("tls", self.no_tls)] {
            if gone {
                members.insert(String::from(name), Value::Null);
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn patch(words: &str, current: &Value) -> Result<Value, Misfit> {
        let words = format!("x acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w {words}");
        let matches = Line::command().get_matches_from(words.split_whitespace());
        Line::from_arg_matches(&matches).unwrap().options.patch(current)
    }

    #[test]
    fn only_what_is_given_changes() {
        assert_eq!(patch("", &Value::Null), Ok(json!({})));
        let given = "--url https://b/ --types a.b,c.> --header X-A=1 --remove-header X-B \
                     --batch none --concurrency 2 --filter none --bearer abc --no-tls";
        let expected = json!({
            "url": "https://b/",
            "event_types": ["a.b", "c.>"],
            "headers": { "X-A": "1", "X-B": null },
            "batch": null,
            "concurrency": 2,
            "filter": null,
            "authentication": { "type": "bearer", "token": "abc" },
            "tls": null,
        });
        assert_eq!(patch(given, &Value::Null), Ok(expected));
    }

    #[test]
    fn a_part_alone_changes_what_the_endpoint_has() {
        let current = json!({
            "url": "https://a/",
            "batch": { "max_events": 50, "max_wait_ms": 5_000 },
            "rate_limit": null,
        });
        let expected = json!({ "batch": { "max_events": 50, "max_wait_ms": 1_000 } });
        assert_eq!(patch("--batch-wait 1s", &current), Ok(expected));
        assert!(patch("--rate-burst 5", &current).is_err());
    }
}
