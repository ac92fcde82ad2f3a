//! What the data of an event type looks like: JSON Schema (2020-12), compiled once, and bounded.
//!
//! **Bounded.** A schema is a text of limited length and depth. It refers to nothing outside of
//! itself, and never to itself in a circle: written out in full, with every reference replaced by
//! what it refers to, it has a limited number of parts, the values of `enum` and the names of
//! `required` among them. How many of these look at any one value is known, and limits how large data
//! may be. Only keywords whose cost is known are admitted. Patterns are regular expressions without
//! look-around, which take linear time; they are few and short, and so is what they compile to.

mod expand;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::json::{self, Limits, Refused, Unread};

/// The most memory that a pattern takes once it is compiled, and while it is used, in bytes.
const PATTERN_SIZE_MAX: usize = 64 << 10;
const PATTERN_CACHE_MAX: usize = 256 << 10;

/// The most characters of others' words.
const WORDS_MAX: usize = 200;

/// A schema, ready to look at data.
pub struct Schema {
    text: Box<str>,
    validator: Validator,
    /// How many parts look at any one value, at most.
    load: usize,
}

/// A schema that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaRefused {
    /// It is too long.
    #[error("it has {length} bytes, and can have {max}", max = Schema::BYTES_MAX)]
    TooLong {
        /// How many bytes it has.
        length: usize,
    },
    /// It is no JSON, lies too deep, or has a key twice.
    #[error(transparent)]
    Json(Refused),
    /// It is neither an object nor true or false.
    #[error("it is neither an object nor true or false")]
    Shape,
    /// It names another version of JSON Schema.
    #[error("$schema is {0:?}; only https://json-schema.org/draft/2020-12/schema is known")]
    Draft(String),
    /// A keyword is not admitted.
    #[error("{at}: {keyword} is not admitted")]
    Keyword {
        /// Where, as a JSON Pointer.
        at: String,
        /// Which.
        keyword: String,
    },
    /// A reference leads outside of the schema, or to nothing.
    #[error("{at}: $ref {to:?} leads to no part of this schema; write it as #/$defs/…")]
    Reference {
        /// Where, as a JSON Pointer.
        at: String,
        /// What it says.
        to: String,
    },
    /// A part refers to itself.
    #[error("{at}: it refers to itself")]
    Circle {
        /// Where, as a JSON Pointer.
        at: String,
    },
    /// Written out in full it is too large.
    #[error("written out in full it has more than {max} parts", max = Schema::PARTS_MAX)]
    TooLarge,
    /// It has too many patterns, or too long ones.
    #[error("it has more than 64 patterns, or more than 4,096 bytes of them")]
    Patterns,
    /// It does not follow the rules of JSON Schema.
    #[error("{at}: {reason}")]
    Invalid {
        /// Where, as a JSON Pointer.
        at: String,
        /// What is wrong, for people.
        reason: String,
    },
}

/// Data that does not follow its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", if .path.is_empty() { "the top" } else { .path })]
pub struct Violation {
    /// Where in the data, as a JSON Pointer; empty for the whole.
    pub path: String,
    /// The keyword that does not hold, as a JSON Pointer into the schema; empty if it is none.
    pub keyword: String,
    /// What is wrong there, for people.
    pub reason: String,
}

impl Schema {
    /// The longest schema, in bytes.
    pub const BYTES_MAX: usize = 64 * 1_024;
    /// The deepest schema.
    pub const DEPTH_MAX: usize = 64;
    /// How many parts a schema may have, written out in full.
    pub const PARTS_MAX: usize = 4_096;
    /// How much work looking at data may be: the bytes of the data, times the parts of the schema
    /// that look at any one value.
    pub const WORK_MAX: usize = 256 << 20;

    /// The only version of JSON Schema.
    const DRAFT: &'static str = "https://json-schema.org/draft/2020-12/schema";

    /// Reads a schema.
    pub fn parse(text: &str) -> Result<Self, SchemaRefused> {
        if text.len() > Self::BYTES_MAX {
            return Err(SchemaRefused::TooLong { length: text.len() });
        }
        let limits = Limits { bytes_max: Self::BYTES_MAX, depth_max: Self::DEPTH_MAX };
        json::check(text.as_bytes(), &limits).map_err(SchemaRefused::Json)?;
        let invalid = |error: &dyn fmt::Display| SchemaRefused::Invalid {
            at: String::from("the top"),
            reason: one_line(error),
        };
        let value: Value = serde_json::from_str(text).map_err(|error| invalid(&error))?;
        match value.get("$schema").map(|draft| draft.as_str().unwrap_or_default()) {
            Some(draft) if draft.trim_end_matches('#') != Self::DRAFT => {
                return Err(SchemaRefused::Draft(String::from(draft)));
            }
            Some(_) | None => {}
        }
        let load = expand::check(&value)?.load();
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_CACHE_MAX);
        let compile = || {
            jsonschema::options()
                .with_draft(Draft::Draft202012)
                .with_pattern_options(patterns)
                .should_validate_formats(false)
                .build(&value)
        };
        let built = catch_unwind(AssertUnwindSafe(compile));
        let built = built.map_err(|_panic| invalid(&"it cannot be compiled"))?;
        let validator = built.map_err(|error| SchemaRefused::Invalid {
            at: place(&error.instance_path().to_string()),
            reason: one_line(&error),
        })?;
        Ok(Self { text: Box::from(text), validator, load })
    }

    /// Returns the schema's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns how much work it is to look at data of a length.
    pub fn work(&self, length: usize) -> usize {
        self.load.saturating_mul(length)
    }

    /// Looks at an event's data, which is JSON. Returns the first thing that is wrong.
    pub fn check(&self, data: &[u8]) -> Result<(), Violation> {
        if self.work(data.len()) > Self::WORK_MAX {
            let reason = format!(
                "{} bytes are too many for a schema with {} parts for one value",
                data.len(),
                self.load
            );
            return Err(Violation { path: String::new(), keyword: String::new(), reason });
        }
        let value: Value = serde_json::from_slice(data).map_err(|error| Violation {
            path: String::new(),
            keyword: String::new(),
            reason: Unread::of(&error).to_string(),
        })?;
        self.validator.validate(&value).map_err(|error| Violation {
            path: error.instance_path().to_string(),
            keyword: error.schema_path().to_string().chars().take(WORDS_MAX).collect(),
            reason: one_line(&error.masked_with("the value")),
        })
    }
}

fn place(pointer: &str) -> String {
    String::from(if pointer.is_empty() { "the top" } else { pointer })
}

/// Words of the validator, which may quote values of any size.
fn one_line(words: &(impl fmt::Display + ?Sized)) -> String {
    let words = words.to_string();
    let plain = words.chars().map(|symbol| if symbol.is_control() { ' ' } else { symbol });
    plain.take(WORDS_MAX).collect()
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schema").field(&self.text).finish()
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schema {}
