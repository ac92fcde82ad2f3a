//! Takes out of an answer what an endpoint says back of what it was told in confidence.
//!
//! An endpoint that echoes its requests, as servers for debugging do, would put the values of its own
//! headers into the journal, and before the eyes of everybody who may look at deliveries.

use std::{cmp::Reverse, fmt::Write as _};

use bytes::Bytes;
use fanfare_domain::seal::Clear;
use memchr::{memchr, memchr2, memmem};

/// What stands for a secret.
const HIDDEN: &[u8] = b"***";
/// Shorter values are no secrets, and stand anywhere.
const LENGTH_MIN: usize = 8;

/// What an endpoint was told in confidence. Erased when dropped.
#[derive(Debug)]
pub(crate) struct Secrets(Box<[Clear]>);

impl Secrets {
    /// Keeps those that are long enough to be secrets.
    pub(crate) fn new(secrets: impl IntoIterator<Item = Clear>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.expose().len() >= LENGTH_MIN);
        let mut secrets: Vec<_> = long.collect();
        // The longest first: one may begin as another one does.
        secrets.sort_unstable_by(|one, other| {
            let (one, other) = (one.expose(), other.expose());
            other.len().cmp(&one.len()).then(one.cmp(other))
        });
        secrets.dedup();
        Self(secrets.into())
    }

    /// Takes them out of a text that may be cut off at its end, and one more.
    pub(crate) fn conceal(&self, text: Bytes, more: Option<&[u8]>) -> Bytes {
        if text.len() < LENGTH_MIN {
            return text;
        }
        let more = more.filter(|secret| secret.len() >= LENGTH_MIN);
        let length = more.map_or(0, <[u8]>::len);
        let own = || self.0.iter().map(|secret| secret.expose().as_bytes());
        let text = without_escaped(text, || own().chain(more));
        let longer = own().take_while(|secret| secret.len() > length);
        let rest = own().skip_while(|secret| secret.len() > length);
        longer.chain(more).chain(rest).fold(text, without)
    }
}

/// Takes a secret out of a text.
fn without(text: Bytes, secret: &[u8]) -> Bytes {
    let mut text = replace(&text, secret).unwrap_or(text);
    if let Some(end) = beginning_at_end(&text, secret) {
        text.truncate(end);
    }
    text
}

/// Takes out of a text what is written as strings of JSON and URLs have it: most texts have nothing
/// that is escaped.
fn without_escaped<'a, I: Iterator<Item = &'a [u8]>>(text: Bytes, own: impl Fn() -> I) -> Bytes {
    if memchr2(b'\\', b'%', &text).is_none() {
        return text;
    }
    let mut forms: Vec<_> = own().flat_map(|secret| escaped(secret, &text)).collect();
    forms.sort_unstable_by_key(|form| Reverse(form.expose().len()));
    forms.iter().fold(text, |text, form| without(text, form.expose().as_bytes()))
}

/// Returns a secret as it stands in strings of JSON, by the habits of several writers, and in URLs, as
/// far as that is different and may be in the text: most have nothing that is escaped.
fn escaped(secret: &[u8], text: &[u8]) -> Vec<Clear> {
    let mut forms = Vec::new();
    let Ok(secret) = std::str::from_utf8(secret) else { return forms };
    if memchr(b'\\', text).is_some() {
        let writers = [json, json_with_slashes, json_for_pages];
        forms.extend(writers.map(|writer| in_json(secret, writer)));
    }
    if memchr(b'%', text).is_some() {
        forms.push(in_url(secret));
    }
    forms.retain(|form| form.expose() != secret);
    forms
}

fn in_json(secret: &str, writer: fn(u8) -> Option<&'static str>) -> Clear {
    let mut all = String::with_capacity(6 * secret.len());
    for symbol in secret.chars() {
        match u8::try_from(symbol).ok().and_then(writer) {
            Some(escaped) => all.push_str(escaped),
            None => all.push(symbol),
        }
    }
    Clear::new(all)
}

/// What every writer of JSON escapes.
const fn json(byte: u8) -> Option<&'static str> {
    match byte {
        b'"' => Some("\\\""),
        b'\\' => Some("\\\\"),
        _ => None,
    }
}

/// What some do so that it can stand in a script.
const fn json_with_slashes(byte: u8) -> Option<&'static str> {
    match byte {
        b'/' => Some("\\/"),
        byte => json(byte),
    }
}

/// What others do so that it can stand in a page.
const fn json_for_pages(byte: u8) -> Option<&'static str> {
    match byte {
        b'<' => Some("\\u003c"),
        b'>' => Some("\\u003e"),
        b'&' => Some("\\u0026"),
        byte => json(byte),
    }
}

fn in_url(secret: &str) -> Clear {
    let mut all = String::with_capacity(3 * secret.len());
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            // A text takes everything.
            let _written = write!(all, "%{byte:02X}");
        }
    }
    Clear::new(all)
}

/// Returns the text with each occurrence replaced; `None` if there is none.
fn replace(text: &[u8], secret: &[u8]) -> Option<Bytes> {
    let (mut rest, mut without) = (text, Vec::new());
    while let Some(position) = memmem::find(rest, secret) {
        let (before, after) = rest.split_at(position);
        without.extend_from_slice(before);
        without.extend_from_slice(HIDDEN);
        rest = after.get(secret.len()..).unwrap_or_default();
    }
    if rest.len() == text.len() {
        return None;
    }
    without.extend_from_slice(rest);
    Some(without.into())
}

/// Returns where the text ends without a secret of which only the beginning is there.
fn beginning_at_end(text: &[u8], secret: &[u8]) -> Option<usize> {
    let lengths = (LENGTH_MIN..secret.len()).rev();
    let mut cut =
        lengths.filter(|length| secret.get(..*length).is_some_and(|it| text.ends_with(it)));
    cut.next().map(|length| text.len() - length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concealed(text: &'static str, secrets: &[&str]) -> String {
        let text = Bytes::from_static(text.as_bytes());
        let own = |secrets: &[&str]| {
            Secrets::new(secrets.iter().map(|secret| Clear::new(String::from(*secret))))
        };
        let concealed = own(secrets).conceal(text.clone(), None);
        // Each of them may be the one that comes later.
        for (position, more) in secrets.iter().enumerate() {
            let mut others = secrets.to_vec();
            others.remove(position);
            assert_eq!(own(&others).conceal(text.clone(), Some(more.as_bytes())), concealed);
        }
        String::from_utf8(concealed.to_vec()).unwrap()
    }

    #[test]
    fn what_is_said_back_does_not_show() {
        let secrets = ["Bearer abcdefgh", "abcdefgh", "whsec_12345678"];
        for (text, expected) in [
            ("", ""),
            ("ok", "ok"),
            ("{\"authorization\":\"Bearer abcdefgh\"}", "{\"authorization\":\"***\"}"),
            ("abcdefghabcdefgh, whsec_12345678", "******, ***"),
            ("abcdefg", "abcdefg"),
            ("nothing of that kind", "nothing of that kind"),
            ("cut off: whsec_123", "cut off: "),
            ("not yet: whsec_1", "not yet: whsec_1"),
        ] {
            assert_eq!(concealed(text, &secrets), expected, "{text}");
        }
    }

    #[test]
    fn what_is_said_back_in_json_or_in_a_url_does_not_show_either() {
        let secrets = ["Bearer ab/cd+ef==", "ab/cd+ef==", "a\"b\\c<d>&e"];
        for (text, expected) in [
            (r#"{"x":"Bearer ab\/cd+ef=="}"#, r#"{"x":"***"}"#),
            ("?key=ab%2Fcd%2Bef%3D%3D&a=b", "?key=***&a=b"),
            ("?key=Bearer%20ab%2Fcd%2Bef%3D%3D", "?key=***"),
            (r#"{"x":"a\"b\\c<d>&e"}"#, r#"{"x":"***"}"#),
            (r#"{"x":"a\"b\\c\u003cd\u003e\u0026e"}"#, r#"{"x":"***"}"#),
            (r#"cut off: a\"b\\c\u003cd\u0"#, "cut off: "),
        ] {
            assert_eq!(concealed(text, &secrets), expected, "{text}");
        }
    }

    #[test]
    fn of_what_begins_alike_nothing_is_left() {
        let text = "acme-prod-7f3c, acme-prod.";
        assert_eq!(concealed(text, &["acme-prod", "acme-prod-7f3c"]), "***, ***.");
    }

    #[test]
    fn short_values_stay() {
        assert_eq!(concealed("a 1 and a true", &["1", "true", ""]), "a 1 and a true");
    }
}
