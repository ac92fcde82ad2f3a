//! The wire form of every record that enters a stream, and the only door to it.
//!
//! Nobody else sees the generated types: callers pass domain values in and get domain values
//! out, with the invariants of their types checked on the way (ids, names, numbers, known
//! values). Limits that an operator may change, such as sizes, are not checked here.
//!
//! Encoding writes a domain value straight into a buffer of the right size, so that an
//! event's data is copied once. Decoding takes `Bytes` and slices them, so that payloads are not
//! copied at all; they keep the whole message alive for as long as they live.
//!
//! **Versions.** Fields are only ever added. A reader passes over fields that it does not know,
//! but never over a fact, an entity or a value that it does not know: see
//! [`DecodeError::is_from_newer_version`]. What earlier versions wrote is kept in `tests/golden`,
//! and must decode to the same values for ever.

mod choice;
mod command;
mod config;
mod encode;
mod error;
mod event;
mod feed;
mod inbox;
mod job;
mod journal;
mod parse;
mod snapshot;
mod task;

#[cfg(test)]
mod tests;

mod wire {
    #![expect(clippy::pedantic, unreachable_pub, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/fanfare.v1.rs"));
}

pub use command::{decode_command, encode_command};
pub use config::{PackedEndpoint, decode_change, encode_change};
pub use error::{DecodeError, Field};
pub use event::{decode_event, encode_event};
pub use feed::{decode_feed, decode_feed_hint, encode_feed, encode_feed_hint};
pub use inbox::{decode_inbox, encode_inbox};
pub use job::{decode_replay, encode_replay};
pub use journal::{
    decode_journal, decode_journal_briefly, encode_facts, encode_journal, encoded_len,
};
pub use snapshot::{AgendaEntry, EndpointHealth, Snapshot, decode_snapshot, encode_snapshot};
pub use task::{decode_retry_due, decode_tasks, encode_retry_due, encode_tasks, task_length};
