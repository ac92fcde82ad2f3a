//! The event log, kept in NATS JetStream. The only crate that speaks NATS.
//!
//! Services meet here and nowhere else: they read, decide, write, and only then settle what
//! they read. Everything that is written has an id made from its cause, so that writing it
//! again is harmless.

pub mod access;
pub mod allowance;
pub mod answers;
pub mod commands;
pub mod config;
pub mod durability;
pub mod expunge;
pub mod feeds;
pub mod follow;
pub mod health;
pub mod idempotency;
pub mod inbox;
pub mod jobs;
pub mod journal;
pub mod key_uses;
pub mod marks;
pub mod membership;
pub mod permissions;
pub mod publish;
pub mod read;
pub mod reports;
pub mod requests;
pub mod scan;
pub mod schedule;
pub mod settings;
pub mod snapshot;
pub mod survey;
pub mod topology;
pub mod trials;

mod bootstrap;
mod cas;
mod log;
mod user;
mod view;

pub use access::{AccessError, Login, Tls, TlsMode};
pub use allowance::{Allowance, Portion};
pub use answers::{AnswerKey, HeldAnswer, Kept};
pub use config::{ChangeError, ConfigFold, ConfigFollower, ConfigView, StoredChange};
pub use fanfare_proto::{PackedEndpoint, encoded_len as record_length, task_length};
pub use feeds::{FeedHints, Feeds, FeedsView, StoredFeed};
pub use follow::EventFollower;
pub use health::{HealthQuestion, HealthQuestions};
pub use jobs::{JobWritten, Jobs, JobsView, StoredReplay};
pub use journal::{AppendError, Column, JournalBatch, JournalFilter, JournalReader, JournalWriter};
pub use log::{Act, Denial, EventLog, Lack, OpenError, Provisioned};
pub use marks::{Mark, Marks};
pub use permissions::{Permissions, Role};
pub use publish::{Pending, PublishError, Publisher, Stored, Windows};
pub use read::{Headers, InboxMessage, Position, ReadError, Reader, Settler, Unsettled};
pub use reports::{Receipt, Reported, Reports};
pub use requests::{PublishAnswer, PublishRequestError, Reply, Request, Requests};
pub use schedule::Schedules;
pub use settings::{Compression, Durability, Settings};
pub use survey::{ReaderState, Storage, StreamState, Survey};
pub use topology::Topology;
pub use trials::{Trial, Trials};
