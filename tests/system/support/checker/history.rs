//! What the journal says of each delivery: a fold of the test's own, apart from the services'.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    DeliveryId, DeliveryRef, Fact, Timestamp,
    fact::{AttemptMade, DeliveryConcluded, DeliveryDeferred, RetryScheduled},
};
use fanfare_event_log::JournalBatch;

use super::Violation;

/// All facts about one delivery, each kind in the order of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// The delivery.
    pub(crate) delivery: DeliveryRef,
    /// The attempts.
    pub(crate) attempts: Vec<AttemptMade>,
    /// The plans for later ones.
    pub(crate) plans: Vec<RetryScheduled>,
    /// When it was put off.
    pub(crate) deferred: Vec<DeliveryDeferred>,
    /// How often it was parked.
    pub(crate) parked: usize,
    /// Its conclusions: one, if all is well.
    pub(crate) conclusions: Vec<DeliveryConcluded>,
    /// How many facts of the dispatcher's came after a conclusion.
    pub(crate) after: usize,
}

impl History {
    fn new(delivery: &DeliveryRef) -> Self {
        Self {
            delivery: delivery.clone(),
            attempts: Vec::new(),
            plans: Vec::new(),
            deferred: Vec::new(),
            parked: 0,
            conclusions: Vec::new(),
            after: 0,
        }
    }

    /// Its first conclusion.
    pub(crate) fn conclusion(&self) -> Option<&DeliveryConcluded> {
        self.conclusions.first()
    }

    /// When an attempt was due: as the one before asked for, or as it was put off.
    pub(crate) fn due(&self, attempt: u32) -> Option<Timestamp> {
        let before = self.attempts.iter().find(|made| made.attempt + 1 == attempt)?;
        let deferred = self.deferred.iter().filter(|deferred| deferred.attempt == attempt);
        deferred.map(|deferred| deferred.until).chain(before.retry_at).max()
    }

    /// How late each later attempt began.
    pub(crate) fn lateness(&self) -> impl Iterator<Item = Duration> {
        let late = |made: &AttemptMade| Some(made.started_at.since(self.due(made.attempt)?));
        self.attempts.iter().filter_map(late)
    }

    fn apply(&mut self, fact: &Fact) {
        let concluded = !self.conclusions.is_empty();
        match fact {
            Fact::AttemptMade(made) => self.attempts.push((**made).clone()),
            Fact::DeliveryDeferred(deferred) => self.deferred.push(deferred.clone()),
            Fact::DeliveryParked(_) => self.parked += 1,
            Fact::DeliveryConcluded(concluded) => self.conclusions.push(concluded.clone()),
            Fact::RetryScheduled(scheduled) => {
                // The scheduler may plan what was concluded meanwhile: another writer.
                self.plans.push(scheduled.clone());
                return;
            }
            Fact::ShardClaimed(_) | Fact::ShardReleased(_) | Fact::EventRouted(_) => return,
        }
        self.after += usize::from(concluded);
    }
}

/// Folds the journal into the history of each delivery.
pub(crate) fn fold(journal: &[JournalBatch]) -> BTreeMap<DeliveryId, History> {
    let mut histories = BTreeMap::new();
    for fact in journal.iter().flat_map(|batch| &batch.facts).map(|record| &record.fact) {
        if let Some(delivery) = fact.delivery() {
            let history = histories.entry(delivery.id).or_insert_with(|| History::new(delivery));
            history.apply(fact);
        }
    }
    histories
}

/// Checks that the claims of each column rise, and that a column begins with one.
pub(super) fn check_claims(journal: &[JournalBatch], violations: &mut Vec<Violation>) {
    let mut epochs = BTreeMap::new();
    for batch in journal {
        let Some(column) = batch.column else { continue };
        let claims = batch.facts.iter().filter_map(|record| match &record.fact {
            Fact::ShardClaimed(claimed) => Some(claimed.epoch),
            Fact::ShardReleased(_)
            | Fact::AttemptMade(_)
            | Fact::DeliveryDeferred(_)
            | Fact::DeliveryParked(_)
            | Fact::DeliveryConcluded(_)
            | Fact::RetryScheduled(_)
            | Fact::EventRouted(_) => None,
        });
        for epoch in claims {
            let before = epochs.insert(column, epoch);
            if before.is_some_and(|before| before >= epoch) {
                violations.push(Violation::ClaimsNotRising(column.0, column.1));
            }
        }
        if !epochs.contains_key(&column) {
            violations.push(Violation::ClaimsNotRising(column.0, column.1));
        }
    }
}
