//! `Retry-After` (RFC 9110, section 10.2.3): when an endpoint wants to be asked again.

use std::time::{Duration, UNIX_EPOCH};

use crate::{Timestamp, retry::RETRY_AFTER_MAX};

/// Reads the header's value: a count of seconds, or an HTTP date.
///
/// Returns `None` for anything else and for instants that have passed: garbage asks for nothing.
/// What lies further ahead than [`RETRY_AFTER_MAX`] is brought back to it. Of several headers in
/// one answer, the caller takes the latest.
pub fn parse(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim_matches([' ', '\t']);
    let latest = now.saturating_add(RETRY_AFTER_MAX);
    let asked = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds are still a count of seconds, and a long one.
        let seconds = value.parse().unwrap_or(u64::MAX);
        now.saturating_add(Duration::from_secs(seconds))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        Timestamp::EPOCH.saturating_add(date.duration_since(UNIX_EPOCH).ok()?)
    };
    (asked >= now).then(|| asked.min(latest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tue, 14 Nov 2023 22:13:20 GMT.
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn wait(value: &str) -> Option<u64> {
        parse(value, NOW).map(|asked| asked.since(NOW).as_secs())
    }

    #[test]
    fn seconds_and_dates_are_read() {
        for (value, expected) in [
            ("120", 120),
            (" 120\t", 120),
            ("0", 0),
            ("Tue, 14 Nov 2023 22:15:20 GMT", 120),
            ("Tuesday, 14-Nov-23 22:15:20 GMT", 120),
            ("Tue Nov 14 22:15:20 2023", 120),
        ] {
            assert_eq!(wait(value), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_huge_is_capped() {
        for value in ["1000000000", "99999999999999999999999999", "Sat, 14 Nov 2099 22:15:20 GMT"] {
            assert_eq!(wait(value), Some(86_400), "{value}");
        }
    }

    #[test]
    fn garbage_and_the_past_ask_for_nothing() {
        for value in [
            "",
            " ",
            "-5",
            "+5",
            "1.5",
            "1e9",
            "soon",
            "12 0",
            "１２",
            "Tue, 14 Nov 2023 22:13:19 GMT",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "2023-11-14T22:15:20Z",
        ] {
            assert_eq!(wait(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_asks_for_the_past_or_beyond_the_limit(value in "\\PC{0,40}", now: u64) {
            let now = Timestamp::from_nanos(now);
            if let Some(asked) = parse(&value, now) {
                prop_assert!(asked >= now && asked <= now.saturating_add(RETRY_AFTER_MAX));
            }
        }
    }
}
