//! Streams, subjects, buckets and header names: every name that is on the wire, once.

use fanfare_domain::{DeliveryId, EndpointId, Entity, EventType, Shard, TenantId};

/// Header names that producers may set on INBOX messages and requests.
pub mod header {
    /// The producer's key for "this is the same event".
    pub const IDEMPOTENCY_KEY: &str = "Fanfare-Idempotency-Key";
    /// When it happened: RFC 3339.
    pub const OCCURRED_AT: &str = "Fanfare-Occurred-At";
    /// Events with the same key keep their order.
    pub const ORDERING_KEY: &str = "Fanfare-Ordering-Key";
    /// What the names of attribute headers begin with.
    pub const ATTRIBUTE_PREFIX: &str = "Fanfare-Attribute-";
    /// The media type of the payload.
    pub const CONTENT_TYPE: &str = "Content-Type";
    /// W3C trace context.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace context.
    pub const TRACESTATE: &str = "tracestate";
    /// On what ingest answers or refuses: the stable name of the reason.
    pub const REASON: &str = "Fanfare-Reason";
}

/// A stream of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What producers sent, until ingest has taken it.
    Inbox,
    /// What ingest refused, and records that nobody could read.
    Rejected,
    /// The event log.
    Events,
    /// First attempts.
    Deliveries,
    /// Later attempts, waiting or due.
    Retries,
    /// Facts about deliveries.
    Journal,
    /// Commands to the owner of a shard.
    Commands,
    /// Long jobs.
    Jobs,
    /// Exhausted deliveries.
    Dead,
    /// Configuration.
    Config,
}

/// The names of one installation.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
}

impl Topology {
    /// Names an installation by what its subjects begin with.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The name of a stream: the prefix in capitals, `_`, and the stream's, for example `FANFARE_EVENTS`.
    pub fn stream(&self, stream: Stream) -> String {
        let _ = stream;
        todo!()
    }

    /// `<prefix>.inbox.<tenant>.<type>`
    pub fn inbox(&self, tenant: &TenantId, event_type: &EventType) -> String {
        format!("{}.inbox.{tenant}.{event_type}", self.prefix)
    }

    /// `<prefix>.deliveries.<shard>`
    pub fn deliveries(&self, shard: Shard) -> String {
        format!("{}.deliveries.{shard}", self.prefix)
    }

    /// `<prefix>.retries.at.<shard>.<delivery>`
    pub fn retry_at(&self, shard: Shard, delivery: DeliveryId) -> String {
        format!("{}.retries.at.{shard}.{delivery}", self.prefix)
    }

    /// `<prefix>.dead.<tenant>.<endpoint>`
    pub fn dead(&self, tenant: &TenantId, endpoint: EndpointId) -> String {
        format!("{}.dead.{tenant}.{endpoint}", self.prefix)
    }

    /// `<prefix>.config.<kind>.<tenant>.<id>`; `-` stands for the operator.
    pub fn config(&self, entity: &Entity) -> String {
        let tenant = entity.tenant().map_or("-", TenantId::as_str);
        format!("{}.config.{}.{tenant}.{}", self.prefix, entity.kind(), entity.id_token())
    }
}
