//! What the projector can be told.

use std::{path::PathBuf, time::Duration};

use fanfare_delivery_log::DatabaseUrl;
use fanfare_domain::settings::Source;

use crate::folding::Limits;

/// What the service needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the streams are.
    pub log: fanfare_event_log::Settings,
    /// Where the delivery log is.
    pub database: DatabaseUrl,
    /// A directory with more profiles than those built in.
    pub profiles_dir: Option<PathBuf>,
    /// For how long deliveries can be found; 1 h at least.
    pub retention: Duration,
    /// The most facts and events of one transaction; 1 to 65,536.
    pub batch_max: usize,
    /// How long facts are gathered for a transaction; 10 s at most.
    pub batch_wait: Duration,
}

/// The shortest time for which deliveries can be found.
const RETENTION_MIN: Duration = Duration::from_hours(1);
/// The longest time that facts are gathered.
const WAIT_MAX: Duration = Duration::from_secs(10);

impl Settings {
    /// Every setting with its default and its reason, as TOML.
    pub const DEFAULTS: &'static str = include_str!("../../../deploy/config/projector.toml");

    pub(crate) const fn limits(&self) -> Limits {
        Limits { count: self.batch_max, wait: self.batch_wait }
    }
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        let database = DatabaseUrl::Sqlite(PathBuf::from("delivery-log.sqlite"));
        let settings = Self {
            log: source.section("log"),
            database: source.take("database", database),
            profiles_dir: source.take_optional("profiles_dir"),
            retention: source.take_duration("retention", Duration::from_hours(30 * 24)),
            batch_max: source.take_within("batch_max", 2_048, 1..=65_536),
            batch_wait: source.take_duration("batch_wait", Duration::from_millis(100)),
        };
        if settings.retention < RETENTION_MIN {
            source.note("retention", "less than 1h");
        }
        if settings.batch_wait > WAIT_MAX {
            source.note("batch_wait", "more than 10s");
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
        let file = Sources::new("projector", Settings::DEFAULTS).unwrap();
        let from_file: Settings = file.load().unwrap();
        let from_code: Settings = Source::new(BTreeMap::new(), "").load().unwrap();
        assert_eq!(format!("{from_file:?}"), format!("{from_code:?}"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_a_password_is_not_shown() {
        let source = Source::from([
            ("database", "mysql://me:secret@there/x"),
            ("retention", "1m"),
            ("batch_max", "0"),
            ("batch_wait", "1m"),
        ]);
        let mistakes = source.load::<Settings>().unwrap_err();
        assert_eq!(mistakes.keys(), ["batch_max", "batch_wait", "database", "retention"]);
        assert!(!mistakes.to_string().contains("secret"), "{mistakes}");
        let source = Source::from([("database", "postgres://me:secret@there/x")]);
        let (settings, shown) = source.load_shown::<Settings>().unwrap();
        assert!(!format!("{settings:?} {shown:?}").contains("secret"), "{shown:?}");
    }
}
