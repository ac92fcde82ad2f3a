//! Looks for many byte strings at once.

use std::collections::BTreeMap;

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

#[cfg(test)]
mod tests {
    use super::*;

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
