//! The spans of an event: what each says, as a function of what is on record.
//!
//! ```text
//! producer's span (its own)
//! └─ process INBOX         ingest took the event in
//!    └─ process EVENTS     fan-out matched it with its endpoints
//!       └─ create DELIVERIES  one for each endpoint; ends when the delivery is enqueued
//!          └─ POST         one for each attempt, with a link to the one before
//! ```
//!
//! Attributes are those of the OpenTelemetry semantic conventions for messaging and HTTP clients,
//! version [`SEMCONV`], and ours under `fanfare.`. No payload is among them, no secret, and no query
//! of a URL.

mod attempt;

use std::{borrow::Cow, sync::Arc};

pub use attempt::{Moments, address, attempt, trial};

use super::{Place, SpanId, TraceContext, TraceId};
use crate::{DeliveryRef, Event, EventId, EventType, TenantId, Timestamp};

/// The version of the semantic conventions that the names are of.
pub const SEMCONV: &str = "1.45.0";

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace that it is in.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// The span above it, if there is one.
    pub parent: Option<SpanId>,
    /// Whether that is somebody else's.
    pub parent_is_remote: bool,
    /// The `tracestate` of the trace; may be empty.
    pub tracestate: String,
    /// What part it plays.
    pub kind: Kind,
    /// What it is called: the same for all of a kind.
    pub name: &'static str,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// What is said about it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened in it, and when.
    pub events: Vec<(&'static str, Timestamp)>,
    /// Spans that it has to do with.
    pub links: Vec<Link>,
    /// That it failed, if it did, and why: a stable name, or nothing where the answer's status says it.
    pub error: Option<Cow<'static, str>>,
}

/// What part a span plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It puts something into a queue.
    Producer,
    /// It takes something out of a queue.
    Consumer,
    /// It is a request to somebody else.
    Client,
}

/// A span that another one has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The trace that it is in.
    pub trace: TraceId,
    /// Its id.
    pub span: SpanId,
    /// What it is to the other: a stable name.
    pub relation: &'static str,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A fixed text.
    Name(&'static str),
    /// A text.
    Text(String),
    /// A text that others hold too.
    Shared(Arc<str>),
    /// A number.
    Number(i64),
}

/// An event, as its spans tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The event.
    pub event: EventId,
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// Its type.
    pub event_type: &'a EventType,
    /// The trace that it came with; may be empty.
    pub context: &'a TraceContext,
    /// 0 for the event's acceptance; counts replays.
    pub generation: u32,
}

impl<'a> Told<'a> {
    /// Tells of an event's acceptance.
    pub fn of(event: &'a Event) -> Self {
        let Event { id, tenant, event_type, trace, .. } = event;
        Self { event: *id, tenant, event_type, context: trace, generation: 0 }
    }

    /// Tells of a delivery's event, which came with that trace.
    pub fn of_delivery(delivery: &'a DeliveryRef, context: &'a TraceContext) -> Self {
        let DeliveryRef { event, tenant, event_type, generation, .. } = delivery;
        Self { event: *event, tenant, event_type, context, generation: *generation }
    }

    /// Where its spans are.
    pub fn place(&self) -> Place {
        Place::of(self.event, self.context, self.generation)
    }

    fn attributes(&self, more: usize) -> Vec<(&'static str, Value)> {
        let mut attributes = Vec::with_capacity(more + 6);
        attributes.extend([
            ("fanfare.tenant.id", Value::Shared(self.tenant.shared())),
            ("fanfare.event.id", Value::Text(self.event.to_string())),
            ("fanfare.event.type", Value::Shared(self.event_type.shared())),
        ]);
        if self.generation > 0 {
            attributes.push(("fanfare.replay", Value::Number(self.generation.into())));
        }
        attributes
    }
}

/// The taking in of an event: ingest wrote it to EVENTS between these times.
pub fn ingest(told: &Told<'_>, (start, end): (Timestamp, Timestamp)) -> Span {
    let place = told.place();
    let mut span = span(told, &place, (SpanId::ingest(told.event), place.parent), (start, end));
    span.parent_is_remote = true;
    span.attributes.extend(messaging("process", "process", "INBOX"));
    span
}

/// The matching of an event with its endpoints, until its deliveries were enqueued.
pub fn fan_out(told: &Told<'_>, targets: usize, (start, end): (Timestamp, Timestamp)) -> Span {
    let (place, original) = (told.place(), Place::of(told.event, told.context, 0));
    let is_replay = told.generation > 0;
    let parent = (!is_replay).then(|| SpanId::ingest(told.event));
    let ids = (SpanId::fan_out(told.event, told.generation), parent);
    let mut span = span(told, &place, ids, (start, end));
    span.name = "process EVENTS";
    span.attributes.extend(messaging("process", "process", "EVENTS"));
    let targets = i64::try_from(targets).unwrap_or(i64::MAX);
    span.attributes.extend([
        // What it is called in EVENTS, so that it is not stored twice.
        ("messaging.message.id", Value::Text(told.event.to_string())),
        ("fanfare.deliveries", Value::Number(targets)),
    ]);
    if is_replay {
        let link = SpanId::fan_out(told.event, 0);
        span.links.push(Link { trace: original.trace, span: link, relation: "replay_of" });
    }
    span
}

/// The making of a delivery, until it was enqueued.
pub fn delivery(
    delivery: &DeliveryRef,
    context: &TraceContext,
    (start, end): (Timestamp, Timestamp),
) -> Span {
    let told = Told::of_delivery(delivery, context);
    let parent = Some(SpanId::fan_out(delivery.event, delivery.generation));
    let ids = (SpanId::delivery(delivery.id), parent);
    let mut span = span(&told, &told.place(), ids, (start, end));
    (span.name, span.kind) = ("create DELIVERIES", Kind::Producer);
    span.attributes.extend(messaging("create", "create", "DELIVERIES"));
    let id = Arc::<str>::from(delivery.id.to_string());
    span.attributes.extend([
        ("messaging.message.id", Value::Shared(Arc::clone(&id))),
        ("fanfare.delivery.id", Value::Shared(id)),
        ("fanfare.endpoint.id", Value::Text(delivery.endpoint.to_string())),
    ]);
    span
}

fn span(
    told: &Told<'_>,
    place: &Place,
    (id, parent): (SpanId, Option<SpanId>),
    (start, end): (Timestamp, Timestamp),
) -> Span {
    // A replay's trace is our own, and nobody has said anything about its state.
    let state = if told.generation == 0 { told.context.tracestate.as_str() } else { "" };
    Span {
        trace: place.trace,
        id,
        parent,
        parent_is_remote: false,
        tracestate: String::from(state),
        kind: Kind::Consumer,
        name: "process INBOX",
        start,
        end: end.max(start),
        attributes: told.attributes(10),
        events: Vec::new(),
        links: Vec::new(),
        error: None,
    }
}

fn messaging(
    operation: &'static str,
    kind: &'static str,
    destination: &'static str,
) -> [(&'static str, Value); 4] {
    [
        ("messaging.system", Value::Name("nats")),
        ("messaging.operation.name", Value::Name(operation)),
        ("messaging.operation.type", Value::Name(kind)),
        ("messaging.destination.name", Value::Name(destination)),
    ]
}

#[cfg(test)]
mod tests;
