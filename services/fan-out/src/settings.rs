//! What fan-out can be told.

use fanfare_domain::settings::Source;

/// What the service needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub log: fanfare_event_log::Settings,
    /// How many batches of events may be written at once; 1 to 64.
    pub batches_max: usize,
    /// How many tasks of one batch may be on their way at once; 1 to 4,096.
    pub tasks_max: usize,
}

impl Settings {
    /// Every setting with its default and its reason, as TOML.
    pub const DEFAULTS: &'static str = include_str!("../../../deploy/config/fan-out.toml");
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        Self {
            log: source.section("log"),
            batches_max: source.take_within("batches_max", 4, 1..=64),
            tasks_max: source.take_within("tasks_max", 256, 1..=4_096),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_service::Sources;

    use super::*;

    #[test]
    fn the_file_of_defaults_says_what_the_code_does() {
        let file = Sources::new("fan-out", Settings::DEFAULTS).unwrap();
        let from_file: Settings = file.load().unwrap();
        let from_code: Settings = Source::new(BTreeMap::new(), "").load().unwrap();
        assert_eq!(format!("{from_file:?}"), format!("{from_code:?}"));
    }

    #[test]
    fn limits_of_nothing_are_refused() {
        let source = Source::from([("batches_max", "0"), ("tasks_max", "0")]);
        let mistakes = source.load::<Settings>().unwrap_err();
        assert_eq!(mistakes.keys(), ["batches_max", "tasks_max"]);
    }
}
