//! What people and programs see: text on a terminal, JSON when asked for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use serde_json::Value;

use crate::services::Shown;

/// How results are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// As JSON, one document or one line each.
    pub(crate) json: bool,
    /// With colours: only on a terminal, and never when `NO_COLOR` is set.
    pub(crate) colours: bool,
}

/// Colours by what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It went well.
    Good,
    /// It will be tried again.
    Warning,
    /// It went wrong.
    Bad,
    /// Beside the point.
    Dim,
    /// A heading.
    Strong,
}

impl Output {
    /// Shows results as text or as JSON.
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colours: wanted && !json && io::stdout().is_terminal() }
    }

    /// Writes one line of text.
    pub(crate) fn line(&self, text: &str) {
        // A reader that went away, as `head` does, is no failure of ours.
        let _gone = writeln!(io::stdout().lock(), "{text}");
    }

    /// Writes text for people only: nothing when JSON was asked for.
    pub(crate) fn say(&self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    /// Writes a remark on what is going on to standard error.
    pub(crate) fn note(&self, text: &str) {
        let _gone = writeln!(io::stderr().lock(), "{}", self.tone(Tone::Dim, text));
    }

    /// Writes one JSON document on a line.
    pub(crate) fn document(&self, value: &Value) {
        self.line(&value.to_string());
    }

    /// Colours text, if there are colours.
    pub(crate) fn tone(&self, tone: Tone, text: &str) -> String {
        if !self.colours {
            return String::from(text);
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Writes rows below headings, each column as wide as its widest cell.
    pub(crate) fn table(&self, headings: &[&str], rows: &[Vec<String>]) {
        let widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(at, heading)| {
                let cells = rows.iter().filter_map(|row| row.get(at));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(heading.len())
            })
            .collect();
        let format = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            String::from(padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        let headings: Vec<String> = headings.iter().map(|text| text.to_uppercase()).collect();
        self.line(&self.tone(Tone::Dim, &format(&headings)));
        for row in rows {
            self.line(&format(row));
        }
    }

    /// Says what went wrong, and returns the exit code that goes with it.
    pub(crate) fn failed(&self, error: &anyhow::Error) -> ExitCode {
        let mut stderr = io::stderr().lock();
        let text = if self.json {
            serde_json::json!({ "error": format!("{error:#}") }).to_string()
        } else {
            format!("fanfare: {error:#}")
        };
        let _gone = writeln!(stderr, "{text}");
        ExitCode::FAILURE
    }
}

/// Writes settings as `key = value` lines.
pub(crate) fn settings(shown: &Shown) -> Result<()> {
    let mut stdout = io::stdout().lock();
    for (key, value) in shown {
        writeln!(stdout, "{key} = {value}")?;
    }
    Ok(())
}
