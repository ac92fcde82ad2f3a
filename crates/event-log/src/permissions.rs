//! What each user of a NATS that is locked down may do: the subjects that a service publishes and
//! subscribes to, and no others.
//!
//! It stands here, beside what publishes and subscribes, and is made of the same names. What is
//! forgotten shows in the test that runs every service with it, and in the servers' log.
//!
//! What NATS cannot tell apart, permissions cannot either. Who follows a stream may read all of it,
//! by a consumer of their own making. Who purges some of a stream may purge all of it. And a
//! consumer may be told to deliver to any subject of the account: who follows one stream can have its
//! messages put into another.

mod grant;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use fanfare_domain::TenantId;

use self::grant::Grant;
use crate::{
    durability,
    read::{FAN_OUT, INGEST},
    topology::{Bucket, Stream, Topology, inbox},
};

/// The tenant whose events are about the system itself.
const OPERATOR: &str = "operator";

/// A user of the account that the streams are in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The service of this name.
    Ingest,
    /// The service of this name.
    FanOut,
    /// The service of this name.
    Dispatcher,
    /// The service of this name.
    RetryScheduler,
    /// The service of this name.
    Projector,
    /// The service of this name.
    Api,
    /// Who makes the streams and puts them right, and does nothing else.
    Bootstrap,
    /// A person with the client: watches deliveries, and publishes for every tenant.
    Operator,
    /// Software that publishes for one tenant.
    Producer {
        /// The tenant.
        tenant: TenantId,
        /// How it may publish.
        ways: Ways,
    },
}

/// How a producer may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ways {
    /// To INBOX, and by requests. Who may publish to INBOX can name a message there by an id
    /// (`Nats-Msg-Id`) of another tenant's, which the servers then drop as a repeat, and can have the
    /// servers' acknowledgement stored on any subject, by naming that for the reply: only for
    /// software that is trusted as a service is.
    All,
    /// By requests alone: for the tenants' own software.
    Requests,
}

/// What a user may do; everything else is forbidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// The subjects that it may publish to, wildcards included.
    pub publish: BTreeSet<String>,
    /// Those among them that it may not.
    pub publish_not: BTreeSet<String>,
    /// The subjects that it may subscribe to.
    pub subscribe: BTreeSet<String>,
}

impl Role {
    /// The services, and who looks after the installation; producers are as many as there are.
    pub const FIXED: [Self; 8] = [
        Self::Ingest,
        Self::FanOut,
        Self::Dispatcher,
        Self::RetryScheduler,
        Self::Projector,
        Self::Api,
        Self::Bootstrap,
        Self::Operator,
    ];

    /// What the user may do in the installation with these names.
    pub fn permissions(&self, topology: &Topology) -> Permissions {
        let mut grant = Grant::new(topology);
        for name in self.connections() {
            grant.hears(&inbox(topology.prefix(), name));
        }
        match self {
            Self::Ingest => ingest(&mut grant),
            Self::FanOut => fan_out(&mut grant),
            Self::Dispatcher => dispatcher(&mut grant),
            Self::RetryScheduler => retry_scheduler(&mut grant),
            Self::Projector => projector(&mut grant),
            Self::Api => api(&mut grant),
            Self::Bootstrap => bootstrap(&mut grant),
            Self::Operator => operator(&mut grant),
            Self::Producer { tenant, ways } => {
                if *ways == Ways::All {
                    grant.publishes(&format!("inbox.{tenant}.>"));
                }
                grant.publishes(&format!("publish.{tenant}.>"));
                grant.hears(&producers_inbox(topology.prefix(), tenant.as_str()));
            }
        }
        grant.into_permissions()
    }

    /// What begins the subjects on which the user may receive answers.
    pub fn inbox(&self, topology: &Topology) -> String {
        match (self, self.connections()) {
            (Self::Producer { tenant, .. }, _) => {
                producers_inbox(topology.prefix(), tenant.as_str())
            }
            (_, [first, ..]) => inbox(topology.prefix(), first),
            (_, []) => String::from("_INBOX"),
        }
    }

    /// The names by which its connections are opened; each receives answers on subjects of its own.
    const fn connections(&self) -> &'static [&'static str] {
        match self {
            Self::Ingest => &["ingest", "ingest-inbox", "ingest-requests"],
            Self::FanOut => &["fan-out"],
            Self::Dispatcher => &["dispatcher"],
            Self::RetryScheduler => &["retry-scheduler"],
            Self::Projector => &["projector"],
            Self::Api => &["api"],
            Self::Bootstrap => &["bootstrap"],
            Self::Operator => &["client"],
            Self::Producer { .. } => &[],
        }
    }
}

/// Begins with the service's name, as it stands in settings.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingest",
            Self::FanOut => "fan-out",
            Self::Dispatcher => "dispatcher",
            Self::RetryScheduler => "retry-scheduler",
            Self::Projector => "projector",
            Self::Api => "api",
            Self::Bootstrap => "bootstrap",
            Self::Operator => OPERATOR,
            Self::Producer { tenant, .. } => return write!(f, "producer-{tenant}"),
        })
    }
}

/// What the user of the system account may do by whom services [check](crate::durability) what
/// the servers keep: ask every server how it keeps JetStream, and nothing else.
pub fn check(topology: &Topology) -> Permissions {
    let answers = format!("{}.>", inbox(topology.prefix(), durability::CHECK));
    Permissions {
        publish: BTreeSet::from([String::from(durability::QUESTION)]),
        publish_not: BTreeSet::new(),
        subscribe: BTreeSet::from([answers]),
    }
}

fn producers_inbox(prefix: &str, tenant: &str) -> String {
    format!("_INBOX.{prefix}.producer.{tenant}")
}

fn ingest(grant: &mut Grant<'_>) {
    grant.opens();
    grant.takes_over(Stream::Inbox, INGEST, None);
    grant.sets_aside(Stream::Inbox);
    // Looking for messages that break the connection, and removing them.
    grant.gets(&grant.stream(Stream::Inbox));
    grant.asks("STREAM.MSG.DELETE", &grant.stream(Stream::Inbox));
    grant.appends(Stream::Events, "events.>");
    grant.appends(Stream::Rejected, "rejected.*");
    grant.follows(&grant.stream(Stream::Config));
    grant.keeps(Bucket::Idempotency, ">");
    grant.is_member(INGEST);
    // The survey.
    for stream in Stream::ALL {
        grant.asks("CONSUMER.LIST", &grant.stream(stream));
    }
    grant.serves("publish");
    // Itself too: it asks whether it is heard.
    for who in ["client", "api", "producer", "ingest-requests"] {
        grant.answers(who);
    }
}

fn fan_out(grant: &mut Grant<'_>) {
    grant.opens();
    grant.takes(Stream::Events, FAN_OUT, None);
    grant.sets_aside(Stream::Events);
    grant.follows(&grant.stream(Stream::Events));
    grant.asks("CONSUMER.INFO", &format!("{}.{FAN_OUT}", grant.stream(Stream::Events)));
    grant.appends(Stream::Journal, "journal.routed");
    grant.sets_aside(Stream::Journal);
    grant.appends(Stream::Deliveries, "deliveries.*");
    grant.follows(&grant.stream(Stream::Config));
    grant.follows_bucket(Bucket::Feeds);
    grant.publishes("owner.*.fed");
    grant.keeps(Bucket::Allowances, ">");
    grant.follows(&grant.stream(Stream::Jobs));
    grant.publishes("jobs.replay.*");
    grant.is_member("replays");
}

fn dispatcher(grant: &mut Grant<'_>) {
    grant.opens();
    for (stream, subject) in [
        (Stream::Deliveries, "deliveries.*"),
        (Stream::Retries, "retries.due.*"),
        (Stream::Commands, "commands.*"),
    ] {
        // One for each shard: `dispatcher-<shard>`.
        grant.takes_over(stream, "*", Some(subject));
        grant.gets(&grant.stream(stream));
        grant.sets_aside(stream);
    }
    // Alarm clocks of deliveries that are ended, or tried now, are stopped.
    grant.asks("STREAM.PURGE", &grant.stream(Stream::Retries));
    grant.appends(Stream::Journal, "journal.*.attempts");
    grant.sets_aside(Stream::Journal);
    grant.follows(&grant.stream(Stream::Events));
    grant.asks("CONSUMER.INFO", &format!("{}.{FAN_OUT}", grant.stream(Stream::Events)));
    grant.follows(&grant.stream(Stream::Config));
    grant.follows_bucket(Bucket::Feeds);
    grant.keeps(Bucket::Feeds, ">");
    grant.is_member("dispatcher");
    for what in ["report", "fed", "try", "health"] {
        grant.subscribes(&format!("owner.*.{what}"));
    }
    grant.publishes("owner.*.report");
    for who in ["dispatcher", "api", "client"] {
        grant.answers(who);
    }
}

fn retry_scheduler(grant: &mut Grant<'_>) {
    grant.opens();
    grant.appends(Stream::Journal, "journal.*.plans");
    grant.sets_aside(Stream::Journal);
    grant.follows(&grant.stream(Stream::Config));
    grant.publishes("retries.at.*.*");
    grant.gets(&grant.stream(Stream::Retries));
    grant.asks("STREAM.PURGE", &grant.stream(Stream::Retries));
    grant.gets(&grant.bucket(Bucket::Feeds));
    grant.appends(Stream::Dead, "dead.*.*");
    // What operators are told, and the endpoints that are disabled.
    grant.appends(Stream::Events, &format!("events.{OPERATOR}.>"));
    grant.publishes("config.endpoint.*.*");
    grant.stores(Bucket::Snapshots);
    grant.is_member("retry-scheduler");
}

fn projector(grant: &mut Grant<'_>) {
    grant.opens();
    grant.follows(&grant.stream(Stream::Events));
    grant.follows(&grant.stream(Stream::Journal));
    grant.sets_aside(Stream::Journal);
    grant.follows(&grant.stream(Stream::Config));
}

fn api(grant: &mut Grant<'_>) {
    grant.opens();
    for stream in [Stream::Config, Stream::Jobs, Stream::Journal, Stream::Events] {
        grant.follows(&grant.stream(stream));
    }
    grant.sets_aside(Stream::Journal);
    grant.publishes("config.*.*.*");
    grant.publishes("jobs.replay.*");
    grant.publishes("commands.*");
    grant.publishes("publish.>");
    for what in ["try", "health"] {
        grant.publishes(&format!("owner.*.{what}"));
    }
    grant.keeps(Bucket::Idempotency, ">");
    grant.keeps(Bucket::KeyUses, ">");
    // Tenants that are expunged.
    for stream in [
        Stream::Inbox,
        Stream::Events,
        Stream::Rejected,
        Stream::Dead,
        Stream::Config,
        Stream::Jobs,
    ] {
        grant.asks("STREAM.PURGE", &grant.stream(stream));
    }
    for bucket in [Bucket::Idempotency, Bucket::Allowances] {
        grant.asks("STREAM.PURGE", &grant.bucket(bucket));
    }
}

fn bootstrap(grant: &mut Grant<'_>) {
    grant.opens();
    for stream in grant.all() {
        grant.asks("STREAM.CREATE", &stream);
        grant.asks("STREAM.UPDATE", &stream);
    }
}

fn operator(grant: &mut Grant<'_>) {
    grant.attaches();
    grant.follows(&grant.stream(Stream::Journal));
    for subject in ["inbox.>", "publish.>", "owner.*.health", "aside.JOURNAL"] {
        grant.publishes(subject);
    }
    grant.looks_for_services();
}
