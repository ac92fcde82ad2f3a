//! `--watch`: showing a thing again whenever it changes, until Ctrl-C.

use std::{
    io::{self, IsTerminal as _},
    ops::ControlFlow,
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::{api::Problem, stop::Stop};
use crate::output::Output;

/// How often it is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal and begins at its top.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// Whether a thing is shown again.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    /// Show it again whenever it changes, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

/// How a thing is shown.
pub(crate) struct View<S> {
    /// Shows it.
    pub(crate) show: S,
    /// Tells whether it will not change any more.
    pub(crate) is_over: fn(&Value) -> bool,
}

impl Watch {
    /// Shows what is asked for, once or whenever it has changed: as a line of JSON, anew on a cleared
    /// terminal, or below what was there.
    pub(crate) async fn run<S>(
        self,
        ask: impl AsyncFn() -> Result<Value>,
        view: View<S>,
        output: Output,
    ) -> Result<()>
    where
        S: Fn(&Value, Output),
    {
        let View { show, is_over } = view;
        let mut found = ask().await?;
        if !self.watch {
            show(&found, output);
            return Ok(());
        }
        let mut stop = Stop::install()?;
        let mut shown = None;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.tick().await;
        let mut away = false;
        loop {
            if shown.as_ref() != Some(&found) {
                if draw(&found, &show, shown.is_none(), output).is_break() || is_over(&found) {
                    return Ok(());
                }
                shown = Some(found.clone());
            }
            tokio::select! {
                _ = look.tick() => {}
                () = stop.asked() => return Ok(()),
            }
            let asked = tokio::select! {
                asked = ask() => asked,
                () = stop.asked() => return Ok(()),
            };
            match asked {
                Ok(answer) => (found, away) = (answer, false),
                // What is wrong with the question stays wrong.
                Err(error) if is_final(&error) => return Err(error),
                Err(error) if !away => {
                    output.note(&format!("{error:#}: asking again"));
                    away = true;
                }
                Err(_) => {}
            }
        }
    }
}

fn draw(
    found: &Value,
    show: &impl Fn(&Value, Output),
    is_first: bool,
    output: Output,
) -> ControlFlow<()> {
    if output.json {
        return output.offer(&found.to_string());
    }
    let between = if io::stdout().is_terminal() { CLEAR } else { "" };
    if !is_first || !between.is_empty() {
        output.offer(between)?;
    }
    show(found, output);
    ControlFlow::Continue(())
}

fn is_final(error: &anyhow::Error) -> bool {
    Problem::of(error).is_some_and(|problem| problem.status < 500 && problem.status != 429)
}

/// Whatever is watched may change again.
pub(crate) const fn never(_: &Value) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        watch: Watch,
    }

    #[tokio::test]
    async fn without_the_flag_it_is_asked_for_once() {
        let line = Line::parse_from(["x"]);
        assert!(!line.watch.watch && Line::parse_from(["x", "--watch"]).watch.watch);
        let asked = std::cell::Cell::new(0);
        let shown = std::cell::Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Ok(Value::Null)
        };
        let view = View { show: |_: &Value, _| shown.set(shown.get() + 1), is_over: never };
        let output = Output { json: true, colours: false };
        line.watch.run(ask, view, output).await.unwrap();
        assert_eq!((asked.get(), shown.get()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_is_shown_again_until_it_is_over() {
        let answers = ["running", "running", "done", "done"];
        let asked = std::cell::Cell::new(0);
        let ask = async || {
            let answer = answers[asked.get()];
            asked.set(asked.get() + 1);
            Ok(serde_json::json!(answer))
        };
        let is_over = |found: &Value| found == "done";
        let shown = std::cell::RefCell::new(Vec::new());
        let show = |found: &Value, _: Output| shown.borrow_mut().push(found.clone());
        let output = Output { json: false, colours: false };
        Watch { watch: true }.run(ask, View { show, is_over }, output).await.unwrap();
        assert_eq!((asked.get(), shown.into_inner().len()), (3, 2));
    }
}
