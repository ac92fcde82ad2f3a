//! What each stream is to look like.
//!
//! Nothing that was acknowledged is ever dropped: a full stream refuses what is new. RETRIES
//! cannot refuse (the server does not allow it together with schedules), so it has no limits at
//! all: a limit there would delete the oldest schedules, silently. REJECTED and DEAD are views:
//! they drop what is old.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use async_nats::jetstream::stream::{
    Compression as Compressed, Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use serde_json::{Map, Value};

use crate::{
    Settings,
    settings::Compression,
    topology::{Bucket, SHARDS, Stream, Topology},
};

/// How long an idempotency key is kept.
const IDEMPOTENCY: Duration = Duration::from_hours(24);
/// How many messages REJECTED and DEAD hold, in all and of one subject.
const VIEW_MAX: i64 = 1_000_000;
const VIEW_PER_SUBJECT_MAX: i64 = 10_000;

/// What INBOX leaves of the servers' limit for what is added to a message later, in bytes.
pub(crate) const INBOX_HEADROOM: usize = 64 * 1024;

/// Declares a stream. `payload_max` is the most bytes that the servers take in one message.
pub(super) fn stream(
    stream: Stream,
    topology: &Topology,
    settings: &Settings,
    payload_max: usize,
) -> Config {
    let plain = Config {
        name: topology.stream(stream),
        subjects: topology.subjects(stream),
        duplicate_window: settings.duplicate_window,
        allow_atomic_publish: stream.takes_batches(),
        ..unlimited(settings)
    };
    let bytes = settings.stream_bytes_max.unwrap_or(-1);
    match stream {
        Stream::Inbox => Config {
            retention: RetentionPolicy::WorkQueue,
            max_bytes: bytes,
            // One producer's flood refuses that producer, and nobody else.
            max_messages_per_subject: settings.inbox_per_subject_max,
            discard_new_per_subject: true,
            max_message_size: inbox_message_max(payload_max),
            ..plain
        },
        // Purging stays possible: it is how the events of a tenant that left are expunged.
        Stream::Events => Config {
            max_bytes: bytes,
            max_age: settings.retention,
            deny_delete: true,
            compression: compression(settings),
            ..plain
        },
        Stream::Journal => Config {
            max_bytes: bytes,
            max_age: settings.retention,
            deny_delete: true,
            deny_purge: true,
            compression: compression(settings),
            metadata: HashMap::from([(String::from(SHARDS), settings.shards.to_string())]),
            ..plain
        },
        Stream::Deliveries => {
            Config { retention: RetentionPolicy::WorkQueue, max_bytes: bytes, ..plain }
        }
        Stream::Commands => Config { retention: RetentionPolicy::WorkQueue, ..plain },
        Stream::Retries => Config {
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::Old,
            allow_message_schedules: true,
            // The server forces it.
            allow_rollup: true,
            ..plain
        },
        Stream::Rejected | Stream::Dead => Config {
            discard: DiscardPolicy::Old,
            max_bytes: settings.stream_bytes_max.map_or(-1, |bytes| bytes / 4 + 1),
            max_messages: VIEW_MAX,
            max_messages_per_subject: VIEW_PER_SUBJECT_MAX,
            max_age: settings.retention,
            ..plain
        },
        Stream::Jobs => {
            Config { max_messages_per_subject: 1, max_age: settings.retention, ..plain }
        }
        // Purging stays possible: it is how revisions that are no longer needed are removed.
        Stream::Config => Config { deny_delete: true, ..plain },
    }
}

/// Declares a bucket, as clients of any language expect its stream to be.
pub(super) fn bucket(bucket: Bucket, topology: &Topology, settings: &Settings) -> Config {
    let name = topology.bucket(bucket);
    let plain = Config { name: topology.bucket_stream(bucket), ..unlimited(settings) };
    let plain = Config { allow_rollup: true, ..plain };
    match bucket {
        Bucket::Idempotency => Config {
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            max_age: IDEMPOTENCY,
            deny_delete: true,
            ..plain
        },
        Bucket::Allowances => Config {
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            deny_delete: true,
            ..plain
        },
        Bucket::Owners | Bucket::Feeds | Bucket::KeyUses => Config {
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            // The markers of deleted keys go away by themselves.
            allow_message_ttl: true,
            deny_delete: true,
            ..plain
        },
        Bucket::Snapshots => {
            Config { subjects: vec![format!("$O.{name}.C.>"), format!("$O.{name}.M.>")], ..plain }
        }
    }
}

fn inbox_message_max(payload_max: usize) -> i32 {
    i32::try_from(payload_max.saturating_sub(INBOX_HEADROOM).max(1)).unwrap_or(i32::MAX)
}

fn unlimited(settings: &Settings) -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        duplicate_window: Duration::from_mins(2),
        allow_direct: true,
        ..Config::default()
    }
}

fn compression(settings: &Settings) -> Option<Compressed> {
    match settings.compression {
        Compression::None => None,
        Compression::S2 => Some(Compressed::S2),
    }
}

/// Returns `found` with all that is declared put right; the rest (placement, description,
/// transforms, what servers add) stays as an operator or the server set it.
pub(super) fn put_right(found: &Config, wanted: &Config) -> Config {
    let mut right = found.clone();
    right.subjects.clone_from(&wanted.subjects);
    right.retention = wanted.retention;
    right.discard = wanted.discard;
    right.discard_new_per_subject = wanted.discard_new_per_subject;
    right.storage = wanted.storage;
    right.num_replicas = wanted.num_replicas;
    right.max_bytes = wanted.max_bytes;
    right.max_messages = wanted.max_messages;
    right.max_messages_per_subject = wanted.max_messages_per_subject;
    right.max_message_size = wanted.max_message_size;
    right.max_age = wanted.max_age;
    right.duplicate_window = wanted.duplicate_window;
    right.no_ack = false;
    right.allow_rollup = wanted.allow_rollup;
    right.deny_delete = wanted.deny_delete;
    right.deny_purge = wanted.deny_purge;
    right.allow_direct = wanted.allow_direct;
    right.allow_message_schedules = wanted.allow_message_schedules;
    right.allow_message_ttl = wanted.allow_message_ttl;
    right.allow_atomic_publish |= wanted.allow_atomic_publish;
    if right.persist_mode == Some(PersistenceMode::Async) {
        right.persist_mode = None;
    }
    if wanted.compression.is_some() || found.compression == Some(Compressed::S2) {
        right.compression = Some(wanted.compression.clone().unwrap_or(Compressed::None));
    }
    for key in [SHARDS] {
        if let Some(value) = wanted.metadata.get(key) {
            right.metadata.insert(String::from(key), value.clone());
        }
    }
    right
}

/// In what two configurations differ, as the servers call it.
pub(super) fn differences(found: &Config, wanted: &Config) -> Vec<String> {
    let fields = |config: &Config| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    let (found, wanted) = (fields(found), fields(wanted));
    let names: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    names.into_iter().filter(|name| found.get(*name) != wanted.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acknowledged_is_dropped() {
        let settings = Settings { stream_bytes_max: Some(1 << 30), ..Settings::default() };
        let topology = Topology::new("fanfare");
        for kind in Stream::ALL {
            let config = stream(kind, &topology, &settings, 1 << 20);
            let limited = config.max_bytes > 0 || config.max_messages > 0;
            let view = matches!(kind, Stream::Rejected | Stream::Dead);
            let refuses = config.discard == DiscardPolicy::New;
            assert!(refuses || view || !limited, "{kind:?}");
            assert!(!config.allow_rollup || kind == Stream::Retries, "{kind:?}");
        }
    }

    #[test]
    fn what_an_operator_added_stays() {
        let topology = Topology::new("fanfare");
        let wanted = stream(Stream::Events, &topology, &Settings::default(), 1 << 20);
        let mut found = wanted.clone();
        found.description = Some(String::from("ours"));
        found.metadata.insert(String::from("_nats.ver"), String::from("2.15.1"));
        assert_eq!(put_right(&found, &wanted), found);
        found.max_age = Duration::from_secs(1);
        assert_eq!(differences(&found, &put_right(&found, &wanted)), ["max_age"]);
        assert_eq!(put_right(&found, &wanted).max_age, wanted.max_age);
    }
}
