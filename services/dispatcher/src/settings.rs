//! What the dispatcher can be told.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use fanfare_domain::{AddressPolicy, settings::Source};
use fanfare_egress::Protocol;

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
    /// How many deliveries may wait in memory, for all endpoints together, and as many of those
    /// that are due again.
    pub queued_max: usize,
    /// How many bytes of events may wait with them.
    pub queued_bytes_max: usize,
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        Self {
            log: source.section("log"),
            egress: source.section::<Egress>("egress").0,
            sealing_key_file: source
                .take("sealing_key_file", PathBuf::from("fanfare-data/sealing.key")),
            profiles_dir: source.take_optional("profiles_dir"),
            in_flight_max: source.take_within("in_flight_max", 512, 1..=65_536),
            queued_max: source.take_within("queued_max", 16_384, 256..=1_000_000),
            queued_bytes_max: usize::try_from(source.take_bytes("queued_bytes_max", 256 << 20))
                .unwrap_or(usize::MAX),
        }
    }
}

/// The settings of the HTTP client, read from the keys below `egress`.
struct Egress(fanfare_egress::Settings);

impl fanfare_domain::settings::Settings for Egress {
    fn read(source: &mut Source) -> Self {
        let default = fanfare_egress::Settings::default();
        let root_files: Vec<PathBuf> = source.take_list("root_files", Vec::new());
        let mut roots = Vec::new();
        for path in root_files {
            match fs::read_to_string(&path) {
                Ok(text) => roots.push(text),
                Err(error) => source.note("root_files", format!("{}: {error}", path.display())),
            }
        }
        let addresses = AddressPolicy {
            allow: source.take_list("allow", Vec::new()),
            deny: source.take_list("deny", Vec::new()),
        };
        let idle_timeout: Duration = source.take_duration("idle_timeout", default.idle_timeout);
        Self(fanfare_egress::Settings {
            addresses,
            timeout_connect: source.take_duration("timeout_connect", default.timeout_connect),
            roots,
            idle_max_per_host: source.take("idle_max_per_host", default.idle_max_per_host),
            idle_timeout,
            connection_age_max: source
                .take_duration("connection_age_max", default.connection_age_max),
            name_servers: source.take_list("name_servers", Vec::new()),
            source: source.take_optional::<IpAddr>("source"),
            proxy: source.take_optional("proxy"),
            protocol: Protocol::Negotiated,
            ..default
        })
    }
}
