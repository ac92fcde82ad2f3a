//! Sets of HTTP statuses, as a profile names them: `[429, "500-504", "2xx"]`.

use serde::{Deserialize, Serialize};

/// A set of HTTP statuses. Two sets with the same members are equal, however they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Entry>", into = "Vec<Entry>")]
pub struct StatusSet {
    // Invariant: first <= last in each range; the ranges ascend and leave gaps between them.
    ranges: Vec<(u16, u16)>,
}

/// Something that names no status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a status is a number from 100 to 999, a range like \"500-504\" or a class like \"5xx\", not {0:?}"
)]
pub struct MalformedStatusSet(String);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    One(u16),
    Several(String),
}

impl StatusSet {
    /// Builds the set of the given statuses; those outside 100 to 999 do not occur and are left out.
    pub fn of(statuses: &[u16]) -> Self {
        let real = statuses.iter().filter(|status| is_status(**status));
        Self::from_ranges(real.map(|status| (*status, *status)).collect())
    }

    /// Tells whether the status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// Tells whether no status is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn from_ranges(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Self { ranges: merged }
    }
}

fn is_status(status: u16) -> bool {
    (100..=999).contains(&status)
}

impl TryFrom<Vec<Entry>> for StatusSet {
    type Error = MalformedStatusSet;

    fn try_from(entries: Vec<Entry>) -> Result<Self, MalformedStatusSet> {
        entries.into_iter().map(range).collect::<Result<_, _>>().map(Self::from_ranges)
    }
}

impl From<StatusSet> for Vec<Entry> {
    fn from(set: StatusSet) -> Self {
        let entry = |(first, last)| {
            if first == last {
                Entry::One(first)
            } else {
                Entry::Several(format!("{first}-{last}"))
            }
        };
        set.ranges.into_iter().map(entry).collect()
    }
}

fn range(entry: Entry) -> Result<(u16, u16), MalformedStatusSet> {
    let (text, range) = match entry {
        Entry::One(status) => (status.to_string(), Some((status, status))),
        Entry::Several(text) => {
            let range = several(&text);
            (text, range)
        }
    };
    range
        .filter(|(first, last)| is_status(*first) && is_status(*last) && first <= last)
        .ok_or_else(|| MalformedStatusSet(text.chars().take(64).collect()))
}

fn several(text: &str) -> Option<(u16, u16)> {
    let number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok())?
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = number(class)?.checked_mul(100)?;
        return first.checked_add(99).map(|last| (first, last));
    }
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(text).map(|status| (status, status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<StatusSet, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_set_holds_what_it_names() {
        let set = read(r#"[429, "500-504", "2xx", "410"]"#).unwrap();
        for status in [200, 204, 299, 410, 429, 500, 504] {
            assert!(set.contains(status), "{status}");
        }
        for status in [199, 300, 409, 411, 428, 430, 499, 505, 0, u16::MAX] {
            assert!(!set.contains(status), "{status}");
        }
    }

    #[test]
    fn equal_sets_are_equal_and_read_back() {
        let set = read(r#"["500-502", 503, 501]"#).unwrap();
        assert_eq!(set, StatusSet::of(&[503, 502, 501, 500]));
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["500-503"]"#);
        assert_eq!(read(&serde_json::to_string(&set).unwrap()).unwrap(), set);
        assert!(StatusSet::of(&[7]).is_empty());
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for bad in [
            "[99]",
            "[1000]",
            r#"["0xx"]"#,
            r#"["10xx"]"#,
            r#"["504-500"]"#,
            r#"["+200"]"#,
            r#"[""]"#,
            r#"["-"]"#,
            "[true]",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
