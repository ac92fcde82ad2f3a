//! The delivery log: what EVENTS and JOURNAL say, in tables that can be searched.
//!
//! ```text
//! events, facts, configuration ──fold──▶ Changes ──Store::apply──▶ SQL ──query──▶ pages
//! ```
//!
//! It is a view: it can be dropped and folded again at any time, but for the audit of the
//! configuration, which is kept; and nothing that delivers waits for it. The fold is a pure function into rows that commute: whatever the order in which the
//! streams are read, in whatever portions and how often, the rows come out the same. What was
//! folded is counted in the transaction that writes the rows, by compare-and-set, so that killing
//! the writer anywhere repeats nothing and loses nothing, and a second writer is harmless.
//!
//! Events are kept without their data, which stays in EVENTS: a request is shown as it was sent
//! from the event, the profile and what is kept of the attempt.

mod audit;
mod counts;
mod database;
mod deletion;
mod expunging;
mod fold;
mod query;
mod request;
mod retention;
mod rows;
mod schema;
mod statistics;
mod store;
mod streams;

pub use audit::{Action, AuditCursor, AuditEntry, AuditFilter, AuditPage};
#[doc(hidden)]
pub use database::HeldUp;
pub use database::{Database, DatabaseUrl, MalformedUrl, StoreError};
pub use expunging::ExpungeCursor;
pub use fold::Changes;
pub use query::{
    Cursor, EventFilter, Filter, Known, KnownEvent, KnownOwner, Listed, MalformedCursor, Owner,
    Page,
};
pub use request::{as_sent, batch_as_sent, is_signed_by, trace_as_sent};
pub use retention::TypeCursor;
pub use rows::{AttemptRow, DeliveryRow, EventRow, Origin, Place, Standing, State};
pub use schema::Whose;
pub use statistics::{Attempts, Latency, Statistics};
pub use store::{Progress, Store};
pub use streams::Streams;
