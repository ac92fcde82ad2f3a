//! Streams, subjects, buckets and header names: every name that is on the wire, once.

use fanfare_domain::{
    DeliveryId, EndpointId, Entity, EventType, JobId, Shard, TenantId, TypePattern,
};

use crate::Column;

/// The metadata of JOURNAL that says how many shards there are.
pub(crate) const SHARDS: &str = "fanfare-shards";

/// Header names that producers may set on INBOX messages and requests, and those that Fanfare
/// sets on its own.
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
    /// On REJECTED: the reason in words.
    pub const DETAIL: &str = "Fanfare-Detail";
    /// On REJECTED: the first token of the subject that the message was sent to.
    pub const TENANT: &str = "Fanfare-Tenant";
    /// On REJECTED: the rest of the subject that the message was sent to.
    pub const EVENT_TYPE: &str = "Fanfare-Event-Type";
    /// On REJECTED: what the names of headers begin with that only the servers may act on.
    pub const ORIGINAL_PREFIX: &str = "Fanfare-Original-";
    /// On a record that was set aside: the stream that it was read from.
    pub const ASIDE_STREAM: &str = "Fanfare-Aside-Stream";
    /// On a record that was set aside: its sequence there.
    pub const ASIDE_SEQUENCE: &str = "Fanfare-Aside-Sequence";
    /// On a record that was set aside: its subject there.
    pub const ASIDE_SUBJECT: &str = "Fanfare-Aside-Subject";
    /// On a record that was set aside: what is wrong with it.
    pub const ASIDE_ERROR: &str = "Fanfare-Aside-Error";
    /// On a column of JOURNAL: the epoch of the writer's claim.
    pub const EPOCH: &str = "Fanfare-Epoch";
    /// On a column of JOURNAL: who wrote it.
    pub const OWNER: &str = "Fanfare-Owner";
    /// On a column of JOURNAL: which batch of its claim it is; 0 is the claim itself.
    pub const BATCH: &str = "Fanfare-Batch";
    /// On a report to the owner of a shard: the delivery.
    pub const DELIVERY: &str = "Fanfare-Delivery";
    /// On a trial: the endpoint.
    pub const ENDPOINT: &str = "Fanfare-Endpoint";
    /// On a trial: that the endpoint is not sent anything, but asked whether that may be done, and in
    /// whose name.
    pub const HANDSHAKE: &str = "Fanfare-Handshake";
    /// On a report to the owner of a shard: the number of the attempt.
    pub const ATTEMPT: &str = "Fanfare-Attempt";
    /// On tasks and retries: the JOURNAL sequence that they refer to.
    pub const JOURNAL_SEQUENCE: &str = "Fanfare-Journal-Sequence";
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

impl Stream {
    /// Every stream. JOURNAL comes first: it says how many shards there are.
    pub const ALL: [Self; 10] = [
        Self::Journal,
        Self::Inbox,
        Self::Rejected,
        Self::Events,
        Self::Deliveries,
        Self::Retries,
        Self::Commands,
        Self::Jobs,
        Self::Dead,
        Self::Config,
    ];

    /// Returns the name without the prefix of the installation, for example `EVENTS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "INBOX",
            Self::Rejected => "REJECTED",
            Self::Events => "EVENTS",
            Self::Deliveries => "DELIVERIES",
            Self::Retries => "RETRIES",
            Self::Journal => "JOURNAL",
            Self::Commands => "COMMANDS",
            Self::Jobs => "JOBS",
            Self::Dead => "DEAD",
            Self::Config => "CONFIG",
        }
    }
}

/// A bucket of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// Key-value: how much of tenants' rate limits is given out.
    Allowances,
    /// Key-value: idempotency keys, producers' and those of the API's callers, for 24 hours.
    Idempotency,
    /// Key-value: who takes part in a role, and who owns which shard.
    Owners,
    /// Key-value: which endpoints are fed from EVENTS, and how far.
    Feeds,
    /// Key-value: when API keys were last used, to the hour.
    KeyUses,
    /// Object store: snapshots of folds.
    Snapshots,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 6] = [
        Self::Allowances,
        Self::Idempotency,
        Self::Owners,
        Self::Feeds,
        Self::KeyUses,
        Self::Snapshots,
    ];
}

/// The names of one installation.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    upper: String,
}

impl Topology {
    /// Names an installation by what its subjects begin with.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), upper: prefix.to_ascii_uppercase() }
    }

    /// What every subject begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a stream: the prefix in capitals, `_`, and the stream's, for example `FANFARE_EVENTS`.
    pub fn stream(&self, stream: Stream) -> String {
        format!("{}_{}", self.upper, stream.as_str())
    }

    /// The name of a bucket, for example `FANFARE_owners`.
    pub fn bucket(&self, bucket: Bucket) -> String {
        let name = match bucket {
            Bucket::Allowances => "allowances",
            Bucket::Idempotency => "idempotency",
            Bucket::Owners => "owners",
            Bucket::Feeds => "feeds",
            Bucket::KeyUses => "key-uses",
            Bucket::Snapshots => "snapshots",
        };
        format!("{}_{name}", self.upper)
    }

    /// The name of the stream that a bucket is kept in.
    pub(crate) fn bucket_stream(&self, bucket: Bucket) -> String {
        let kind = match bucket {
            Bucket::Allowances
            | Bucket::Idempotency
            | Bucket::Owners
            | Bucket::Feeds
            | Bucket::KeyUses => "KV",
            Bucket::Snapshots => "OBJ",
        };
        format!("{kind}_{}", self.bucket(bucket))
    }

    /// The subjects that a stream takes.
    pub(crate) fn subjects(&self, stream: Stream) -> Vec<String> {
        let prefix = &self.prefix;
        match stream {
            Stream::Inbox => vec![format!("{prefix}.inbox.>")],
            Stream::Rejected => vec![format!("{prefix}.rejected.>"), format!("{prefix}.aside.>")],
            Stream::Events => vec![format!("{prefix}.events.>")],
            Stream::Deliveries => vec![format!("{prefix}.deliveries.*")],
            Stream::Retries => {
                vec![format!("{prefix}.retries.at.*.*"), format!("{prefix}.retries.due.*")]
            }
            Stream::Journal => {
                vec![format!("{prefix}.journal.*.*"), format!("{prefix}.journal.routed")]
            }
            Stream::Commands => vec![format!("{prefix}.commands.*")],
            Stream::Jobs => vec![format!("{prefix}.jobs.>")],
            Stream::Dead => vec![format!("{prefix}.dead.>")],
            Stream::Config => vec![format!("{prefix}.config.>")],
        }
    }

    /// `<prefix>.inbox.<tenant>.<type>`
    pub fn inbox(&self, tenant: &TenantId, event_type: &EventType) -> String {
        [&self.prefix, ".inbox.", tenant.as_str(), ".", event_type.as_str()].concat()
    }

    /// `<prefix>.rejected.<tenant>`; `_` stands for what cannot be a tenant's id.
    pub fn rejected(&self, tenant: Option<&TenantId>) -> String {
        format!("{}.rejected.{}", self.prefix, tenant.map_or("_", TenantId::as_str))
    }

    /// `<prefix>.aside.<stream>`, for example `fanfare.aside.EVENTS`
    pub fn aside(&self, stream: Stream) -> String {
        format!("{}.aside.{}", self.prefix, stream.as_str())
    }

    /// `<prefix>.events.<tenant>.<type>`
    pub fn event(&self, tenant: &TenantId, event_type: &EventType) -> String {
        [&self.prefix, ".events.", tenant.as_str(), ".", event_type.as_str()].concat()
    }

    /// A subject under which all events of a tenant are that some patterns choose, and maybe more:
    /// `<prefix>.events.<tenant>.` and the pattern, or what several have in common.
    pub(crate) fn events_like(&self, tenant: &TenantId, patterns: &[TypePattern]) -> String {
        let root = format!("{}.events.{tenant}", self.prefix);
        let (first, others) = match patterns {
            [] => return format!("{root}.>"),
            [only] => return format!("{root}.{only}"),
            [first, others @ ..] => (first, others),
        };
        let mut common = Vec::new();
        for (index, token) in first.tokens().enumerate() {
            let is_shared = |other: &TypePattern| other.tokens().nth(index) == Some(token);
            // Behind what they have in common each of them needs one token at least.
            let has_more = |other: &TypePattern| other.tokens().nth(index + 1).is_some();
            let fits = others.iter().all(|other| is_shared(other) && has_more(other));
            if token == ">" || !fits || !has_more(first) {
                break;
            }
            common.push(token);
        }
        common.push(">");
        format!("{root}.{}", common.join("."))
    }

    /// `<prefix>.events.<tenant>.>`: all events of a tenant.
    pub fn events_of(&self, tenant: &TenantId) -> String {
        format!("{}.events.{tenant}.>", self.prefix)
    }

    /// `<prefix>.deliveries.<shard>`
    pub fn deliveries(&self, shard: Shard) -> String {
        format!("{}.deliveries.{shard}", self.prefix)
    }

    /// `<prefix>.retries.at.<shard>.<delivery>`
    pub fn retry_at(&self, shard: Shard, delivery: DeliveryId) -> String {
        format!("{}.retries.at.{shard}.{delivery}", self.prefix)
    }

    /// `<prefix>.retries.at.<shard>.*`: all that is scheduled in a shard.
    pub(crate) fn retries_at(&self, shard: Shard) -> String {
        format!("{}.retries.at.{shard}.*", self.prefix)
    }

    /// `<prefix>.retries.due.<shard>`
    pub fn retry_due(&self, shard: Shard) -> String {
        format!("{}.retries.due.{shard}", self.prefix)
    }

    /// `<prefix>.commands.<shard>`
    pub fn command(&self, shard: Shard) -> String {
        format!("{}.commands.{shard}", self.prefix)
    }

    /// `<prefix>.jobs.replay.<id>`
    pub fn replay(&self, job: JobId) -> String {
        format!("{}.jobs.replay.{job}", self.prefix)
    }

    /// `<prefix>.jobs.replay.*`: all replays.
    pub(crate) fn replays(&self) -> String {
        format!("{}.jobs.replay.*", self.prefix)
    }

    /// `<prefix>.journal.<shard>.<column>`
    pub fn journal(&self, shard: Shard, column: Column) -> String {
        format!("{}.journal.{shard}.{}", self.prefix, column.as_str())
    }

    /// `<prefix>.owner.<shard>.report`; no stream takes it.
    pub(crate) fn owner_report(&self, shard: Shard) -> String {
        format!("{}.owner.{shard}.report", self.prefix)
    }

    /// `<prefix>.owner.<shard>.fed`; no stream takes it.
    pub(crate) fn owner_fed(&self, shard: Shard) -> String {
        format!("{}.owner.{shard}.fed", self.prefix)
    }

    /// `<prefix>.owner.<shard>.try`; no stream takes it.
    pub(crate) fn owner_try(&self, shard: Shard) -> String {
        format!("{}.owner.{shard}.try", self.prefix)
    }

    /// `<prefix>.owner.<shard>.health`; no stream takes it.
    pub(crate) fn owner_health(&self, shard: Shard) -> String {
        format!("{}.owner.{shard}.health", self.prefix)
    }

    /// `<prefix>.journal.routed`
    pub fn routed(&self) -> String {
        format!("{}.journal.routed", self.prefix)
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

    /// Tells whether a question may be answered on a subject. The servers check what somebody publishes
    /// to, and not where the answer is to go: an answer is published with our permissions, and would be
    /// stored by whatever stream has the subject. All that is stored begins with the prefix, or with `$`.
    pub(crate) fn may_answer(&self, reply: &str) -> bool {
        let own = reply.strip_prefix(self.prefix.as_str());
        !reply.starts_with('$') && !own.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The tokens of a subject of this installation after `<prefix>.<kind>.`.
    pub(crate) fn tokens<'a>(&self, subject: &'a str, kind: &str) -> Option<&'a str> {
        let rest = subject.strip_prefix(self.prefix.as_str())?.strip_prefix('.')?;
        rest.strip_prefix(kind)?.strip_prefix('.')
    }

    /// Whose batch a message of JOURNAL is; `None` for routed facts and foreign subjects.
    pub(crate) fn column(&self, subject: &str) -> Option<(Shard, Column)> {
        let (shard, column) = self.tokens(subject, "journal")?.split_once('.')?;
        Some((Shard::from_index(shard.parse().ok()?), Column::parse(column)?))
    }
}

/// `_INBOX.<prefix>.<name>`: what begins the subjects of answers to a connection of this name.
pub(crate) fn inbox(prefix: &str, name: &str) -> String {
    let plain = |symbol: char| if symbol.is_ascii_alphanumeric() { symbol } else { '-' };
    let token: String = name.chars().map(plain).collect();
    format!("_INBOX.{prefix}.{token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_where_nothing_is_stored() {
        let topology = Topology::new("fanfare");
        for reply in
            ["_INBOX.fanfare.client.a.b", "_INBOX.a", "fanfares.answers", "answers.fanfare"]
        {
            assert!(topology.may_answer(reply), "{reply}");
        }
        for reply in ["fanfare", "fanfare.events.acme.a", "$KV.FANFARE_owners.a", "$JS.API.INFO"] {
            assert!(!topology.may_answer(reply), "{reply}");
        }
    }

    #[test]
    fn names_begin_with_the_prefix() {
        let topology = Topology::new("fanfare");
        assert_eq!(topology.stream(Stream::Events), "FANFARE_EVENTS");
        assert_eq!(topology.bucket_stream(Bucket::Owners), "KV_FANFARE_owners");
        let tenant = "acme".parse().unwrap();
        let subject = topology.inbox(&tenant, &"invoice.paid".parse().unwrap());
        assert_eq!(subject, "fanfare.inbox.acme.invoice.paid");
        assert_eq!(topology.tokens(&subject, "inbox"), Some("acme.invoice.paid"));
        assert_eq!(topology.tokens(&subject, "in"), None);
    }

    #[test]
    fn what_several_patterns_have_in_common_is_one_subject() {
        let (topology, tenant) = (Topology::new("fanfare"), "acme".parse().unwrap());
        for (patterns, expected) in [
            (&["invoice.paid"][..], "invoice.paid"),
            (&["invoice.*", "invoice.paid.late"], "invoice.>"),
            (&["invoice", "invoice.paid"], ">"),
            (&["a.b.c", "a.b.d"], "a.b.>"),
            (&["a.*.c", "a.*.d"], "a.*.>"),
            (&["a.>", "a.b"], "a.>"),
            (&["a.b", "c.d"], ">"),
        ] {
            let patterns: Vec<_> = patterns.iter().map(|text| text.parse().unwrap()).collect();
            let subject = topology.events_like(&tenant, &patterns);
            assert_eq!(subject, format!("fanfare.events.acme.{expected}"));
        }
    }

    #[test]
    fn a_column_is_read_back_from_its_subject() {
        let topology = Topology::new("fanfare");
        let shard = Shard::from_index(7);
        for column in [Column::Attempts, Column::Plans] {
            let subject = topology.journal(shard, column);
            assert_eq!(topology.column(&subject), Some((shard, column)));
        }
        assert_eq!(topology.column(&topology.routed()), None);
        assert_eq!(topology.column("fanfare.journal.x.attempts"), None);
        assert_eq!(topology.column("other.journal.7.attempts"), None);
    }
}
