//! What the event log can be told.

use std::{path::PathBuf, time::Duration};

use fanfare_domain::{ShardCount, settings::Source};

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

/// Where the log is and how it is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where NATS is: `nats://…` or `tls://…`, several with commas; user and password may be in it.
    pub url: String,
    /// A file with NATS credentials (JWT and nkey), if the servers ask for one.
    pub credentials_file: Option<PathBuf>,
    /// Where the system account is reached, to check the servers' settings; needed for `node` and `site`.
    pub system_url: Option<String>,
    /// What every subject, stream and bucket begins with.
    pub prefix: String,
    /// What was promised, and is checked at the start.
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
}

impl Default for Settings {
    fn default() -> Self {
        todo!("url nats://127.0.0.1:4222, prefix fanfare, process, 1 replica, 16 shards, window 2 min, retention 30 d, window 1024, 100_000, None, 60 s")
    }
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        let _ = source;
        todo!()
    }
}
