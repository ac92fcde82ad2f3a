//! The inside of a JSON string, in ECMAScript's form.

use std::{borrow::Cow, fmt::Write as _};

/// Returns the inside of a string as ECMAScript's `JSON.stringify` writes it, and whether it has
/// lone surrogates. Two strings are equal if and only if these forms are.
pub(super) fn canonical(raw: &str) -> (Cow<'_, str>, bool) {
    // Without escapes there is nothing that would have to be written otherwise.
    if !raw.as_bytes().contains(&b'\\') {
        return (Cow::Borrowed(raw), false);
    }
    let mut out = String::with_capacity(raw.len());
    let lone = write(raw, &mut out);
    (Cow::Owned(out), lone)
}

/// Appends the inside of a string as ECMAScript's `JSON.stringify` writes it. Returns whether it
/// has lone surrogates: those stay escapes, in lower case.
pub(super) fn write(raw: &str, out: &mut String) -> bool {
    let mut lone = false;
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut after = escape.chars();
        let kind = after.next();
        rest = after.as_str();
        if kind == Some('u') {
            rest = write_units(rest, out, &mut lone);
        } else if let Some(kind) = kind {
            write_char(short(kind), out);
        }
    }
    out.push_str(rest);
    lone
}

/// Appends the character of an escape whose `\u` was taken, and takes its other half with it.
fn write_units<'a>(hex: &'a str, out: &mut String, lone: &mut bool) -> &'a str {
    let Some((first, rest)) = unit(hex) else { return hex };
    let pair = rest.strip_prefix("\\u").and_then(unit).and_then(|(second, rest)| {
        let character = char::decode_utf16([first, second]).next()?.ok()?;
        (character.len_utf16() == 2).then_some((character, rest))
    });
    if let Some((character, rest)) = pair {
        out.push(character);
        return rest;
    }
    if let Some(character) = char::from_u32(u32::from(first)) {
        write_char(character, out);
    } else {
        *lone = true;
        write_escape(u32::from(first), out);
    }
    rest
}

fn unit(text: &str) -> Option<(u16, &str)> {
    let (hex, rest) = text.split_at_checked(4)?;
    u16::from_str_radix(hex, 16).ok().map(|unit| (unit, rest))
}

/// Returns what the short escapes stand for.
fn short(kind: char) -> char {
    match kind {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        same => same,
    }
}

fn write_char(character: char, out: &mut String) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\u{1f}' => write_escape(u32::from(character), out),
        plain => out.push(plain),
    }
}

fn write_escape(unit: u32, out: &mut String) {
    write!(out, "\\u{unit:04x}").expect("writing to a string succeeds");
}

/// Appends any text as the inside of a JSON string.
pub(crate) fn escape(plain: &str, out: &mut String) {
    plain.chars().for_each(|character| write_char(character, out));
}
