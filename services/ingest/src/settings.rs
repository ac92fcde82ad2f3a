//! What ingest can be told.

use std::{path::PathBuf, time::Duration};

use fanfare_domain::{json::Limits, settings::Source};

/// What the service needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub log: fanfare_event_log::Settings,
    /// A directory with more profiles, `*.toml`, besides those built in.
    pub profiles_dir: Option<PathBuf>,
    /// The most bytes of an event's data.
    pub data_bytes_max: u64,
    /// The most arrays and objects within one another; 1 to 126.
    pub data_depth_max: usize,
    /// How many batches of messages may be written at once; 1 to 64.
    pub batches_max: usize,
    /// How many idempotency keys may be looked up at once; 1 to 1,024.
    pub keys_max: usize,
    /// How many requests may be in hand at once; 1 to 65,536. More are refused.
    pub requests_max: usize,
    /// The most bytes of all requests in hand. More are refused.
    pub requests_bytes_max: u64,
    /// How long a request may take before it is answered that its outcome is not known.
    pub request_timeout: Duration,
}

impl Settings {
    /// Every setting with its default and its reason, as TOML.
    pub const DEFAULTS: &'static str = include_str!("../../../deploy/config/ingest.toml");
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        let bytes = u64::try_from(Limits::BYTES_MAX).unwrap_or(u64::MAX);
        let settings = Self {
            log: source.section("log"),
            profiles_dir: source.take_optional("profiles_dir"),
            data_bytes_max: source.take_bytes("data_bytes_max", bytes),
            data_depth_max: source.take_within(
                "data_depth_max",
                Limits::DEPTH_MAX,
                1..=Limits::DEPTH_MAX,
            ),
            batches_max: source.take_within("batches_max", 4, 1..=64),
            keys_max: source.take_within("keys_max", 64, 1..=1_024),
            requests_max: source.take_within("requests_max", 1_024, 1..=65_536),
            requests_bytes_max: source.take_bytes("requests_bytes_max", 64 * 1_024 * 1_024),
            request_timeout: source.take_duration("request_timeout", Duration::from_secs(5)),
        };
        if settings.data_bytes_max == 0 {
            source.note("data_bytes_max", "less than 1");
        }
        if settings.requests_bytes_max < settings.data_bytes_max {
            source.note("requests_bytes_max", "less than data_bytes_max");
        }
        if settings.request_timeout.is_zero() {
            source.note("request_timeout", "less than 1ms");
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_service::Sources;

    use super::*;

    #[test]
    fn the_file_of_defaults_says_what_the_code_does() {
        let file = Sources::new("ingest", Settings::DEFAULTS).unwrap();
        let from_file: Settings = file.load().unwrap();
        let from_code: Settings = Source::new(BTreeMap::new(), "").load().unwrap();
        assert_eq!(format!("{from_file:?}"), format!("{from_code:?}"));
    }

    #[test]
    fn limits_of_nothing_are_refused() {
        let source = Source::from([
            ("data_bytes_max", "0"),
            ("data_depth_max", "127"),
            ("request_timeout", "0s"),
            ("requests_max", "0"),
        ]);
        let mistakes = source.load::<Settings>().unwrap_err();
        let keys = ["data_bytes_max", "data_depth_max", "request_timeout", "requests_max"];
        assert_eq!(mistakes.keys(), keys);
    }
}
