//! What ECMAScript's `JSON.stringify(JSON.parse(text))` gives.

use super::{
    Json, Pointer, number, text,
    token::{Nest, Token, Tokens},
};

/// A number that ECMAScript would turn into another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the number {literal} at {at} would become {becomes} in JavaScript: send it as a string")]
pub struct NumberNotCarried {
    /// Where it is.
    pub at: Pointer,
    /// The number as it was sent; its first 64 characters.
    pub literal: String,
    /// What would become of it.
    pub becomes: String,
}

/// A member of an object whose end was not reached yet.
struct Member {
    /// The key, if it is an array index: these come first, ascending.
    index: Option<u32>,
    /// Where it begins in the output.
    start: usize,
}

/// Appends the ECMAScript form of a JSON text whose keys are distinct.
pub(super) fn write(json: Json<'_>, out: &mut String) -> Result<(), NumberNotCarried> {
    out.reserve(json.0.len());
    let mut buffer = ryu_js::Buffer::new();
    // The members of all open objects, and where those of each begin.
    let mut members: Vec<Member> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (at, token) in Tokens::of(json.0) {
        match token {
            Token::Open(nest) => {
                open.push(members.len());
                out.push(if nest == Nest::Object { '{' } else { '[' });
            }
            Token::Close(nest) => {
                let first = open.pop().unwrap_or_default();
                reorder(members.get_mut(first..).unwrap_or_default(), out);
                members.truncate(first);
                out.push(if nest == Nest::Object { '}' } else { ']' });
            }
            Token::Comma => out.push(','),
            Token::Key(raw) => {
                let start = out.len();
                write_text(raw, out);
                let key = out.get(start + 1..out.len() - 1).unwrap_or_default();
                members.push(Member { index: array_index(key), start });
                out.push(':');
            }
            Token::Text(raw) => write_text(raw, out),
            Token::Number(literal) => match number::ecmascript(literal, &mut buffer) {
                Ok(form) => out.push_str(form),
                Err(becomes) => return Err(not_carried(json, at, literal, becomes)),
            },
            Token::Word(word) => out.push_str(word),
        }
    }
    Ok(())
}

fn write_text(raw: &str, out: &mut String) {
    out.push('"');
    text::write(raw, out);
    out.push('"');
}

/// Puts the members of an object, which are the end of `out`, into ECMAScript's order.
fn reorder(members: &mut [Member], out: &mut String) {
    let place = |member: &Member| member.index.map_or(u64::MAX, u64::from);
    let Some(first) = members.first().map(|member| member.start) else { return };
    if members.is_sorted_by_key(place) {
        return;
    }
    let written = out.split_off(first);
    // Each member with its end: the comma before the next one.
    let mut next = first + written.len() + 1;
    let mut pieces: Vec<(u64, &str)> = Vec::with_capacity(members.len());
    for member in members.iter().rev() {
        let piece = written.get(member.start - first..next - 1 - first);
        pieces.push((place(member), piece.unwrap_or_default()));
        next = member.start;
    }
    pieces.reverse();
    pieces.sort_by_key(|(place, _)| *place);
    for (at, (_, piece)) in pieces.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(piece);
    }
}

/// Returns the number if the key is an array index (ECMA-262, section 6.1.7): the usual form of
/// an integer from 0 to 2^32 - 2.
pub(crate) fn array_index(key: &str) -> Option<u32> {
    let usual = key == "0" || key.bytes().next().is_some_and(|first| matches!(first, b'1'..=b'9'));
    let digits = usual && key.len() <= 10 && key.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| key.parse().ok()).flatten().filter(|index| *index != u32::MAX)
}

fn not_carried(json: Json<'_>, at: usize, literal: &str, becomes: &str) -> NumberNotCarried {
    NumberNotCarried {
        at: Pointer::to(json, at),
        literal: literal.chars().take(64).collect(),
        becomes: String::from(becomes),
    }
}
