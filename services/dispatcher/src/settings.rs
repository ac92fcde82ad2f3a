//! What the dispatcher can be told.

use std::path::PathBuf;

use fanfare_domain::settings::Source;

/// What the service needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub log: fanfare_event_log::Settings,
    /// How requests leave.
    pub egress: fanfare_egress::Settings,
    /// The file with the keys that open sealed secrets.
    pub sealing_key_file: PathBuf,
    /// A directory with more profiles than those built in.
    pub profiles_dir: Option<PathBuf>,
    /// How many requests may be in flight at once, to all endpoints together.
    pub in_flight_max: usize,
    /// How many deliveries may wait in memory, for all endpoints together.
    pub queued_max: usize,
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        Self {
            log: source.section("log"),
            egress: source.section("egress"),
            sealing_key_file: source.take("sealing_key_file", PathBuf::from("fanfare-data/sealing.key")),
            profiles_dir: source.take_optional("profiles_dir"),
            in_flight_max: source.take("in_flight_max", 512),
            queued_max: source.take("queued_max", 16_384),
        }
    }
}
