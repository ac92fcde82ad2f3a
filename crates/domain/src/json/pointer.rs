//! JSON Pointers (RFC 6901): where in a text something is.

use std::fmt::{self, Write as _};

use super::{
    Json, text,
    token::{Nest, Token, Tokens},
};

/// Where a value is within a JSON text, for example `/lines/0/price`; empty for the whole.
///
/// Shown to people as it is, but for the whole text, which shows as `the top`, and for what is
/// longer than 256 characters, of which the beginning is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(String);

/// How many characters are shown.
const SHOWN_MAX: usize = 256;

impl Pointer {
    /// Returns the pointer as RFC 6901 writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Finds the value that begins at an offset of the text, or whose key does.
    ///
    /// Walks the text from its beginning: for errors, not for every value.
    pub(super) fn to(json: Json<'_>, offset: usize) -> Self {
        // For each open array or object, the step to the value in it that comes next.
        let mut steps: Vec<Step<'_>> = Vec::new();
        for (at, token) in Tokens::of(json.0) {
            if let Token::Key(raw) = token
                && let Some(step) = steps.last_mut()
            {
                *step = Step::Key(raw);
            }
            if at >= offset {
                break;
            }
            match token {
                Token::Open(Nest::Array) => steps.push(Step::Index(0)),
                Token::Open(Nest::Object) => steps.push(Step::Key("")),
                Token::Close(_) => drop(steps.pop()),
                Token::Comma => {
                    if let Some(Step::Index(index)) = steps.last_mut() {
                        *index += 1;
                    }
                }
                Token::Key(_) | Token::Text(_) | Token::Number(_) | Token::Word(_) => {}
            }
        }
        let mut pointer = String::new();
        for step in steps {
            write!(pointer, "/{step}").expect("writing to a string succeeds");
        }
        Self(pointer)
    }
}

enum Step<'a> {
    Index(usize),
    Key(&'a str),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Key(raw) => {
                f.write_str(&text::canonical(raw).0.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_MAX) {
            None if self.0.is_empty() => f.write_str("the top"),
            None => f.write_str(&self.0),
            Some((end, _)) => write!(f, "{}…", self.0.get(..end).unwrap_or_default()),
        }
    }
}
