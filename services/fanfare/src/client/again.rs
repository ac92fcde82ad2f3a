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

use super::{
    api::{Api, Problem},
    stop::Stop,
};
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

/// Whether it goes on.
pub(crate) type Next = ControlFlow<()>;

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
        if !self.watch {
            show(&ask().await?, output);
            return Ok(());
        }
        let mut shown: Option<Value> = None;
        let take = |found: Value| {
            if shown.as_ref() == Some(&found) {
                return ControlFlow::Continue(());
            }
            draw(&found, &show, shown.is_none(), output)?;
            let is_over = is_over(&found);
            shown = Some(found);
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        each(LOOK_EVERY, ask, take, output).await
    }

    /// The same of all pages of a list that is never over.
    pub(crate) async fn list(
        self,
        (api, path): (&Api, &str),
        show: impl Fn(&Value, Output),
        output: Output,
    ) -> Result<()> {
        let ask = async || Ok(Value::Array(api.list(path).await?));
        self.run(ask, View { show, is_over: never }, output).await
    }

    /// The same of a thing that may always change again.
    pub(crate) async fn one(
        self,
        (api, path): (&Api, &str),
        show: impl Fn(&Value, Output),
        output: Output,
    ) -> Result<()> {
        let ask = async || api.get(path).await;
        self.run(ask, View { show, is_over: never }, output).await
    }
}

/// Asks again and again, until an answer is enough, or Ctrl-C. Once there was an answer, it does not
/// end for want of another, unless the question is wrong by now.
pub(crate) async fn each<T>(
    every: Duration,
    ask: impl AsyncFn() -> Result<T>,
    mut take: impl FnMut(T) -> Next,
    output: Output,
) -> Result<()> {
    let mut stop = Stop::install()?;
    let mut look = interval(every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_first, mut away) = (true, false);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.asked() => return Ok(()),
        }
        let asked = tokio::select! {
            asked = ask() => asked,
            () = stop.asked() => return Ok(()),
        };
        match asked {
            Ok(answer) => {
                if take(answer).is_break() {
                    return Ok(());
                }
                (is_first, away) = (false, false);
            }
            // What is wrong with the question stays wrong.
            Err(error) if is_first || is_final(&error) => return Err(error),
            Err(error) if !away => {
                output.note(&format!("{error:#}: asking again"));
                away = true;
            }
            Err(_) => {}
        }
    }
}

fn draw(found: &Value, show: &impl Fn(&Value, Output), is_first: bool, output: Output) -> Next {
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
