//! What the system knows and decides, with no I/O.
//!
//! Nothing here reads a clock, rolls dice, awaits or logs: callers pass in the
//! time and the randomness, and get a value back. That is what lets a test
//! replay a week of retries in a microsecond.

pub mod address;
pub mod batch;
pub mod body;
pub mod causes;
pub mod command;
pub mod condition;
pub mod config;
pub mod endpoint;
pub mod event;
pub mod event_type;
pub mod fact;
pub mod feed;
pub mod gcra;
mod header_text;
pub mod health;
pub mod history;
pub mod id;
pub mod inbox;
pub mod job;
pub mod json;
pub mod openapi;
pub mod outcome;
pub mod profile;
pub mod request;
pub mod retry;
pub mod retry_after;
pub mod schema;
pub mod seal;
pub mod settings;
pub mod shard;
pub mod signing;
pub mod task;
pub mod tenant;
pub mod time;
pub mod trace;
pub mod url;
pub mod verify;

pub use address::AddressPolicy;
pub use batch::Batch;
pub use causes::chain;
pub use command::Command;
pub use condition::Condition;
pub use config::{ApiKey, Change, Entity, Role};
pub use endpoint::{Endpoint, EndpointState, PauseMode};
pub use event::{Event, StoredEvent};
pub use event_type::{EventType, TypePattern};
pub use fact::{Conclusion, DeliveryRef, Fact, Record};
pub use feed::Feed;
pub use header_text::HeaderText;
pub use health::{BreakerMemory, BreakerState, Health, WindowMemory};
pub use history::History;
pub use id::{BatchId, CommandId, DeliveryId, EndpointId, EventId, JobId, KeyId, LinkId};
pub use inbox::InboxEvent;
pub use job::Replay;
pub use outcome::{Fault, Outcome};
pub use profile::{Profile, Profiles};
pub use request::{Attempt, Rendered, Request};
pub use shard::{Shard, ShardCount};
pub use signing::Signer;
pub use task::{RetryDue, Target, Task};
pub use tenant::{Tenant, TenantId};
pub use time::Timestamp;
pub use trace::{Place, Sampler, SpanId, TraceContext, TraceId};
pub use url::{EndpointUrl, UrlPolicy};
