//! What the journal says of the deliveries of a time: which failed, or which there were.
//!
//! Memory is bounded: where there is too much, the survey covers the first part of the time, and
//! another one is made for the rest. So is the time for which it reads without a pause: a long journal
//! is read in parts, and others have their turns in between.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    Conclusion, DeliveryRef, EndpointId, Fact, TenantId,
    fact::{ConclusionReason, DeliveryConcluded},
    job::{Range, Which},
};
use fanfare_event_log::{Column, EventLog, JournalFilter, ReadError, journal::From};

use super::pace::Part;

/// How far the clocks of servers may be apart.
const SKEW: Duration = Duration::from_mins(1);

/// How many messages of the journal, and about how many facts, are read without a pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) messages: usize,
    pub(super) facts: usize,
}

impl Default for Stretch {
    fn default() -> Self {
        Self { messages: 8_192, facts: 65_536 }
    }
}

/// How a delivery of an event stands: that of the latest replay counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    generation: u32,
    has_failed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Survey {
    tenant: TenantId,
    range: Range,
    /// That of the replay that asks.
    generation: u32,
    from: u64,
    /// The first sequence behind that which is not covered.
    covers: u64,
    /// Where it was to end.
    end: u64,
    entries_max: usize,
    entries: BTreeMap<(u64, EndpointId), Known>,
    /// Up to where the journal is read; `None` if nothing is.
    read_to: Option<u64>,
    /// Where the journal ended when reading began.
    last: u64,
}

impl Survey {
    /// Begins one about events of a time with sequences from `from` on, and before `end`, that
    /// remembers so many deliveries at most.
    pub(super) async fn begin(
        log: &EventLog,
        (tenant, range, generation): (&TenantId, Range, u32),
        (from, end): (u64, u64),
        entries_max: usize,
    ) -> Result<Self, ReadError> {
        let mut survey = Self::new((tenant.clone(), range, generation), (from, end), entries_max);
        survey.last = log.journal_last().await?;
        Ok(survey)
    }

    /// Reads some more of what is on record; tells whether that was all.
    pub(super) async fn read_on(
        &mut self,
        log: &EventLog,
        stretch: Stretch,
    ) -> Result<bool, ReadError> {
        let from = self.read_to.map_or_else(
            || From::Time(self.range.since.saturating_sub(SKEW)),
            |read_to| From::Sequence(read_to.saturating_add(1)),
        );
        let mut reader = log.journal(self.filter(log), from).await?.brief();
        let (mut messages, mut facts) = (0, 0);
        while messages < stretch.messages && facts < stretch.facts {
            let Some(batch) = reader.next_until(self.last).await? else { return Ok(true) };
            for record in &batch.facts {
                self.note(&record.fact);
            }
            self.read_to = Some(batch.sequence);
            messages += 1;
            facts += batch.facts.len();
        }
        Ok(false)
    }

    fn filter(&self, log: &EventLog) -> JournalFilter {
        match (self.range.which, self.range.endpoint) {
            (Which::Missing | Which::All, _) => JournalFilter::Routed,
            (Which::Failed | Which::Exhausted, Some(only)) => {
                JournalFilter::Column(log.shards().of(only), Column::Attempts)
            }
            (Which::Failed | Which::Exhausted, None) => JournalFilter::Deliveries,
        }
    }

    fn new(
        (tenant, range, generation): (TenantId, Range, u32),
        (from, end): (u64, u64),
        entries_max: usize,
    ) -> Self {
        let (entries, read_to, last) = (BTreeMap::new(), None, 0);
        let covers = end;
        Self { tenant, range, generation, from, covers, end, entries_max, entries, read_to, last }
    }

    /// How many deliveries are remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first sequence behind its beginning about which it says nothing.
    pub(super) fn covers(&self) -> u64 {
        self.covers
    }

    /// Tells whether it says something about what comes from there on.
    pub(super) fn reaches(&self, from: u64) -> bool {
        self.from <= from && (from < self.covers || self.covers >= self.end)
    }

    /// Tells whether there was a delivery.
    pub(super) fn knows(&self, sequence: u64, endpoint: EndpointId) -> bool {
        self.entries.contains_key(&(sequence, endpoint))
    }

    /// Takes the first deliveries of a part that failed, about so many: those of one event come
    /// together. Also returns up to where there are no more.
    pub(super) fn take_failed(
        &mut self,
        part: &Part<'_>,
        count: usize,
    ) -> (Vec<(u64, EndpointId)>, u64) {
        let (mut failed, mut passed) = (Vec::<(u64, EndpointId)>::new(), Vec::new());
        let mut next = self.covers.min(part.until);
        let lowest = (part.from, EndpointId::from_bytes([0; 16]));
        for (key @ (sequence, endpoint), known) in self.entries.range(lowest..) {
            let is_another = failed.last().is_some_and(|(last, _)| last != sequence);
            if *sequence >= next || (is_another && failed.len() >= count) {
                next = next.min(*sequence);
                break;
            }
            if part.has(*endpoint) {
                passed.push(*key);
                failed.extend(known.has_failed.then_some(*key));
            }
        }
        for key in passed {
            self.entries.remove(&key);
        }
        (failed, next)
    }

    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::DeliveryConcluded(concluded) => {
                let has_failed = has_failed(self.range.which, concluded);
                self.note_delivery(&concluded.delivery, has_failed);
            }
            Fact::AttemptMade(made) => self.note_delivery(&made.delivery, false),
            Fact::DeliveryDeferred(deferred) => self.note_delivery(&deferred.delivery, false),
            Fact::DeliveryParked(parked) => self.note_delivery(&parked.delivery, false),
            // What this very replay has routed may never have become a task.
            Fact::EventRouted(routed)
                if routed.tenant == self.tenant && routed.generation != self.generation =>
            {
                let known = Known { generation: routed.generation, has_failed: false };
                for endpoint in routed.targets.iter().chain(&routed.fed) {
                    let is_meant = self.range.endpoint.is_none_or(|only| only == *endpoint);
                    if is_meant && self.is_within(routed.event_sequence) {
                        self.keep((routed.event_sequence, *endpoint), known);
                    }
                }
            }
            Fact::EventRouted(_)
            | Fact::RetryScheduled(_)
            | Fact::ShardClaimed(_)
            | Fact::ShardReleased(_) => {}
        }
    }

    fn note_delivery(&mut self, delivery: &DeliveryRef, has_failed: bool) {
        let key = (delivery.event_sequence, delivery.endpoint);
        let generation = delivery.generation;
        let is_meant = self.range.endpoint.is_none_or(|only| only == delivery.endpoint)
            && delivery.tenant == self.tenant
            && self.is_within(delivery.event_sequence)
            && self.range.covers(delivery.event.time(), &delivery.event_type);
        // Nothing has to be known of those that did not fail, unless they are replays themselves.
        let is_news = has_failed || generation > 0 || self.entries.contains_key(&key);
        if is_meant && is_news {
            self.keep(key, Known { generation, has_failed });
        }
    }

    fn is_within(&self, sequence: u64) -> bool {
        (self.from..self.covers).contains(&sequence)
    }

    fn keep(&mut self, key: (u64, EndpointId), known: Known) {
        let entry = self.entries.entry(key).or_insert(known);
        if known.generation >= entry.generation {
            *entry = known;
        }
        while self.entries.len() > self.entries_max {
            // All of one event, so that it is covered or not.
            let Some((last, _)) = self.entries.last_key_value().map(|(key, _)| *key) else {
                return;
            };
            let lowest = EndpointId::from_bytes([0; 16]);
            drop(self.entries.split_off(&(last, lowest)));
            self.covers = last.max(self.from.saturating_add(1)).min(self.end);
        }
    }
}

/// Tells whether what ended so is to be made again. What a person cancelled was not to be made.
fn has_failed(which: Which, concluded: &DeliveryConcluded) -> bool {
    let DeliveryConcluded { conclusion, reason, .. } = concluded;
    match which {
        Which::Exhausted => *conclusion == Conclusion::Exhausted,
        Which::Failed | Which::All | Which::Missing => {
            *conclusion != Conclusion::Delivered && *reason != ConclusionReason::ByHand
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{DeliveryId, EventId, Timestamp, fact::DeliveryParked};

    use super::*;
    use crate::replays::pace::{Behind, Whose};

    fn most(behind: &Behind, from: u64) -> Part<'_> {
        Part { whose: Whose::Most, behind, from, until: u64::MAX }
    }

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 16])
    }

    fn delivery(sequence: u64, to: u8, generation: u32) -> DeliveryRef {
        let event = EventId::new(Timestamp::from_millis(1_000 + sequence), [1; 10]);
        DeliveryRef {
            id: DeliveryId::of(event, endpoint(to), generation),
            tenant: "acme".parse().unwrap(),
            event,
            event_sequence: sequence,
            event_type: "a.b".parse().unwrap(),
            endpoint: endpoint(to),
            generation,
            accepted_at: Timestamp::EPOCH,
        }
    }

    fn ended(sequence: u64, to: u8, generation: u32, conclusion: Conclusion) -> Fact {
        let (delivery, reason) = (delivery(sequence, to, generation), ConclusionReason::Outcome);
        Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts: 1, reason })
    }

    fn survey(entries_max: usize) -> Survey {
        let at = Timestamp::from_millis;
        let (since, until, types) = (at(1_000), at(2_000), vec!["a.*".parse().unwrap()]);
        let range = Range { endpoint: None, since, until, types, which: Which::Failed };
        Survey::new(("acme".parse().unwrap(), range, 99), (10, 100), entries_max)
    }

    #[test]
    fn the_latest_replay_says_whether_a_delivery_failed() {
        let mut survey = survey(100);
        let parked = |sequence, generation| {
            let delivery = delivery(sequence, 1, generation);
            Fact::DeliveryParked(DeliveryParked { delivery, attempt: 1 })
        };
        for fact in [
            ended(10, 1, 0, Conclusion::Exhausted),
            ended(11, 1, 0, Conclusion::Delivered),
            ended(12, 1, 0, Conclusion::Refused),
            ended(12, 1, 5, Conclusion::Delivered),
            ended(13, 1, 5, Conclusion::Delivered),
            ended(13, 1, 0, Conclusion::Cancelled),
            ended(14, 1, 0, Conclusion::Cancelled),
            parked(14, 6),
            ended(15, 1, 0, Conclusion::Delivered),
            ended(15, 1, 7, Conclusion::Exhausted),
            // Not meant.
            ended(9, 1, 0, Conclusion::Exhausted),
            ended(100, 1, 0, Conclusion::Exhausted),
        ] {
            survey.note(&fact);
        }
        let behind = Behind::new();
        let failed = survey.take_failed(&most(&behind, 10), 9);
        assert_eq!(failed, (vec![(10, endpoint(1)), (15, endpoint(1))], 100));
    }

    #[test]
    fn who_is_behind_takes_its_own_later() {
        let mut survey = survey(100);
        for sequence in 20..25 {
            for to in [1, 2] {
                survey.note(&ended(sequence, to, 0, Conclusion::Exhausted));
            }
        }
        let behind = Behind::from([(endpoint(2), 21)]);
        let (failed, next) = survey.take_failed(&most(&behind, 21), 2);
        assert_eq!((failed, next), (vec![(21, endpoint(1)), (22, endpoint(1))], 23));
        let whose = Whose::One(endpoint(2));
        let its = Part { whose, behind: &behind, from: 21, until: 23 };
        let (failed, next) = survey.take_failed(&its, 9);
        assert_eq!((failed, next), (vec![(21, endpoint(2)), (22, endpoint(2))], 23));
        let none = Behind::new();
        let (failed, next) = survey.take_failed(&most(&none, 23), 9);
        assert_eq!((failed.len(), next), (4, 100));
    }

    #[test]
    fn what_a_person_cancelled_is_not_made_again() {
        let of = |sequence, conclusion, reason| {
            let delivery = delivery(sequence, 1, 0);
            Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts: 1, reason })
        };
        let facts = [
            of(10, Conclusion::Cancelled, ConclusionReason::ByHand),
            of(11, Conclusion::Cancelled, ConclusionReason::EndpointDisabled),
            of(12, Conclusion::Refused, ConclusionReason::Outcome),
            of(13, Conclusion::Exhausted, ConclusionReason::AttemptsSpent),
            ended(14, 1, 0, Conclusion::Exhausted),
            // A person did not want it made again either.
            Fact::DeliveryConcluded(DeliveryConcluded {
                delivery: delivery(14, 1, 3),
                conclusion: Conclusion::Cancelled,
                attempts: 0,
                reason: ConclusionReason::ByHand,
            }),
        ];
        for (which, expected) in [(Which::Failed, &[11, 12, 13][..]), (Which::Exhausted, &[13])] {
            let mut survey = survey(100);
            survey.range.which = which;
            for fact in &facts {
                survey.note(fact);
            }
            let behind = Behind::new();
            let (failed, _) = survey.take_failed(&most(&behind, 10), 9);
            let sequences: Vec<u64> = failed.iter().map(|(sequence, _)| *sequence).collect();
            assert_eq!(sequences, expected, "{which:?}");
        }
    }

    #[test]
    fn what_is_too_much_is_left_to_another_survey() {
        let mut survey = survey(4);
        for sequence in [20, 40, 30, 50] {
            for to in [1, 2] {
                survey.note(&ended(sequence, to, 0, Conclusion::Exhausted));
            }
        }
        assert_eq!(survey.covers(), 40);
        assert_eq!([9, 10, 39, 40].map(|from| survey.reaches(from)), [false, true, true, false]);
        let behind = Behind::new();
        let (first, next) = survey.take_failed(&most(&behind, 10), 1);
        assert_eq!((first, next), (vec![(20, endpoint(1)), (20, endpoint(2))], 30));
        let (second, next) = survey.take_failed(&most(&behind, next), 1);
        assert_eq!((second.len(), next), (2, 40));
    }
}
