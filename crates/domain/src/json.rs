//! JSON as text: checked, and rewritten without being understood.
//!
//! What a producer sent is signed and delivered, so its numbers and strings must survive byte for
//! byte; a parser that builds values would lose them. The grammar is judged by `serde_json`; what
//! is known to be JSON is then walked token by token, without recursion.

mod compact;
mod ecmascript;
mod number;
mod pointer;
mod text;
mod token;
mod unread;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use ecmascript::NumberNotCarried;
pub use pointer::Pointer;
pub use unread::Unread;
pub(crate) use {ecmascript::array_index, text::escape};

use self::token::{Nest, Token, Tokens};

/// One well-formed JSON text (RFC 8259), possibly with white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// How large and deep a JSON text may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes, white space included.
    pub bytes_max: usize,
    /// The most arrays and objects within one another.
    pub depth_max: usize,
}

/// A JSON text without what receivers disagree on: its keys are distinct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// The text.
    pub json: Json<'a>,
    /// How many arrays and objects are within one another, at most.
    pub depth: usize,
    /// Whether a string has an escape that is half a surrogate pair. Such a string is no Unicode
    /// text: it can be passed on, but many parsers refuse it.
    pub lone_surrogates: bool,
}

/// Bytes that are not JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They are not UTF-8.
    #[error("not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// Where the first bad byte is, from 0.
        at: usize,
    },
    /// They do not follow the grammar, or something follows the value.
    #[error("not JSON: {reason}")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column in bytes, from 1; 0 for the end of the line before.
        column: usize,
        /// The parser's words, with the position.
        reason: String,
    },
}

/// JSON that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too large.
    #[error("{length} bytes are more than the {max} that are allowed")]
    TooLarge {
        /// How many bytes it has.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// It is no JSON at all.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Arrays and objects are nested too deep.
    #[error("arrays and objects are nested more than {max} deep, at {at}")]
    TooDeep {
        /// The limit.
        max: usize,
        /// The first value that lies too deep.
        at: Pointer,
    },
    /// An object has a key twice, so that receivers would disagree on its value.
    #[error("the key at {at} occurs more than once")]
    DuplicateKey {
        /// The value that the key stands for.
        at: Pointer,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: Self::BYTES_MAX, depth_max: Self::DEPTH_MAX }
    }
}

impl Limits {
    /// The most bytes of an event's data, if nothing else is set.
    pub const BYTES_MAX: usize = 512 * 1_024;
    /// The greatest depth of an event's data, if nothing else is set. The body is one deeper,
    /// and common parsers (`serde_json` among them) stop at 127.
    pub const DEPTH_MAX: usize = 126;
    /// No limits, for what was admitted before.
    pub const NONE: Self = Self { bytes_max: usize::MAX, depth_max: usize::MAX };
}

impl<'a> Json<'a> {
    /// Reads one JSON text; nothing but white space may follow it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes)
            .map_err(|cause| Malformed::NotUtf8 { at: cause.valid_up_to() })?;
        // Ignoring a value checks all of the grammar, without recursion.
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|cause| {
            Malformed::NotJson {
                line: cause.line(),
                column: cause.column(),
                reason: cause.to_string(),
            }
        })?;
        Ok(Self(text))
    }

    /// Returns the text as it was.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Appends the text without its insignificant white space, and otherwise byte for byte.
    pub fn compact(self, out: &mut String) {
        compact::write(self.0, out);
    }

    /// Looks for what receivers disagree on.
    pub fn check(self, depth_max: usize) -> Result<Checked<'a>, Refused> {
        let mut walk = Walk { json: self, ..Walk::default() };
        for (at, token) in Tokens::of(self.0) {
            match token {
                Token::Open(_) if walk.open.len() == depth_max => {
                    return Err(Refused::TooDeep { max: depth_max, at: Pointer::to(self, at) });
                }
                Token::Open(nest) => walk.enter(nest),
                Token::Close(_) => walk.leave()?,
                Token::Key(raw) => walk.key(at, raw),
                Token::Text(raw) => walk.note(raw),
                Token::Comma | Token::Number(_) | Token::Word(_) => {}
            }
        }
        Ok(Checked { json: self, depth: walk.depth, lone_surrogates: walk.lone_surrogates })
    }
}

impl Default for Json<'_> {
    /// Returns `null`.
    fn default() -> Self {
        Self("null")
    }
}

/// Reads one JSON text from outside, and refuses what is malformed, too large or ambiguous.
pub fn check<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Checked<'a>, Refused> {
    if bytes.len() > limits.bytes_max {
        return Err(Refused::TooLarge { length: bytes.len(), max: limits.bytes_max });
    }
    Json::parse(bytes)?.check(limits.depth_max)
}

impl Checked<'_> {
    /// Appends what ECMAScript's `JSON.stringify(JSON.parse(text))` gives.
    ///
    /// Refuses a number that would come out as another one; what was appended until then stays.
    pub fn ecmascript(&self, out: &mut String) -> Result<(), NumberNotCarried> {
        ecmascript::write(self.json, out)
    }
}

/// The state of a check.
#[derive(Default)]
struct Walk<'a> {
    json: Json<'a>,
    /// For each array or object that is open, where its keys begin.
    open: Vec<(Nest, usize)>,
    /// The keys of the open objects, each in one form however it was escaped, and its place.
    keys: Vec<(Cow<'a, str>, usize)>,
    depth: usize,
    lone_surrogates: bool,
}

impl<'a> Walk<'a> {
    fn enter(&mut self, nest: Nest) {
        self.open.push((nest, self.keys.len()));
        self.depth = self.depth.max(self.open.len());
    }

    fn leave(&mut self) -> Result<(), Refused> {
        let Some((Nest::Object, first)) = self.open.pop() else { return Ok(()) };
        let own = self.keys.get_mut(first..).unwrap_or_default();
        own.sort_unstable();
        let twice = own.windows(2).find_map(|pair| match pair {
            [(one, _), (other, at)] if one == other => Some(*at),
            _ => None,
        });
        if let Some(at) = twice {
            return Err(Refused::DuplicateKey { at: Pointer::to(self.json, at) });
        }
        self.keys.truncate(first);
        Ok(())
    }

    fn key(&mut self, at: usize, raw: &'a str) {
        let (canonical, lone) = text::canonical(raw);
        self.keys.push((canonical, at));
        self.lone_surrogates |= lone;
    }

    fn note(&mut self, raw: &'a str) {
        self.lone_surrogates |= !self.lone_surrogates && text::canonical(raw).1;
    }
}
