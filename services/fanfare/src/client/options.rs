//! How values are written on the command line.

use std::{collections::BTreeMap, io::Read as _, path::PathBuf};

use anyhow::{Context as _, Result, anyhow};
use fanfare_domain::{Timestamp, settings::parse_duration};
use fanfare_service::{Clock as _, SystemClock};
use serde_json::value::RawValue;

/// A name and a value, written `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    name: String,
    value: String,
}

/// Text that is no pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write it as name=value")]
pub(crate) struct MalformedPair;

impl std::str::FromStr for Pair {
    type Err = MalformedPair;

    fn from_str(text: &str) -> Result<Self, MalformedPair> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok(Self { name: name.trim().to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err(MalformedPair),
        }
    }
}

/// Returns pairs as a map; of two with the same name, the later one counts.
pub(crate) fn map(pairs: &[Pair]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
}

/// An instant: a duration before now, such as `10m`, or a time of RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ago(Timestamp);

/// Text that names no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration such as 10m, nor a time such as 2026-11-22T06:15:03Z")]
pub(crate) struct MalformedInstant;

impl Ago {
    fn read(text: &str, now: Timestamp) -> Result<Self, MalformedInstant> {
        match parse_duration(text) {
            Ok(span) => Ok(Self(now.saturating_sub(span))),
            Err(_) => Timestamp::parse(text).map(Self).ok_or(MalformedInstant),
        }
    }
}

impl std::str::FromStr for Ago {
    type Err = MalformedInstant;

    fn from_str(text: &str) -> Result<Self, MalformedInstant> {
        Self::read(text, SystemClock.now())
    }
}

impl std::fmt::Display for Ago {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// JSON on the command line, or a dash for standard input.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// JSON as it is written.
    Json(Box<RawValue>),
    /// To be read from standard input.
    StandardInput,
}

impl std::str::FromStr for Data {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        if text == "-" { Ok(Self::StandardInput) } else { raw(text).map(Self::Json) }
    }
}

/// Returns JSON exactly as it is written, but for white space around it.
fn raw(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(text.trim().to_owned())
}

/// Reads an event's data from where the command line says; an empty object if it says nothing.
pub(crate) fn read_data(data: Option<Data>, file: Option<PathBuf>) -> Result<Box<RawValue>> {
    let (text, origin) = match (data, file) {
        (Some(Data::Json(json)), _) => return Ok(json),
        (Some(Data::StandardInput), _) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("read standard input")?;
            (text, String::from("standard input"))
        }
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path);
            (text.with_context(|| format!("read {}", path.display()))?, path.display().to_string())
        }
        (None, None) => (String::from("{}"), String::new()),
    };
    raw(&text).map_err(|error| anyhow!("{origin} is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_a_name_and_any_value() {
        let pairs = ["a=1", "b=", "c=x=y", "a=2"].map(|text| text.parse::<Pair>().unwrap());
        let map = map(&pairs);
        let shown: Vec<_> = map.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        assert_eq!(shown, ["a:2", "b:", "c:x=y"]);
        assert_eq!("a".parse::<Pair>(), Err(MalformedPair));
        assert_eq!("=1".parse::<Pair>(), Err(MalformedPair));
    }

    #[test]
    fn an_instant_is_some_time_ago_or_a_time() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let shown = |text| Ago::read(text, now).map(|instant| instant.to_string());
        assert_eq!(shown("10m").as_deref(), Ok("2023-11-14T22:03:20.000Z"));
        assert_eq!(shown("2023-11-14T22:13:20Z").as_deref(), Ok("2023-11-14T22:13:20.000Z"));
        assert_eq!(shown("soon"), Err(MalformedInstant));
    }

    #[test]
    fn data_keeps_its_numbers() {
        let data = "{\"amount\": 1.10, \"big\": 12345678901234567890}\n";
        let Ok(Data::Json(json)) = data.parse::<Data>() else { panic!("it is JSON") };
        assert_eq!(read_data(Some(Data::Json(json)), None).unwrap().get(), data.trim());
        assert!(matches!("-".parse::<Data>(), Ok(Data::StandardInput)));
        assert!("{amount: 1}".parse::<Data>().is_err());
        assert_eq!(read_data(None, None).unwrap().get(), "{}");
    }
}
