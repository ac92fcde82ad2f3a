//! Lists out of the delivery log: as tables, as JSON, or followed as they grow.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use fanfare_domain::settings::parse_within;
use reqwest::Url;
use serde_json::Value;

use super::{
    again,
    api::{Api, text},
    text::printable,
};
use crate::output::{Output, Tone};

/// How often a list that is watched is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most things of a page of the API.
const PAGE_MAX: usize = 250;
/// How many things are looked at while a list is watched: that takes so many pages each time.
const WATCHED_MAX: usize = 1_000;
/// How many things a list shows, if nothing says.
const LIMIT: usize = 50;

/// How much of a list is shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct Listing {
    /// How many to show, newest first.
    #[arg(long, default_value_t = LIMIT, value_parser = limit, value_name = "NUMBER")]
    pub(crate) limit: usize,
    /// Show what comes and what changes among the newest, 1,000 at most, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

fn limit(text: &str) -> Result<usize, String> {
    parse_within(text, &(1..=1_000_000))
}

/// How a list is shown.
pub(crate) struct Table {
    /// The headings of its columns.
    pub(crate) headings: &'static [&'static str],
    /// The cells of a thing.
    pub(crate) row: fn(&Value) -> Vec<String>,
    /// What makes a thing worth showing again while it is watched.
    pub(crate) key: fn(&Value) -> String,
    /// What is said of an empty list.
    pub(crate) empty: &'static str,
}

/// What narrows a list down: names and values of the API's query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Adds a value, if there is one.
    pub(crate) fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.0.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Returns the path with the query, of what has no pages.
    pub(crate) fn path_only(&self, path: &str) -> Result<String> {
        let mut url = Url::parse("http://localhost").context("make a query")?;
        url.query_pairs_mut().extend_pairs(&self.0);
        let query = url.query().filter(|query| !query.is_empty());
        Ok(query.map_or_else(|| String::from(path), |query| format!("{path}?{query}")))
    }

    /// Returns the path with the query.
    fn path(&self, path: &str, limit: usize, cursor: Option<&str>) -> Result<String> {
        let mut url = Url::parse("http://localhost").context("make a query")?;
        {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(&self.0).append_pair("limit", &limit.to_string());
            if let Some(cursor) = cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        Ok(format!("{path}?{}", url.query().unwrap_or_default()))
    }
}

/// Shows a list.
pub(crate) async fn show(
    api: &Api,
    path: &str,
    (query, listing): (&Query, &Listing),
    table: &Table,
    output: Output,
) -> Result<()> {
    if listing.watch {
        ensure!(
            listing.limit <= WATCHED_MAX,
            "with --watch, --limit is {WATCHED_MAX} at most: so many are asked for each second"
        );
        return watch(api, path, (query, listing.limit), table, output).await;
    }
    print(&Value::Array(fetch(api, path, query, listing.limit).await?), table, output);
    Ok(())
}

/// Shows what was found.
pub(crate) fn print(found: &Value, table: &Table, output: Output) {
    let all = found.as_array().map_or(&[][..], Vec::as_slice);
    if output.json {
        output.document(found);
    } else if all.is_empty() {
        output.line(table.empty);
    } else {
        output.table(table.headings, &all.iter().map(table.row).collect::<Vec<_>>());
    }
}

/// Asks for as many pages as are needed.
async fn fetch(api: &Api, path: &str, query: &Query, limit: usize) -> Result<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let wanted = (limit - found.len().min(limit)).min(PAGE_MAX);
        let mut page = api.get(&query.path(path, wanted, cursor.as_deref())?).await?;
        if let Some(Value::Array(data)) = page.get_mut("data").map(Value::take) {
            found.extend(data);
        }
        cursor = page.get("next_cursor").and_then(Value::as_str).map(String::from);
        if cursor.is_none() || found.len() >= limit {
            return Ok(found);
        }
    }
}

/// Shows what comes, oldest first, one line each.
async fn watch(
    api: &Api,
    path: &str,
    (query, limit): (&Query, usize),
    table: &Table,
    output: Output,
) -> Result<()> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    output.say(&output.tone(Tone::Dim, &table.headings.join("  ").to_uppercase()));
    let take = |found: Vec<Value>| {
        for one in found.iter().rev().filter(|one| !seen.contains(&(table.key)(one))) {
            let line = if output.json { one.to_string() } else { (table.row)(one).join("  ") };
            output.offer(&line)?;
        }
        seen = found.iter().map(table.key).collect();
        ControlFlow::Continue(())
    };
    let ask = async || fetch(api, path, query, limit).await;
    again::each(LOOK_EVERY, ask, take, output).await
}

/// The text of some members, as cells; what is missing is empty.
pub(crate) fn cells<const N: usize>(value: &Value, names: [&str; N]) -> Vec<String> {
    names.map(|name| cell(value, name)).to_vec()
}

/// The text of a member, as a cell.
pub(crate) fn cell(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::Number(number)) => number.to_string(),
        _ => printable(text(value, name)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_query_says_cannot_leave_it() {
        let query = Query::default()
            .with("type", Some("a.>"))
            .with("search", Some("x&limit=9 #é"))
            .with("state", None::<&str>);
        let path = query.path("/v1/x", 5, Some("c")).unwrap();
        assert_eq!(path, "/v1/x?type=a.%3E&search=x%26limit%3D9+%23%C3%A9&limit=5&cursor=c");
    }

    #[test]
    fn cells_hold_nothing_that_steers_a_terminal() {
        let one = json!({"a": 7, "b": "x\u{1b}[31m", "c": null});
        let cells = cells(&one, ["a", "b", "c", "d"]);
        assert_eq!((cells[0].as_str(), cells[2].as_str(), cells[3].as_str()), ("7", "", ""));
        assert!(!cells[1].contains('\u{1b}'));
    }
}
