//! Which events an endpoint wants of the types that it wants: a condition on their content.
//!
//! An expression in [CEL](https://cel.dev) over three variables: `type`, a text; `attributes`, a map
//! of texts; and `data`, the event's data. It has to give a truth value:
//!
//! ```text
//! data.amount > 100 && attributes.region in ["eu", "us"]
//! ```
//!
//! **The same answer everywhere.** Fan-out asks when it routes an event; the owner of an endpoint that
//! is fed asks again when it reads EVENTS. So the answer is a function of the event and the
//! expression: what it may cost is counted, and never measured by a clock.
//!
//! **Bounded.** Length, depth and nesting are limited when the expression is written, and no part of it
//! can give more than it was given: lists are made of literals, and macros go over parts of the event.
//! How many steps it may take, copies included, is counted before it is asked, from the size of the
//! data and its lists. There are no regular expressions, and no functions but a few cheap ones.

mod check;
mod cost;
mod subject;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use cel::{ExecutionError, Program, Value};

pub use self::subject::Subject;
use crate::json::Unread;

/// An expression, ready to be asked.
pub struct Condition {
    text: Box<str>,
    /// Made when it is asked for the first time, unless it was made to see whether it can be.
    program: OnceLock<Result<Program, Broken>>,
}

/// Text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct Broken {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong there, for people.
    pub reason: String,
}

/// A condition that gives no answer for an event. It counts as if it did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// The expression is broken: another version wrote it.
    #[error("the expression is broken: {0}")]
    Broken(Broken),
    /// It looks at something that the event does not have.
    #[error("there is no `{0}`: ask with has(…) whether it is there")]
    Missing(String),
    /// Values do not go together, for example a text and a number.
    #[error("it cannot be evaluated: {0}")]
    Evaluation(String),
    /// It gives something else than true or false.
    #[error("it gives neither true nor false")]
    NotBoolean,
    /// It would take too many steps.
    #[error("it may take more than {limit} steps for an event of this size")]
    TooCostly {
        /// How many steps are allowed.
        limit: u64,
    },
    /// Too little is left of what all conditions about an event may take together.
    #[error(
        "the filters of all endpoints together may take more than {limit} steps for this event"
    )]
    TooCostlyTogether {
        /// How many steps all of them are allowed.
        limit: u64,
    },
    /// The data cannot be looked into.
    #[error("{0}")]
    Data(Unread),
    /// A defect of ours.
    #[error("evaluating it failed: a defect")]
    Defect,
}

/// What all conditions that are asked about one event may take together.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// How many steps that is. An expression like `data.amount > 100` takes a few dozen.
    pub const STEPS: u64 = 128 << 20;

    /// All of it is left.
    pub const fn whole() -> Self {
        Self { left: Self::STEPS }
    }

    /// So many steps are left, of all of it.
    pub const fn of(steps: u64) -> Self {
        Self { left: if steps < Self::STEPS { steps } else { Self::STEPS } }
    }

    /// How many steps are left.
    pub const fn left(self) -> u64 {
        self.left
    }
}

impl Condition {
    /// The longest expression, in bytes.
    pub const BYTES_MAX: usize = 2_048;

    /// Reads an expression, and refuses one that is broken or could cost too much.
    pub fn parse(text: &str) -> Result<Self, Broken> {
        let program = check::parse(text)?;
        Ok(Self { text: Box::from(text), program: OnceLock::from(Ok(program)) })
    }

    /// Takes an expression that was admitted before, maybe by another version: one that is broken
    /// for us fails whenever it is asked. It is not read before.
    pub fn stored(text: &str) -> Self {
        Self { text: Box::from(text), program: OnceLock::new() }
    }

    /// Returns the expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tells whether it holds for an event.
    pub fn judge(&self, subject: &Subject) -> Result<bool, Failed> {
        self.judge_within(subject, &mut Budget::whole())
    }

    /// The same as one of many that are asked about the event: it takes its steps out of the budget,
    /// and is not asked where too few are left.
    pub fn judge_within(&self, subject: &Subject, budget: &mut Budget) -> Result<bool, Failed> {
        let program = self.program.get_or_init(|| check::parse(&self.text));
        let program = program.as_ref().map_err(|broken| Failed::Broken(broken.clone()))?;
        let (context, size) = subject.parts()?;
        let steps = cost::steps(program.expression(), context, size);
        if steps > cost::STEPS_MAX {
            return Err(Failed::TooCostly { limit: cost::STEPS_MAX });
        }
        let left = budget.left.checked_sub(steps);
        budget.left = left.ok_or(Failed::TooCostlyTogether { limit: Budget::STEPS })?;
        // What somebody else's expression does must not end a service.
        let evaluated = catch_unwind(AssertUnwindSafe(|| program.execute(context)));
        match evaluated.map_err(|_panic| Failed::Defect)? {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(Failed::NotBoolean),
            Err(error) => Err(Failed::of(&error)),
        }
    }
}

impl Failed {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others quote no more than a word")]
    fn of(error: &ExecutionError) -> Self {
        use ExecutionError::{
            NotSupportedAsMethod, UnsupportedBinaryOperator, UnsupportedIndex, UnsupportedKeyType,
            UnsupportedTargetType, ValuesNotComparable,
        };
        let kind = |value: &Value| value.type_of();
        // By their kinds: whole values are long, and a map's members have no order.
        let words = match error {
            ExecutionError::NoSuchKey(name) => return Self::Missing(shorten(name)),
            UnsupportedBinaryOperator(operator, left, right) => {
                format!("'{operator}' does not go with {} and {}", kind(left), kind(right))
            }
            ValuesNotComparable(left, right) => {
                format!("{} cannot be compared to {}", kind(left), kind(right))
            }
            UnsupportedIndex(index, value) => {
                format!("{} cannot be looked up in {}", kind(index), kind(value))
            }
            UnsupportedKeyType(value) => format!("{} cannot be a key", kind(value)),
            UnsupportedTargetType { target } => format!("{} does not go there", kind(target)),
            NotSupportedAsMethod { method, target } => {
                format!("'{method}' does not go with {}", kind(target))
            }
            other => shorten(other),
        };
        Self::Evaluation(words)
    }

    /// Returns which kind of failure it is. Says nothing of the event.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Broken(_) => "broken",
            Self::Missing(_) => "missing",
            Self::Evaluation(_) => "evaluation",
            Self::NotBoolean => "not_boolean",
            Self::TooCostly { .. } => "too_costly",
            Self::TooCostlyTogether { .. } => "too_costly_together",
            Self::Data(_) => "data",
            Self::Defect => "defect",
        }
    }
}

/// Returns the beginning of words that may quote values of any size, on one line.
fn shorten(words: &(impl fmt::Display + ?Sized)) -> String {
    let mut short = Short(String::new());
    // It stops where it has enough.
    write!(short, "{words}").ok();
    short.0
}

struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        const BYTES_MAX: usize = 200;
        for symbol in words.chars() {
            if self.0.len() >= BYTES_MAX {
                return Err(fmt::Error);
            }
            self.0.push(if symbol.is_control() { ' ' } else { symbol });
        }
        Ok(())
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text).finish()
    }
}
