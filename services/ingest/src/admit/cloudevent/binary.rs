//! Binary mode: attributes are headers, the payload is the data.

use bytes::Bytes;
use fanfare_domain::EventType;
use fanfare_event_log::Headers;

use super::{Context, malformed};
use crate::admit::{
    media,
    metadata::{Metadata, strip_prefix},
    rejection::Rejection,
};

/// What the names of attribute headers begin with.
const PREFIX: &str = "ce-";

/// Whether headers are those of a `CloudEvent` in binary mode.
pub(in crate::admit) fn is_binary(headers: &Headers) -> bool {
    headers.get("ce-specversion").is_some()
}

/// Reads a `CloudEvent`. `content_type` counts where there is no `ce-datacontenttype`.
pub(in crate::admit) fn read(
    headers: &Headers,
    payload: &Bytes,
    content_type: &str,
    event_type: &EventType,
) -> Result<(Metadata, Bytes), Rejection> {
    let mut context = Context::default();
    for (name, value) in headers.pairs() {
        if let Some(name) = strip_prefix(name, PREFIX) {
            context.insert(&name.to_ascii_lowercase(), decode(value)?)?;
        }
    }
    if !context.0.contains_key("datacontenttype") {
        media::json_data(content_type)?;
    }
    let data = if payload.is_empty() { Bytes::from_static(b"null") } else { payload.clone() };
    Ok((context.into_metadata(event_type)?, data))
}

/// Takes quotes and percent-encoding away, once each.
fn decode(value: &str) -> Result<String, Rejection> {
    let mut symbols = unquoted(value).into_bytes().into_iter().peekable();
    let mut bytes = Vec::with_capacity(value.len());
    while let Some(byte) = symbols.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || symbols.next().and_then(|digit| char::from(digit).to_digit(16));
        let decoded = match (digit(), digit()) {
            (Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            (_, _) => None,
        };
        bytes.push(decoded.ok_or_else(|| malformed("a header is not percent-encoded properly"))?);
    }
    String::from_utf8(bytes).map_err(|_| malformed("a header decodes to what is not UTF-8"))
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut symbols = inner.chars();
    while let Some(symbol) = symbols.next() {
        // A backslash takes the next symbol as it is.
        text.extend(if symbol == '\\' { symbols.next() } else { Some(symbol) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_decoded_as_the_binding_says() {
        for (value, expected) in [
            ("plain", Some("plain")),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            ("%e2%82%ac", Some("€")),
            ("%41", Some("A")),
            ("%2541", Some("%41")),
            (r#""a \"b\" %20 \\""#, Some("a \"b\"   \\")),
            ("\"", Some("\"")),
            ("%C0%A0", None),
            ("%", None),
            ("%4", None),
            ("%zz", None),
        ] {
            assert_eq!(decode(value).ok().as_deref(), expected, "{value}");
        }
    }
}
