//! Durations as text: a whole number and a unit, for example `30s` or `2h`.
//!
//! The functions here have the names that `#[serde(with = "…")]` looks for.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number and one of ns us ms s m h d, for example 30s, not {0:?}")]
pub struct MalformedSpan(String);

/// Units and their nanoseconds, largest first.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration, up to 584 years.
pub fn parse(text: &str) -> Result<Duration, MalformedSpan> {
    let malformed = || MalformedSpan(text.chars().take(64).collect());
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
    let count: u64 = digits.parse().ok().filter(|_| plain).ok_or_else(malformed)?;
    count.checked_mul(*nanos).map(Duration::from_nanos).ok_or_else(malformed)
}

/// Writes a duration in the largest unit that needs no fraction.
pub fn show(span: Duration) -> String {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let fits = |unit: &&(&str, u64)| nanos != 0 && nanos % unit.1 == 0;
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("s", 1));
    format!("{}{name}", nanos / unit)
}

/// Serialises a duration as text.
pub fn serialize<S: Serializer>(span: &Duration, sink: S) -> Result<S::Ok, S::Error> {
    sink.serialize_str(&show(*span))
}

/// Deserialises a duration from text.
pub fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(source)?).map_err(D::Error::custom)
}

/// The same for a list of durations.
pub mod list {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Serialises durations as a list of texts.
    pub fn serialize<S: Serializer>(spans: &[Duration], sink: S) -> Result<S::Ok, S::Error> {
        sink.collect_seq(spans.iter().map(|span| super::show(*span)))
    }

    /// Deserialises durations from a list of texts.
    pub fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(source)?;
        texts
            .iter()
            .map(|text| super::parse(text))
            .collect::<Result<_, _>>()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, seconds) in [("5s", 5), ("30m", 1_800), ("2h", 7_200), ("7d", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(show(Duration::from_secs(seconds)), text);
        }
        assert_eq!(show(Duration::ZERO), "0s");
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn other_texts_are_no_durations() {
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            " 5s",
            "5S",
            "5w",
            "1h30m",
            "９s",
            "99999999999d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back(nanos: u64) {
            let span = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&show(span)), Ok(span));
        }
    }
}
