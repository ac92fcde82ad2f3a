//! `fanfare endpoint filter-test`: tries a filter on an event that is made up.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{ArgGroup, Args};
use fanfare_domain::{EndpointId, EventType, TenantId};
use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::all;
use crate::{
    client::{
        api::{Api, text},
        options::{Data, Pair, map, read_data},
        tenant,
        text::printable,
    },
    output::{Output, Tone},
};

/// Options of `fanfare endpoint filter-test`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("filter_of").required(true).args(["endpoint", "filter"]))]
pub(crate) struct Options {
    /// The tenant.
    tenant: TenantId,
    /// What kind of thing happened: dot-separated words.
    #[arg(value_name = "TYPE")]
    event_type: EventType,
    /// What happened, as JSON; - reads it from standard input [default: {}].
    #[arg(id = "event_data", value_name = "DATA", conflicts_with = "file")]
    data: Option<Data>,
    /// Read the data from a file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// A short fact about the event beside its data; may be given several times.
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<Pair>,
    /// Try what this endpoint wants.
    #[arg(long, value_name = "ENDPOINT")]
    endpoint: Option<EndpointId>,
    /// Try this expression, for all event types.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
}

#[derive(Serialize)]
struct Sample {
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
    attributes: std::collections::BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Trial {
    filter: String,
    event: Sample,
}

/// Tries it, and says what came of it.
pub(super) async fn run(options: Options, api: &Api, output: Output) -> Result<()> {
    let Options { tenant, event_type, data, file, attributes, endpoint, filter } = options;
    let event = Sample {
        event_type: event_type.to_string(),
        data: read_data(data, file)?,
        attributes: map(&attributes),
    };
    let (path, body) = match (endpoint, filter) {
        (Some(endpoint), _) => {
            (format!("{}/{endpoint}/filter/test", all(&tenant)), to_raw_value(&event))
        }
        (None, filter) => {
            let trial = Trial { filter: filter.unwrap_or_default(), event };
            (format!("{}/filter/test", tenant::path(&tenant)), to_raw_value(&trial))
        }
    };
    let body = body.context("write the event")?;
    show(&api.post_raw(&path, &body, &[]).await?, output);
    Ok(())
}

fn show(verdict: &Value, output: Output) {
    if output.json {
        output.document(verdict);
    } else if verdict.get("matches").and_then(Value::as_bool).unwrap_or_default() {
        output.line(&output.tone(Tone::Good, "matches"));
    } else {
        let reason = printable(text(verdict, "reason"));
        output.line(&format!("{}: {reason}", output.tone(Tone::Warning, "does not match")));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn it_is_either_an_endpoint_or_an_expression() {
        let read = |words: &str| Line::try_parse_from(words.split_whitespace()).is_ok();
        let endpoint = "--endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w";
        assert!(read(&format!("x acme a.b {{}} {endpoint} --attribute a=b")));
        assert!(read("x acme a.b 1 --filter true"));
        assert!(!read("x acme a.b 1"));
        assert!(!read(&format!("x acme a.b --filter true {endpoint}")));
    }
}
