//! How settings are written: lengths of time, sizes, lists, and what of them may be shown.

use std::{
    any::Any,
    fmt::Display,
    num::{IntErrorKind, ParseFloatError, ParseIntError},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use super::Mistake;

/// Text that is not what the setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedText {
    /// Not a whole number and a unit of time.
    #[error("not a duration such as 250ms, 15s, 5m, 2h or 30d")]
    Duration,
    /// Not a whole number and a unit of size.
    #[error("not a size such as 4096, 512KiB, 8MiB or 10GB")]
    Bytes,
    /// A duration or size that is too large to hold.
    #[error("too large")]
    TooLarge,
}

/// Reads a length of time: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn parse_duration(text: &str) -> Result<Duration, MalformedText> {
    let (count, unit) = split_number(text).ok_or(MalformedText::Duration)?;
    let millis_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(MalformedText::Duration),
    };
    count.checked_mul(millis_each).map(Duration::from_millis).ok_or(MalformedText::TooLarge)
}

/// Reads a count of bytes: a whole number alone, or with a unit.
///
/// `B`, `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024; `kB`, `KB`, `MB`, `GB`, `TB` of 1000.
pub fn parse_bytes(text: &str) -> Result<u64, MalformedText> {
    let (count, unit) = split_number(text).ok_or(MalformedText::Bytes)?;
    let bytes_each: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(MalformedText::Bytes),
    };
    count.checked_mul(bytes_each).ok_or(MalformedText::TooLarge)
}

/// Reads elements separated by commas; spaces around each are ignored. Empty text has none.
///
/// # Errors
///
/// The error of the first element that does not parse, with its place in the list, from 1.
pub fn parse_list<T>(text: &str) -> Result<Vec<T>, String>
where
    T: FromStr,
    T::Err: Display + 'static,
{
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let element = |(index, part): (usize, &str)| {
        parse(part.trim()).map_err(|why| format!("element {}: {why}", index + 1))
    };
    text.split(',').enumerate().map(element).collect()
}

/// Reads a whole number that lies within `range`, bounds included.
///
/// # Errors
///
/// What the text should be, in words, for whatever is wrong with it.
pub fn parse_within<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let number = text.trim().parse().ok().filter(|number| range.contains(number));
    number
        .ok_or_else(|| format!("not a whole number between {} and {}", range.start(), range.end()))
}

/// Reads a value. What the standard library says of numbers is said in our words.
pub(super) fn parse<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: Display + 'static,
{
    text.parse().map_err(|cause: T::Err| {
        let seen: &dyn Any = &cause;
        match seen.downcast_ref::<ParseIntError>().map(ParseIntError::kind) {
            Some(IntErrorKind::PosOverflow) => String::from("too large a number"),
            Some(IntErrorKind::NegOverflow | IntErrorKind::Zero) => {
                String::from("too small a number")
            }
            Some(_) => String::from("not a whole number"),
            None if seen.is::<ParseFloatError>() => String::from("not a number"),
            None => cause.to_string(),
        }
    })
}

/// Splits `15s` into 15 and `s`; spaces between and around are allowed.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Returns `text` as it may be logged under `key`.
pub(super) fn shown(key: &str, text: &str) -> String {
    const SECRET: [&str; 5] = ["key", "secret", "password", "token", "credentials"];
    let last = key.rsplit('.').next().unwrap_or(key);
    let secret = SECRET.iter().any(|word| {
        last.strip_suffix(word).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'))
    });
    if secret && !text.is_empty() {
        return String::from("***");
    }
    if text.starts_with("command:") {
        return String::from("command:***");
    }
    text.split(',').map(without_userinfo).collect::<Vec<_>>().join(",")
}

/// Hides `user:password` in `nats://user:password@host`.
fn without_userinfo(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::from(url) };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at_checked(end).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{path}"),
        None => String::from(url),
    }
}

/// Returns all mistakes in one line.
pub(super) fn joined(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, expected) in [
            ("250ms", Ok(Duration::from_millis(250))),
            ("15s", Ok(Duration::from_secs(15))),
            (" 5 m ", Ok(Duration::from_mins(5))),
            ("2h", Ok(Duration::from_hours(2))),
            ("30d", Ok(Duration::from_hours(720))),
            ("0s", Ok(Duration::ZERO)),
            ("15", Err(MalformedText::Duration)),
            ("s", Err(MalformedText::Duration)),
            ("-1s", Err(MalformedText::Duration)),
            ("1.5s", Err(MalformedText::Duration)),
            ("1h30m", Err(MalformedText::Duration)),
            ("5µs", Err(MalformedText::Duration)),
            ("", Err(MalformedText::Duration)),
            ("18446744073709551615d", Err(MalformedText::TooLarge)),
            ("18446744073709551616s", Err(MalformedText::Duration)),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_size_is_a_whole_number_and_an_optional_unit() {
        for (text, expected) in [
            ("4096", Ok(4096)),
            ("512KiB", Ok(512 * 1024)),
            ("8 MiB", Ok(8 << 20)),
            ("1GiB", Ok(1 << 30)),
            ("2TiB", Ok(2 << 40)),
            ("10GB", Ok(10_000_000_000)),
            ("1kB", Ok(1_000)),
            ("7B", Ok(7)),
            ("1kib", Err(MalformedText::Bytes)),
            ("KiB", Err(MalformedText::Bytes)),
            ("1.5GiB", Err(MalformedText::Bytes)),
            ("", Err(MalformedText::Bytes)),
            ("99999999TiB", Err(MalformedText::TooLarge)),
        ] {
            assert_eq!(parse_bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_list_is_separated_by_commas() {
        assert_eq!(parse_list::<u8>("1, 2 ,3"), Ok(vec![1, 2, 3]));
        assert_eq!(parse_list::<u8>("  "), Ok(vec![]));
        assert_eq!(parse_list::<u8>("1,,3").unwrap_err(), "element 2: not a whole number");
    }

    #[test]
    fn what_is_wrong_with_a_number_is_said_in_words() {
        let words = "not a whole number between 1 and 64";
        for text in ["", "x", "0", "65", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(parse_within(text, &(1..=64_u16)).unwrap_err(), words, "{text:?}");
        }
        assert_eq!(parse_within(" 64 ", &(1..=64_u16)), Ok(64));
        let zero = parse::<std::num::NonZeroU8>("0").unwrap_err();
        assert_eq!(zero, "too small a number");
        assert_eq!(parse::<u8>("256").unwrap_err(), "too large a number");
        assert_eq!(parse::<u8>("x").unwrap_err(), "not a whole number");
        assert_eq!(parse::<f64>("x").unwrap_err(), "not a number");
        assert_eq!(parse::<bool>("true"), Ok(true));
    }

    #[test]
    fn secrets_are_not_shown() {
        for (key, text, expected) in [
            ("log.password", "hunter2", "***"),
            ("api.operator_key", "abc", "***"),
            ("token", "", ""),
            ("keyboard", "qwerty", "qwerty"),
            ("monkey", "see", "see"),
            ("sealing_key_file", "command:vault read -token=abc", "command:***"),
            ("log.url", "nats://me:pw@a:4222", "nats://***@a:4222"),
            ("log.urls", "nats://me:p@w@a:1/x,nats://b:2", "nats://***@a:1/x,nats://b:2"),
            ("url", "http://a/path@home", "http://a/path@home"),
        ] {
            assert_eq!(shown(key, text), expected, "{key}");
        }
    }
}
