//! Dashboards, alerts and the runbook belong together, and dashboards are what Grafana takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The version of the form of dashboards, that of Grafana 10.4.
const SCHEMA: u64 = 39;
/// How wide a dashboard is.
const WIDTH: u64 = 24;
/// Variables that Grafana itself sets.
const GRAFANA: [&str; 4] = ["__rate_interval", "__interval_ms", "__from", "__to"];

fn read(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability").join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Every dashboard, by its file's name.
fn dashboards() -> Result<BTreeMap<String, Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability/grafana");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).with_context(|| name.clone())?;
        found.insert(name.clone(), serde_json::from_str(&text).context(name)?);
    }
    ensure!(found.len() >= 3, "there are {} dashboards", found.len());
    Ok(found)
}

fn list<'a>(value: &'a Value, member: &'static str) -> Result<&'a [Value]> {
    value.get(member).and_then(Value::as_array).map(Vec::as_slice).context(member)
}

fn text<'a>(value: &'a Value, member: &'static str) -> Result<&'a str> {
    let text = value.get(member).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    text.with_context(|| format!("{member} of {value}"))
}

fn number(value: &Value, member: &'static str) -> Result<u64> {
    value.get(member).and_then(Value::as_u64).with_context(|| format!("{member} of {value}"))
}

fn is_row(panel: &Value) -> bool {
    panel.get("type").and_then(Value::as_str) == Some("row")
}

#[test]
fn dashboards_have_what_grafana_wants_of_them() -> Result<()> {
    let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for (name, board) in dashboards()? {
        assert!(ids.insert(String::from(text(&board, "uid")?)), "{name}: the uid is another's");
        assert!(
            titles.insert(String::from(text(&board, "title")?)),
            "{name}: the title is another's"
        );
        text(&board, "description")?;
        assert_eq!(number(&board, "schemaVersion")?, SCHEMA, "{name}");
        let variables = list(board.get("templating").context("variables")?, "list")?;
        let source = variables.iter().find(|one| one.get("type") == Some(&"datasource".into()));
        let source = source.with_context(|| format!("{name}: a variable for the data source"))?;
        assert_eq!(text(source, "name")?, "datasource", "{name}");
        let kind = text(source, "query")?;
        let panels = list(&board, "panels")?;
        let mut numbers = BTreeSet::new();
        for panel in panels {
            let number = number(panel, "id")?;
            assert!(numbers.insert(number), "{name}: there are two panels {number}");
            panel_is_whole(panel, kind).with_context(|| format!("{name}: panel {number}"))?;
        }
    }
    Ok(())
}

/// Checks that a panel says what it shows, in which unit, and asks the data source that was chosen.
fn panel_is_whole(panel: &Value, kind: &str) -> Result<()> {
    text(panel, "title")?;
    if is_row(panel) {
        return Ok(());
    }
    text(panel, "description")?;
    let field = panel.get("fieldConfig").and_then(|field| field.get("defaults"));
    text(field.context("a field")?, "unit")?;
    if panel.get("type").and_then(Value::as_str) == Some("timeseries") {
        let legend = panel.pointer("/options/legend").context("a legend")?;
        ensure!(legend.get("showLegend") == Some(&true.into()), "it hides whose lines they are");
    }
    let asks = |one: &Value| -> Result<()> {
        let source = one.get("datasource").context("a data source")?;
        ensure!(text(source, "type")? == kind, "it asks another kind of source");
        ensure!(text(source, "uid")? == "${datasource}", "it asks another source");
        Ok(())
    };
    asks(panel)?;
    let targets = list(panel, "targets")?;
    ensure!(!targets.is_empty(), "it asks nothing");
    let mut names = BTreeSet::new();
    for target in targets {
        asks(target)?;
        ensure!(names.insert(text(target, "refId")?), "two queries have one name");
        match kind {
            "prometheus" => {
                text(target, "expr")?;
                text(target, "legendFormat")?;
            }
            "frser-sqlite-datasource" => {
                let query = text(target, "rawQueryText")?;
                ensure!(query == text(target, "queryText")?, "it asks something else");
                ensure!(["table", "time series"].contains(&text(target, "queryType")?), "its type");
                list(target, "timeColumns")?;
            }
            _ => {
                text(target, "rawSql")?;
                ensure!(["table", "time_series"].contains(&text(target, "format")?), "its format");
            }
        }
    }
    Ok(())
}

/// What a dashboard shows, whatever it asks for it.
fn shown(board: &Value) -> Result<Vec<(&str, &Value, Option<&Value>)>> {
    let panel =
        |panel| Ok((text(panel, "title")?, panel.get("gridPos").context("a place")?, panel));
    let panels = list(board, "panels")?.iter().map(panel);
    let shown =
        panels.map(|it| it.map(|(title, place, all)| (title, place, all.get("fieldConfig"))));
    shown.collect()
}

#[test]
fn an_endpoint_is_shown_the_same_from_either_database() -> Result<()> {
    let boards = dashboards()?;
    let named = |name: &str| {
        let found = boards.iter().find(|(file, _)| file.ends_with(name));
        found.map(|(_, board)| board).with_context(|| String::from(name))
    };
    assert_eq!(shown(named("/endpoint.json")?)?, shown(named("/endpoint-sqlite.json")?)?);
    Ok(())
}

#[test]
fn panels_lie_beside_each_other() -> Result<()> {
    for (name, board) in dashboards()? {
        let mut taken = BTreeMap::new();
        for panel in list(&board, "panels")? {
            let place = panel.get("gridPos").context("a place")?;
            let [x, y, width, height] = [
                number(place, "x")?,
                number(place, "y")?,
                number(place, "w")?,
                number(place, "h")?,
            ];
            let id = number(panel, "id")?;
            assert!(
                width > 0 && height > 0 && x + width <= WIDTH,
                "{name}: panel {id} is too wide"
            );
            for cell in (y..y + height).flat_map(|y| (x..x + width).map(move |x| (x, y))) {
                if let Some(other) = taken.insert(cell, id) {
                    panic!("{name}: panels {other} and {id} overlap");
                }
            }
        }
    }
    Ok(())
}

/// The names of the variables in a query: `$name` and `${name…}`.
fn variables(query: &str) -> BTreeSet<String> {
    let name = |text: &str| {
        let text = text.strip_prefix('{').unwrap_or(text);
        text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
    };
    query.split('$').skip(1).map(name).collect()
}

#[test]
fn queries_use_variables_that_there_are() -> Result<()> {
    assert_eq!(
        variables("$a + ${b:raw}['$c']"),
        ["a", "b", "c"].map(String::from).into_iter().collect()
    );
    for (name, board) in dashboards()? {
        let list_of = list(board.get("templating").context("variables")?, "list")?;
        let own = list_of.iter().map(|one| text(one, "name"));
        let known: BTreeSet<&str> =
            own.chain(GRAFANA.into_iter().map(Ok)).collect::<Result<_>>()?;
        let mut queries: Vec<&Value> = list_of.iter().filter_map(|one| one.get("query")).collect();
        for panel in list(&board, "panels")?.iter().filter(|panel| !is_row(panel)) {
            for target in list(panel, "targets")? {
                let members = ["expr", "rawSql", "rawQueryText"];
                queries.extend(members.iter().filter_map(|member| target.get(*member)));
            }
        }
        for query in queries.into_iter().filter_map(Value::as_str) {
            for variable in variables(query) {
                assert!(known.contains(variable.as_str()), "{name}: ${variable} in {query}");
            }
        }
    }
    Ok(())
}

/// What stands behind a word at the beginning of lines.
fn behind<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim_start().strip_prefix(word)).map(str::trim)
}

#[test]
fn each_alert_has_its_place_in_the_runbook_and_tests_that_it_rings_and_that_it_does_not()
-> Result<()> {
    let (alerts, tests) = (read("prometheus/alerts.yml")?, read("prometheus/alerts.test.yml")?);
    let runbook = read("runbook.md")?;
    let names: Vec<_> = behind(&alerts, "- alert:").collect();
    let sections: BTreeSet<_> = behind(&runbook, "## ").collect();
    assert_eq!(sections, names.iter().copied().collect(), "sections and alerts");
    let rings: BTreeSet<_> = behind(&tests, "alertname:").collect();
    for name in names {
        let rule = alerts.split("- alert: ").find(|rule| rule.lines().next() == Some(name));
        let rule = rule.with_context(|| String::from(name))?;
        for word in ["summary:", "look:"] {
            let said = behind(rule, word).next();
            assert!(said.is_some_and(|said| said.len() > 10), "{name} says no {word}");
        }
        let place = format!("deploy/observability/runbook.md#{}", name.to_lowercase());
        assert_eq!(behind(rule, "runbook:").next(), Some(place.as_str()), "{name}");
        assert!(rule.contains("severity: page") || rule.contains("severity: warn"), "{name}");
        assert!(rings.contains(name), "no test has {name} ring");
        let quiet = format!("alertname: {name}}}");
        assert!(tests.contains(&quiet), "no test has {name} quiet");
    }
    Ok(())
}
