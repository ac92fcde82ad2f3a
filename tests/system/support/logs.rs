//! What the services say: read as JSON lines, judged by level, shown when a test fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// How many of a log's last lines are shown, and how much of each.
const TAIL: usize = 60;
const WIDTH: usize = 600;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Anything up to INFO.
    Normal,
    /// A human should look into it.
    Warn,
    /// The service failed.
    Error,
}

/// One line of a log.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// How serious it is. What is no JSON, a panic's message for instance, is an error.
    pub(crate) level: Level,
    /// All of it.
    pub(crate) text: String,
    /// Its fields, if it is JSON.
    pub(crate) fields: Value,
}

impl Line {
    fn parse(text: &str) -> Self {
        let fields = serde_json::from_str(text).unwrap_or(Value::Null);
        let level = match fields.get("level").and_then(Value::as_str) {
            Some("INFO" | "DEBUG" | "TRACE") => Level::Normal,
            Some("WARN") => Level::Warn,
            Some(_) | None => Level::Error,
        };
        Self { level, text: String::from(text), fields }
    }

    /// The value of a field, wherever the formatter has put it.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let nested = self.fields.get("fields").and_then(|fields| fields.get(name));
        nested.or_else(|| self.fields.get(name)).and_then(Value::as_str)
    }
}

/// Reads a log.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(Line::parse).collect())
}

/// The logs of a directory, in the order of their names.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .context("list the logs")?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    Ok(paths)
}

/// The ends of all logs, for whoever looks into a failure.
#[expect(clippy::print_stderr, reason = "the test harness shows it when a test fails")]
pub(crate) fn show(directory: &Path) {
    for path in files(directory).unwrap_or_default() {
        let lines = read(&path).unwrap_or_default();
        let serious = lines.iter().filter(|line| line.level > Level::Normal);
        eprintln!("── {} ({} lines)", path.display(), lines.len());
        for line in serious.take(TAIL) {
            eprintln!("  !! {}", short(&line.text));
        }
        for line in lines.iter().rev().take(TAIL).rev() {
            eprintln!("  {}", short(&line.text));
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(WIDTH).collect()
}
