//! `SECURITY.md` names guards and tests: all of them exist, and every threat has both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

/// The heading above the tables of threats, and the one behind them.
const THREATS: (&str, &str) = ("## Who, what, which guard, which test", "## Fuzzing");
/// What a file in the tree ends with.
const FILES: [&str; 5] = [".rs", ".toml", ".md", ".json", ".ci/run"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> Result<String> {
    fs::read_to_string(root().join("SECURITY.md")).context("SECURITY.md")
}

/// The links of a text: what they say, and where they lead.
fn links(text: &str) -> Vec<(&str, &str)> {
    let link = |part| -> Option<(&str, &str)> {
        let (says, rest) = str::split_once(part, "](")?;
        Some((says, rest.split_once(')')?.0))
    };
    text.split('[').skip(1).filter_map(link).collect()
}

/// The anchor of a heading, as forges make it.
fn anchor(heading: &str) -> String {
    let lower = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = lower.chars().filter(|symbol| symbol.is_alphanumeric() || " -".contains(*symbol));
    kept.map(|symbol| if symbol == ' ' { '-' } else { symbol }).collect()
}

fn columns(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows of the tables of threats, each in its columns.
fn threats(page: &str) -> Result<Vec<Vec<&str>>> {
    let (_, from) = page.split_once(THREATS.0).context("the tables of threats")?;
    let (tables, _) = from.split_once(THREATS.1).context("what follows them")?;
    let rows = tables.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    Ok(rows.map(columns).filter(|row| row.last() != Some(&"test")).collect())
}

#[test]
fn every_test_that_is_named_exists() -> Result<()> {
    let page = page()?;
    let mut named = 0;
    for (says, to) in links(&page) {
        let (file, place) = to.split_once('#').unwrap_or((to, ""));
        let text = fs::read_to_string(root().join(file)).with_context(|| String::from(to))?;
        let is_name =
            says.bytes().all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte));
        let is_rust = Path::new(file).extension().is_some_and(|end| end == "rs");
        if is_rust && says.contains('_') && is_name {
            let function = format!("fn {says}(");
            let (before, _) =
                text.split_once(&function).with_context(|| format!("{file}: no {says}"))?;
            let is_test = before.rfind("test").is_some_and(|at| before.len() - at < 200);
            ensure!(is_test, "{file}: {says} is no test");
            named += 1;
        }
        let has_place = |line: &str| line.starts_with('#') && anchor(line) == place;
        ensure!(place.is_empty() || text.lines().any(has_place), "{file} has no {place}");
    }
    ensure!(named > 50, "only {named} tests are named");
    Ok(())
}

#[test]
fn every_guard_that_is_named_exists() -> Result<()> {
    let page = page()?;
    let quoted = page.split('`').skip(1).step_by(2);
    let mut named = 0;
    for file in quoted.filter(|text| FILES.iter().any(|end| text.ends_with(end))) {
        ensure!(root().join(file).is_file(), "there is no {file}");
        named += 1;
    }
    ensure!(named > 30, "only {named} files are named");
    Ok(())
}

#[test]
fn every_threat_has_a_guard_and_a_test() -> Result<()> {
    let page = page()?;
    let rows = threats(&page)?;
    ensure!(rows.len() > 40, "there are {} rows", rows.len());
    for row in rows {
        let [wants, guard, test] = &*row else { anyhow::bail!("not three columns: {row:?}") };
        ensure!(!wants.is_empty() && !guard.is_empty(), "{row:?}");
        ensure!(!links(test).is_empty() || *test == "the build itself", "{wants}: no test");
    }
    Ok(())
}

#[test]
fn every_target_that_is_fuzzed_is_named() -> Result<()> {
    let page = page()?;
    let manifest: toml::Table = fs::read_to_string(root().join("fuzz/Cargo.toml"))?.parse()?;
    let programs = manifest.get("bin").and_then(toml::Value::as_array).context("programs")?;
    ensure!(!programs.is_empty());
    for program in programs {
        let name = program.get("name").and_then(toml::Value::as_str).context("a name")?;
        ensure!(page.contains(&format!("| `{name}` |")), "SECURITY.md does not name {name}");
    }
    Ok(())
}
