//! `fanfare audit`: who changed what of the configuration.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::{Args, ValueEnum};
use fanfare_domain::TenantId;
use serde_json::Value;

use super::{
    api::Api,
    listing::{self, Listing, Query, Table, cell, cells},
    options::Ago,
    text::printable,
};
use crate::output::Output;

/// How long the list of what has changed may be.
const CHANGES_MAX: usize = 60;

const EXAMPLES: &str = "\
Examples:
  fanfare audit
  fanfare audit --tenant acme --kind endpoint --since 24h
  fanfare audit --id ep_01jd3x6y8kqz7v5m2n4p6r8t0w --json";

/// Options of `fanfare audit`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Only changes of this tenant and of what belongs to it. A tenant's own key needs this.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only changes of things of this kind.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only changes of the thing with this id.
    #[arg(long)]
    id: Option<String>,
    /// Only changes made with this key, or by this service.
    #[arg(long, value_name = "KEY")]
    who: Option<String>,
    /// Only changes since then: a duration ago such as 10m, or a time (RFC 3339).
    #[arg(long, value_name = "WHEN")]
    since: Option<Ago>,
    /// Only changes before then: a duration ago, or a time.
    #[arg(long, value_name = "WHEN")]
    until: Option<Ago>,
    #[command(flatten)]
    listing: Listing,
}

/// The kinds of things that are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A tenant.
    Tenant,
    /// An endpoint.
    Endpoint,
    /// An entry of a catalogue of event types.
    EventType,
    /// A profile that an operator added.
    Profile,
    /// An API key.
    Key,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Endpoint => "endpoint",
            Self::EventType => "event-type",
            Self::Profile => "profile",
            Self::Key => "key",
        }
    }
}

const CHANGES: Table = Table {
    headings: &["at", "action", "kind", "id", "changed", "who", "why"],
    row,
    key: |one| cell(one, "revision"),
    empty: "There are no such changes.",
};

/// Lists changes.
pub(crate) async fn audit(options: &Options, api: &Api, output: Output) -> Result<()> {
    let query = Query::default()
        .with("kind", options.kind.map(Kind::name))
        .with("id", options.id.as_ref())
        .with("who", options.who.as_ref())
        .with("since", options.since.as_ref())
        .with("until", options.until.as_ref());
    let path = match &options.tenant {
        Some(tenant) => format!("/v1/tenants/{tenant}/audit"),
        None => String::from("/v1/audit"),
    };
    listing::show(api, &path, (&query, &options.listing), &CHANGES, output).await
}

fn row(one: &Value) -> Vec<String> {
    let mut row = cells(one, ["at", "action", "kind", "id"]);
    row.push(changed(one));
    row.extend(cells(one, ["who", "why"]));
    row
}

/// The names of the members that differ.
fn changed(one: &Value) -> String {
    let member = |name: &str| one.get(name).and_then(Value::as_object);
    let (Some(before), Some(after)) = (member("before"), member("after")) else {
        return String::new();
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = |name: &&&String| {
        name.as_str() != "updated_at" && before.get(name.as_str()) != after.get(name.as_str())
    };
    let names: Vec<&str> = names.iter().filter(differ).map(|name| name.as_str()).collect();
    let text = printable(&names.join(","));
    if text.chars().count() <= CHANGES_MAX {
        return text;
    }
    text.chars().take(CHANGES_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named() {
        let one = json!({
            "before": {"name": "a", "url": "x", "updated_at": 1, "gone": 1},
            "after": {"name": "b", "url": "x", "updated_at": 2, "new": 1},
        });
        assert_eq!(changed(&one), "gone,name,new");
        assert_eq!(changed(&json!({"before": null, "after": {"name": "b"}})), "");
    }
}
