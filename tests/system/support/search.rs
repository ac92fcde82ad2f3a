//! Looks for many byte strings at once.

use std::collections::BTreeMap;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// Byte strings with names.
pub(crate) struct Needles {
    /// By their first two bytes.
    by_start: BTreeMap<[u8; 2], Vec<(String, Vec<u8>)>>,
    /// Which two bytes are the start of any, in the order of their values.
    starts: Vec<bool>,
}

impl Needles {
    /// Takes strings of two bytes or more; shorter ones are nowhere.
    pub(crate) fn new(named: Vec<(String, Vec<u8>)>) -> Self {
        let mut by_start: BTreeMap<[u8; 2], Vec<_>> = BTreeMap::new();
        let mut starts = vec![false; 1 << 16];
        for (name, needle) in named {
            let Some(start) = needle.first_chunk::<2>().copied() else { continue };
            if let Some(slot) = starts.get_mut(usize::from(u16::from_be_bytes(start))) {
                *slot = true;
            }
            by_start.entry(start).or_default().push((name, needle));
        }
        Self { by_start, starts }
    }

    /// Returns the name of one that occurs in a text, if any does.
    pub(crate) fn find(&self, text: &[u8]) -> Option<&str> {
        let mut rest = text;
        while let Some(start) = rest.first_chunk::<2>() {
            let known = self.starts.get(usize::from(u16::from_be_bytes(*start)));
            if known == Some(&true) {
                let mut here = self.by_start.get(start).into_iter().flatten();
                if let Some((name, _)) = here.find(|(_, needle)| rest.starts_with(needle)) {
                    return Some(name);
                }
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        None
    }
}

/// A text or key in every form in which it could leave: as it is, in hexadecimal, in base 64 wherever
/// it stands within what is encoded, in a URL, and in JSON.
pub(crate) fn forms(name: &str, secret: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut forms = vec![
        (String::from(name), secret.to_vec()),
        (format!("{name} in hexadecimal"), HEXLOWER.encode(secret).into_bytes()),
        (format!("{name} in upper case hexadecimal"), HEXUPPER.encode(secret).into_bytes()),
    ];
    for before in 0..3 {
        let shifted = [&vec![b'x'; before][..], secret].concat();
        let whole = shifted.get(..shifted.len() / 3 * 3).unwrap_or_default();
        // The first symbols are also of what stands before it.
        let skipped = if before == 0 { 0 } else { 4 };
        for encoded in [BASE64_NOPAD.encode(whole), BASE64URL_NOPAD.encode(whole)] {
            let own = encoded.get(skipped..).unwrap_or_default();
            forms.push((format!("{name} in base 64"), own.as_bytes().to_vec()));
        }
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        let escaped = |escape: fn(u8) -> String| -> String {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
            let one = |byte| if plain(byte) { char::from(byte).into() } else { escape(byte) };
            text.bytes().map(one).collect()
        };
        let percent = escaped(|byte| format!("%{byte:02X}"));
        let lower = escaped(|byte| format!("%{byte:02x}"));
        let json = serde_json::Value::from(text).to_string();
        let json = json.trim_matches('"').replace('/', "\\/");
        for (form, text) in [("a URL", percent), ("a URL, in lower case", lower), ("JSON", json)] {
            forms.push((format!("{name} in {form}"), text.into_bytes()));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = "Basic dXNlcjpw/YXNz+cw==";
        let needles = Needles::new(forms("it", secret.as_bytes()));
        for before in ["", "a", "ab", "abc", "abcd"] {
            let text = format!("{before}{secret} and more");
            let encoded = data_encoding::BASE64.encode(text.as_bytes());
            for text in [text.clone(), encoded, HEXUPPER.encode(text.as_bytes())] {
                assert!(needles.find(text.as_bytes()).is_some(), "{text}");
            }
        }
        for text in ["Basic%20dXNlcjpw%2FYXNz%2Bcw%3D%3D", "Basic dXNlcjpw\\/YXNz+cw=="] {
            assert!(needles.find(text.as_bytes()).is_some(), "{text}");
        }
        assert!(needles.find(b"Basic dXNlcjpw").is_none());
    }

    #[test]
    fn a_needle_is_found_wherever_it_is() {
        let named = [("one", "needle"), ("other", "nee dle")];
        let named = named.map(|(name, text)| (String::from(name), text.as_bytes().to_vec()));
        let needles = Needles::new(named.to_vec());
        for (text, found) in [
            ("needle in front", Some("one")),
            ("at the end a needle", Some("one")),
            ("in the nee dle midst", Some("other")),
            ("neneedle", Some("one")),
            ("needl", None),
            ("", None),
        ] {
            assert_eq!(needles.find(text.as_bytes()), found, "{text}");
        }
    }
}
