//! Replays what happened and says which promises it breaks.
//!
//! The evidence is what the producer was told, what the event log holds, and what the endpoints
//! got. No service is asked, and nothing that a service says of itself counts.
//!
//! ```text
//! producer's acknowledgements ─┐
//! EVENTS, JOURNAL ─────────────┼─▶ check ─▶ violations, by the invariants of FAULTS
//! endpoints' requests ─────────┘
//! ```

mod attempts;
mod duplicates;
mod history;
mod routing;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    DeliveryId, EndpointId, EventId, Shard, StoredEvent, TenantId, Timestamp, TypePattern,
};
use fanfare_event_log::{Column, JournalBatch};

pub(crate) use history::{History, fold};

use super::{hooks::Seen, nemesis::Kill, producer::Acknowledged};

/// An endpoint, as the test made it.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    /// Its id.
    pub(crate) id: EndpointId,
    /// Whose it is.
    pub(crate) tenant: TenantId,
    /// What it wants.
    pub(crate) filters: Vec<TypePattern>,
    /// The path at which its requests arrive.
    pub(crate) path: String,
    /// How many attempts its policy allows.
    pub(crate) attempts_max: u32,
}

/// All that is known from outside of the services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// What was acknowledged.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// The endpoints, which did not change while events were published.
    pub(crate) subscribers: Vec<Subscriber>,
    /// EVENTS.
    pub(crate) events: Vec<StoredEvent>,
    /// JOURNAL.
    pub(crate) journal: Vec<JournalBatch>,
    /// JOURNAL, read a second time.
    pub(crate) journal_again: Vec<JournalBatch>,
    /// What the endpoints got.
    pub(crate) requests: Vec<Seen>,
    /// What was killed.
    pub(crate) kills: Vec<Kill>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// I1: an acknowledged event is not in EVENTS.
    EventLost(String),
    /// I1: it is there more than once.
    EventTwice(String, Vec<EventId>),
    /// I1: its data, type or tenant is another.
    EventAltered(String, EventId),
    /// I1: the producer was told another id than it has.
    EventRenamed(String, EventId),
    /// I2: an event has no routed fact, or not all parts of it.
    NotRouted(EventId),
    /// I2: it has routed facts that differ.
    RoutedDifferently(EventId),
    /// I2: an endpoint that wants it is not among its targets.
    TargetMissing(EventId, EndpointId),
    /// I2: an endpoint that does not want it is.
    TargetUnexpected(EventId, EndpointId),
    /// I2: a delivery that nobody routed.
    DeliveryUnexpected(DeliveryId),
    /// I2: its id is not the one that its event and endpoint give.
    DeliveryMisnamed(DeliveryId),
    /// I3: it has no conclusion.
    NotConcluded(DeliveryId),
    /// I3: it has several.
    ConcludedTwice(DeliveryId),
    /// I3: its conclusion is not the one that its attempts come to.
    ConcludedWrongly(DeliveryId),
    /// I3: something happened to it after its conclusion.
    AfterConclusion(DeliveryId),
    /// I4: the numbers of its attempts are not 1 to n in order.
    AttemptsNotInOrder(DeliveryId, Vec<u32>),
    /// I4: it has more attempts than the policy allows.
    TooManyAttempts(DeliveryId, u32),
    /// I4: a later attempt has no plan, or one for another time than its predecessor asked for.
    NotPlanned(DeliveryId, u32),
    /// I5: it is delivered, and its endpoint answered no request of it with 2xx.
    NotSeen(DeliveryId),
    /// I5: the endpoint is said to have answered, and it knows no such request.
    AnswerInvented(DeliveryId, u32),
    /// I6: a request of a delivery that does not exist.
    RequestUnknown(String),
    /// I6: a request that no attempt on record accounts for, without a crash near it.
    DuplicateUnexplained(DeliveryId, Timestamp),
    /// I6: more requests than attempts and crashes account for.
    TooManyRequests(DeliveryId, usize),
    /// I8: an attempt began before it was due.
    TooEarly(DeliveryId, u32),
    /// I9: two readings of JOURNAL give different states.
    FoldsDiffer,
    /// I9: facts of a shard are not in the order of its claims.
    ClaimsNotRising(Shard, Column),
}

/// What a run looked like, beside its violations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// How many deliveries there are, by their conclusion.
    pub(crate) conclusions: BTreeMap<&'static str, usize>,
    /// How many attempts are on record.
    pub(crate) attempts: usize,
    /// How many requests the endpoints got.
    pub(crate) requests: usize,
    /// How many of them no attempt on record accounts for.
    pub(crate) duplicates: usize,
    /// How late later attempts began, shortest first.
    pub(crate) lateness: Vec<Duration>,
    /// How many deliveries were put off.
    pub(crate) deferred: usize,
}

/// What a check comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Broken promises, in order.
    pub(crate) violations: Vec<Violation>,
    /// What the run looked like.
    pub(crate) report: Report,
}

impl Report {
    /// The lateness that so many hundredths of the later attempts do not exceed.
    pub(crate) fn lateness_percentile(&self, hundredths: usize) -> Duration {
        let last = self.lateness.len().saturating_sub(1);
        self.lateness.get(last * hundredths / 100).copied().unwrap_or_default()
    }
}

impl Verdict {
    /// Fails if a promise is broken, naming the first of each kind.
    pub(crate) fn into_result(self) -> anyhow::Result<Report> {
        let Self { violations, report } = self;
        if violations.is_empty() {
            return Ok(report);
        }
        let mut shown: Vec<&Violation> = violations.iter().collect();
        shown.dedup_by_key(|violation| std::mem::discriminant(*violation));
        anyhow::bail!("{} broken promises; of each kind the first: {shown:#?}", violations.len())
    }
}

/// Replays the evidence.
pub(crate) fn check(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    let histories = fold(&evidence.journal);
    let violations = &mut verdict.violations;
    routing::check_events(evidence, violations);
    routing::check_targets(evidence, &histories, violations);
    attempts::check(evidence, &histories, violations);
    duplicates::check(evidence, &histories, violations, &mut verdict.report.duplicates);
    if histories != fold(&evidence.journal_again) {
        violations.push(Violation::FoldsDiffer);
    }
    history::check_claims(&evidence.journal, violations);
    violations.sort();
    let report = &mut verdict.report;
    for history in histories.values() {
        let how = history.conclusion().map_or("open", |concluded| concluded.conclusion.as_str());
        *report.conclusions.entry(how).or_default() += 1;
        report.attempts += history.attempts.len();
        report.deferred += history.deferred.len();
        report.lateness.extend(history.lateness());
    }
    report.requests = evidence.requests.len();
    report.lateness.sort();
    verdict
}
