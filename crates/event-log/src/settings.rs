//! What the event log can be told.

use std::{fmt, str::FromStr, time::Duration};

use async_nats::ServerAddr;
use fanfare_domain::{ShardCount, settings::Source};

use crate::{AccessError, Login, Tls, topology::inbox};

/// How much has to fail before something acknowledged can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Any process may be killed. The server's default.
    Process,
    /// A minority of the servers may lose power: three replicas, each write synced.
    Node,
    /// All servers may lose power at once: each write synced, by disks that do not lie.
    Site,
}

/// Text that names no durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not process, node or site")]
pub struct UnknownDurability;

/// Whether EVENTS and JOURNAL are compressed on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As written.
    None,
    /// S2: half the disk for JSON, at the price of some CPU on the servers.
    S2,
}

/// Text that names no compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not none or s2")]
pub struct UnknownCompression;

/// Where the log is and how it is kept.
#[derive(Clone)]
pub struct Settings {
    /// Where NATS is: `nats://…` or `tls://…`, several with commas; user and password may be in it.
    pub url: String,
    /// As whom to log in, if the servers ask for it.
    pub login: Login,
    /// How connections are protected.
    pub tls: Tls,
    /// What the subjects begin with on which answers are received; `_INBOX.<prefix>.<name>` if `None`.
    pub inbox_prefix: Option<String>,
    /// Where the system account is reached, to check the servers' settings; needed for `node` and `site`.
    pub system_url: Option<String>,
    /// As whom to log in there.
    pub system_login: Login,
    /// What every subject, stream and bucket begins with: lower-case letters, digits, `-` and `_`.
    pub prefix: String,
    /// What was promised: checked at the start, where it must be kept, and from then on.
    pub durability: Durability,
    /// How many servers keep each stream: 1 or 3 (5 is allowed).
    pub replicas: usize,
    /// How many shards a new installation gets. Fixed once the streams exist.
    pub shards: ShardCount,
    /// How long the servers know an id again (`Nats-Msg-Id`).
    pub duplicate_window: Duration,
    /// How long EVENTS and JOURNAL are kept.
    pub retention: Duration,
    /// How many publishes of one publisher may be unconfirmed.
    pub window: usize,
    /// How many messages of one subject (tenant and type) INBOX holds before it refuses more.
    pub inbox_per_subject_max: i64,
    /// How many bytes each of INBOX, EVENTS, DELIVERIES and JOURNAL may take; unlimited if `None`.
    pub stream_bytes_max: Option<i64>,
    /// How long the server waits for a message to be settled before it hands it out again.
    pub ack_wait: Duration,
    /// Whether EVENTS and JOURNAL are compressed on disk.
    pub compression: Compression,
}

/// The largest window, in messages.
const WINDOW_MAX: usize = 16_384;

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::from("nats://127.0.0.1:4222"),
            login: Login::default(),
            tls: Tls::default(),
            inbox_prefix: None,
            system_url: None,
            system_login: Login::default(),
            prefix: String::from("fanfare"),
            durability: Durability::Process,
            replicas: 1,
            shards: ShardCount::new(16).expect("16 lies between 1 and 256"),
            duplicate_window: Duration::from_mins(2),
            retention: Duration::from_hours(30 * 24),
            window: 1024,
            inbox_per_subject_max: 100_000,
            stream_bytes_max: None,
            ack_wait: Duration::from_secs(15),
            compression: Compression::None,
        }
    }
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        let default = Self::default();
        let settings = Self {
            url: source.take("url", default.url),
            login: Login::read(source, ""),
            tls: Tls::read(source),
            inbox_prefix: source.take_optional("inbox_prefix"),
            system_url: source.take_optional("system_url"),
            system_login: Login::read(source, "system_"),
            prefix: source.take("prefix", default.prefix),
            durability: source.take("durability", default.durability),
            replicas: source.take_within("replicas", default.replicas, 1..=5),
            shards: source.take("shards", default.shards),
            duplicate_window: source.take_duration("duplicate_window", default.duplicate_window),
            retention: source.take_duration("retention", default.retention),
            window: source.take_within("window", default.window, 1..=WINDOW_MAX),
            inbox_per_subject_max: source.take_within(
                "inbox_per_subject_max",
                default.inbox_per_subject_max,
                1..=i64::MAX,
            ),
            stream_bytes_max: source.take_optional("stream_bytes_max"),
            ack_wait: source.take_duration("ack_wait", default.ack_wait),
            compression: source.take("compression", default.compression),
        };
        settings.note_mistakes(source);
        settings
    }
}

impl Settings {
    /// What the subjects begin with on which a connection of this name receives answers.
    pub fn inbox(&self, name: &str) -> String {
        self.inbox_prefix.clone().unwrap_or_else(|| inbox(&self.prefix, name))
    }

    /// Checks that the files can be read that are named for logging in and for TLS.
    pub fn check_access(&self) -> Result<(), AccessError> {
        self.login.check()?;
        self.system_login.check()?;
        self.tls.check()
    }

    /// Returns the URL without user and password, as it may be shown.
    pub fn shown_url(&self) -> String {
        shown_url(&self.url)
    }

    fn note_mistakes(&self, source: &mut Source) {
        for (key, urls) in [("url", Some(&self.url)), ("system_url", self.system_url.as_ref())] {
            if urls.is_some_and(|urls| !are_servers(urls)) {
                source.note(key, "not nats://HOST:PORT or tls://HOST:PORT, several with commas");
            }
        }
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        };
        if self.prefix.is_empty() || self.prefix.len() > 32 || !self.prefix.bytes().all(plain) {
            source.note("prefix", "not 1 to 32 of a-z, 0-9, - and _");
        }
        if self.inbox_prefix.as_deref().is_some_and(|subject| !is_inbox(subject)) {
            source.note(
                "inbox_prefix",
                "not _INBOX, or _INBOX. and tokens of letters, digits, - and _",
            );
        }
        if self.replicas.is_multiple_of(2) {
            source.note("replicas", "an even number of replicas tolerates no more than one less");
        }
        if self.duplicate_window < Duration::from_millis(100) {
            source.note("duplicate_window", "less than 100ms");
        }
        if self.retention < self.duplicate_window {
            source.note("retention", "shorter than duplicate_window");
        }
        if self.ack_wait < Duration::from_secs(1) {
            source.note("ack_wait", "less than 1s");
        }
        if self.stream_bytes_max.is_some_and(|bytes| bytes < 1) {
            source.note("stream_bytes_max", "less than 1");
        }
        if self.durability == Durability::Node && self.replicas < 3 {
            source.note("replicas", "durability node needs 3 or more");
        }
        if self.durability != Durability::Process && self.system_url.is_none() {
            source.note("system_url", "durability node and site need it");
        }
    }
}

/// Tells whether URLs, separated by commas, are those of NATS servers.
fn are_servers(urls: &str) -> bool {
    urls.split(',').all(|url| {
        let address = url.trim().parse::<ServerAddr>();
        address.is_ok_and(|address| {
            !address.host().is_empty() && matches!(address.scheme(), "nats" | "tls")
        })
    })
}

/// Tells whether a subject is one that answers may come to.
fn is_inbox(subject: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let mut tokens = subject.split('.');
    tokens.next() == Some("_INBOX")
        && tokens.all(|token| !token.is_empty() && token.bytes().all(plain))
}

/// Hides user and password in each of several URLs.
pub(crate) fn shown_url(urls: &str) -> String {
    let hide = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => url.to_owned(),
    };
    urls.split(',').map(hide).collect::<Vec<_>>().join(",")
}

/// Hides user and password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.shown_url())
            .field("login", &self.login)
            .field("tls", &self.tls)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("system_url", &self.system_url.as_deref().map(shown_url))
            .field("prefix", &self.prefix)
            .field("durability", &self.durability)
            .field("replicas", &self.replicas)
            .field("shards", &self.shards)
            .field("duplicate_window", &self.duplicate_window)
            .field("retention", &self.retention)
            .field("window", &self.window)
            .field("inbox_per_subject_max", &self.inbox_per_subject_max)
            .field("stream_bytes_max", &self.stream_bytes_max)
            .field("ack_wait", &self.ack_wait)
            .field("compression", &self.compression)
            .field("system_login", &self.system_login)
            .finish()
    }
}

impl Durability {
    /// Whether servers that keep it sync each write before they acknowledge it.
    pub const fn syncs_always(self) -> bool {
        match self {
            Self::Process => false,
            Self::Node | Self::Site => true,
        }
    }

    /// Returns the name, as it stands in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Node => "node",
            Self::Site => "site",
        }
    }
}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Process, Self::Node, Self::Site]
            .into_iter()
            .find(|durability| durability.as_str() == text)
            .ok_or(UnknownDurability)
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "s2" => Ok(Self::S2),
            _ => Err(UnknownCompression),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_gives_the_defaults() {
        let settings: Settings = Source::default().load().unwrap();
        assert_eq!(settings.prefix, "fanfare");
        assert_eq!(settings.shards.get(), 16);
        assert_eq!(settings.durability, Durability::Process);
    }

    #[test]
    fn every_mistake_is_reported() {
        let source = Source::from([
            ("prefix", "a.b"),
            ("replicas", "2"),
            ("durability", "node"),
            ("retention", "1s"),
            ("shards", "0"),
            ("compression", "zip"),
        ]);
        let mistakes = source.load::<Settings>().unwrap_err();
        let keys =
            ["compression", "prefix", "replicas", "replicas", "retention", "shards", "system_url"];
        assert_eq!(mistakes.keys(), keys);
    }

    #[test]
    fn a_url_is_one_of_nats_servers() {
        for url in ["nats://me:pw@a:4222", "tls://a", "a:4222, nats://b:4222", "nats://[::1]:1"] {
            assert!(Source::from([("url", url)]).load::<Settings>().is_ok(), "{url}");
        }
        for url in ["http://me:pw@a", "", "nats://", "nats://a,", "ws://a:80", "nats://a:x"] {
            let mistakes = Source::from([("url", url)]).load::<Settings>().unwrap_err();
            assert_eq!(mistakes.keys(), ["url"], "{url}");
            assert!(!mistakes.to_string().contains("pw"), "{mistakes}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = String::from("nats://me:pass@word@one:4222,two:4222,you:secret@three");
        let settings = Settings { url, ..Settings::default() };
        assert_eq!(settings.shown_url(), "nats://one:4222,two:4222,three");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
