//! What the retry-scheduler can be told.

use std::{path::PathBuf, time::Duration};

use fanfare_domain::{TenantId, settings::Source};

/// What the service needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub log: fanfare_event_log::Settings,
    /// A directory with more profiles than those built in and those of CONFIG.
    pub profiles_dir: Option<PathBuf>,
    /// Whose events operational events are. While there is no such tenant, there are none.
    pub operator_tenant: TenantId,
    /// How many facts, alarms and notices may be on their way at once, in equal parts for each of
    /// the installation's shards; 1 to 65,536.
    pub in_flight_max: usize,
    /// How often alarms that should have gone off are looked for; more than zero.
    pub sweep_interval: Duration,
    /// How late an alarm may go off before it is looked for.
    pub sweep_grace: Duration,
    /// How often the state is saved while it changes; less often while it is large.
    pub snapshot_interval: Duration,
}

impl Settings {
    /// Every setting with its default and its reason, as TOML.
    pub const DEFAULTS: &'static str = include_str!("../../../deploy/config/retry-scheduler.toml");
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        let operator = "operator".parse().expect("a word is a tenant id");
        let settings = Self {
            log: source.section("log"),
            profiles_dir: source.take_optional("profiles_dir"),
            operator_tenant: source.take("operator_tenant", operator),
            in_flight_max: source.take_within("in_flight_max", 4_096, 1..=65_536),
            sweep_interval: source.take_duration("sweep_interval", Duration::from_secs(5)),
            sweep_grace: source.take_duration("sweep_grace", Duration::from_secs(5)),
            snapshot_interval: source.take_duration("snapshot_interval", Duration::from_secs(10)),
        };
        let intervals = [
            ("sweep_interval", settings.sweep_interval),
            ("snapshot_interval", settings.snapshot_interval),
        ];
        for (key, interval) in intervals {
            if interval.is_zero() {
                source.note(key, "has to be longer than nothing");
            }
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
        let file = Sources::new("retry-scheduler", Settings::DEFAULTS).unwrap();
        let from_file: Settings = file.load().unwrap();
        let from_code: Settings = Source::new(BTreeMap::new(), "").load().unwrap();
        assert_eq!(format!("{from_file:?}"), format!("{from_code:?}"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let source = Source::from([
            ("operator_tenant", "a.b"),
            ("in_flight_max", "0"),
            ("sweep_interval", "0s"),
            ("snapshot_interval", "0s"),
        ]);
        let mistakes = source.load::<Settings>().unwrap_err();
        let keys = ["in_flight_max", "operator_tenant", "snapshot_interval", "sweep_interval"];
        assert_eq!(mistakes.keys(), keys);
    }
}
