//! What people and programs see: text on a terminal, JSON when asked for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    process::ExitCode,
    time::Duration,
};

use fanfare_domain::{chain, settings::Effective};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::api::Problem;

/// How long something takes before it is worth a progress bar.
const WORTH_A_BAR: Duration = Duration::from_secs(2);

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(100);

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
    /// A name or a value that stands out.
    Accent,
}

impl Output {
    /// Shows results as text or as JSON.
    pub(crate) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colours: wanted && !json && io::stdout().is_terminal() }
    }

    /// Writes one line of text.
    pub(crate) fn line(self, text: &str) {
        // A reader that went away, as `head` does, is no failure of ours.
        let _gone = self.offer(text);
    }

    /// Writes one line of text; breaks if nobody reads any more, as when `head` has enough.
    #[expect(clippy::unused_self, reason = "only who has an output may write")]
    pub(crate) fn offer(self, text: &str) -> ControlFlow<()> {
        match writeln!(io::stdout().lock(), "{text}") {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Writes text for people only: nothing when JSON was asked for.
    pub(crate) fn say(self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    /// Writes a remark on what is going on to standard error.
    pub(crate) fn note(self, text: &str) {
        let _gone = writeln!(io::stderr().lock(), "{}", self.tone(Tone::Dim, text));
    }

    /// Writes one JSON document on a line.
    pub(crate) fn document(self, value: &Value) {
        self.line(&value.to_string());
    }

    /// Colours text, if there are colours.
    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        if !self.colours {
            return String::from(text);
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
            Tone::Accent => "36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// Writes names and values, one pair a line, the values below each other.
    pub(crate) fn fields(self, fields: &[(&str, String)]) {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            self.line(&format!("{}  {value}", self.tone(Tone::Dim, &format!("{name:<width$}"))));
        }
    }

    /// Writes commands to be typed, with what each does.
    pub(crate) fn commands(self, commands: &[(String, &str)]) {
        let width = commands.iter().map(|(command, _)| width(command)).max().unwrap_or(0);
        for (command, what) in commands {
            let what = self.tone(Tone::Dim, &format!("# {what}"));
            self.line(&format!("  {command:<width$}   {what}"));
        }
    }

    /// Writes rows below headings, each column as wide as its widest cell.
    pub(crate) fn table(self, headings: &[&str], rows: &[Vec<String>]) {
        let widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(at, heading)| {
                let cells = rows.iter().filter_map(|row| row.get(at));
                cells.map(|cell| width(cell)).max().unwrap_or(0).max(heading.len())
            })
            .collect();
        let format = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, wanted)| {
                let blanks = wanted.saturating_sub(width(cell));
                format!("{cell}{}", " ".repeat(blanks))
            });
            String::from(padded.collect::<Vec<_>>().join("  ").trim_end())
        };
        let headings: Vec<String> = headings.iter().map(|text| text.to_uppercase()).collect();
        self.line(&self.tone(Tone::Dim, &format(&headings)));
        for row in rows {
            self.line(&format(row));
        }
    }

    /// Writes settings as `key = value` lines, or as one object.
    pub(crate) fn settings(self, shown: &Effective) {
        if self.json {
            self.document(&json!(shown));
            return;
        }
        for (key, value) in shown {
            self.line(&match value {
                Some(value) => format!("{key} = {value}"),
                None => format!("# {key} is not set"),
            });
        }
    }

    /// Says what went wrong, and returns the exit code that goes with it.
    pub(crate) fn failed(self, error: &anyhow::Error) -> ExitCode {
        let text = chain(error.as_ref());
        if self.json {
            let problem = error.downcast_ref::<Problem>();
            let status = problem.map(|problem| problem.status);
            tell_program(&text, status, problem.and_then(|problem| problem.code.as_deref()));
        } else {
            let _gone = writeln!(io::stderr().lock(), "fanfare: {text}");
        }
        ExitCode::FAILURE
    }

    /// Says how the program was called wrongly, and returns the exit code that goes with it.
    pub(crate) fn misused(self, error: &clap::Error) -> ExitCode {
        if self.json && error.use_stderr() {
            let text = error.render().to_string();
            let text = text.split("\n\nUsage:").next().unwrap_or_default();
            tell_program(text.trim_start_matches("error: ").trim_end(), None, Some("usage"));
        } else {
            let _gone = error.print();
        }
        u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}

/// Writes what went wrong to standard error, as one line of JSON.
fn tell_program(error: &str, status: Option<u16>, code: Option<&str>) {
    let told = json!({ "error": error, "status": status, "code": code });
    let _gone = writeln!(io::stderr().lock(), "{told}");
}

/// Shows how far something has come, once it has taken a while.
pub(crate) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    shown: bool,
}

impl Output {
    /// Begins something of a known length. What is shown goes to standard error, if that is a
    /// terminal.
    pub(crate) fn progress(self, length: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden());
        let template = "{bar:30} {human_pos}/{human_len}  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress { bar, begun: Instant::now(), shown: self.json }
    }

    /// Shows that something of unknown length goes on: a turning sign on a terminal, a remark
    /// elsewhere. It is gone once the bar is dropped or finished.
    pub(crate) fn spinner(self, text: &str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            self.note(text);
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner().with_message(String::from(text));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TURN);
        bar
    }
}

impl Progress {
    /// Says that one more is done.
    pub(crate) fn step(&mut self) {
        self.bar.inc(1);
        self.show();
    }

    fn show(&mut self) {
        if !self.shown && self.begun.elapsed() >= WORTH_A_BAR {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Says how much is done, and of how much.
    pub(crate) fn reach(&mut self, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
        self.show();
    }

    /// Ends it, and returns how long it took.
    pub(crate) fn end(self) -> Duration {
        self.bar.finish_and_clear();
        self.begun.elapsed()
    }
}

/// How many columns a text takes, its colours not counted.
fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut symbols = text.chars();
    while let Some(symbol) = symbols.next() {
        if symbol == '\u{1b}' {
            // Ours all end so.
            symbols.by_ref().find(|symbol| *symbol == 'm');
        } else {
            columns += 1;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_no_room() {
        let output = Output { json: false, colours: true };
        let coloured = output.tone(Tone::Bad, "failed");
        assert_ne!(coloured, "failed");
        assert_eq!(width(&coloured), 6);
        assert_eq!(width("größer"), 6);
    }

    #[test]
    fn without_colours_text_stays_as_it_is() {
        let output = Output { json: false, colours: false };
        assert_eq!(output.tone(Tone::Strong, "x"), "x");
    }
}
