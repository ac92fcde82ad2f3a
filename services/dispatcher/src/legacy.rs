//! What owners of a shard leave to those after them.
//!
//! An owner that gives its shard away writes it down: the requests that run on, where the rate limits
//! stand, which endpoints asked to be left alone, and what breakers and windows have come to. One that
//! died left nothing: who asked to be left alone, and where breakers stand, is told by the facts of
//! late; of what is in flight the next owner has to assume the worst: see [`Fate::Died`].

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    BatchId, BreakerMemory, DeliveryId, EndpointId, Fact, Record, Shard, Timestamp, TraceContext,
    fact::{AttemptMade, InFlight, LimitState, ShardReleased},
    retry::StatusSet,
};
use fanfare_event_log::membership::TAKEOVER_AFTER;

use crate::{
    guard::CONFIRMED_FOR,
    lanes::{Breaker, Signal, quiet_until},
};

/// How long after a request's end its report may come: clocks are that far apart, and a report
/// takes its time.
pub(crate) const MARGIN: Duration = Duration::from_secs(2);

/// How many parts of a release are written at once: below 27 KiB each.
pub(crate) const TOGETHER_MAX: usize = 24;

/// For how long at least an owner that died had begun no request when its shard was claimed: it
/// was dead for [`TAKEOVER_AFTER`], and its lease let it begin none later than [`CONFIRMED_FOR`].
/// One that ended otherwise without a word closed its connections itself.
pub(crate) const SILENT_FOR: Duration = TAKEOVER_AFTER.saturating_sub(CONFIRMED_FOR);

/// What became of the owner before us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// There was none.
    None,
    /// It gave the shard away: what it left is known.
    Released {
        /// Rate limits that it did not mention had at most used up their burst then.
        limits_since: Timestamp,
    },
    /// It died. Whatever was handed out to it and is not on record may be in flight.
    ///
    /// Nothing tells which of it is: what waited in its lanes looks the same as what it had sent.
    /// So an endpoint for which anything was waiting counts as full, up to its cap, until the
    /// last request that the dead can have begun is over: a busy endpoint that is given 30 s to
    /// answer stands for 27.7 s after the shard was taken over. A crash closes the connections,
    /// but not what the receiver began, and a cut cable does not even close the connections; a
    /// cap that holds only while nothing goes wrong would not be one. Endpoints for which nothing
    /// waited go on at once, and so do those that have an attempt time-out below
    /// [`SILENT_FOR`].
    Died,
}

/// A fold over a shard's facts: what was left, and is not on record.
#[derive(Debug, Default)]
pub(crate) struct Legacy {
    in_flight: BTreeMap<DeliveryId, InFlight>,
    /// Until when endpoints asked to be left alone.
    quiet: BTreeMap<EndpointId, Timestamp>,
    /// What speaks against endpoints, each with the batch that was the last to.
    breakers: BTreeMap<EndpointId, (Breaker, Option<BatchId>)>,
    last: Option<Release>,
}

/// What was left.
pub(crate) struct Left {
    /// Requests that may still be in flight.
    pub(crate) in_flight: Vec<InFlight>,
    /// Where rate limits stand.
    pub(crate) limits: Vec<LimitState>,
    /// Until when endpoints asked to be left alone.
    pub(crate) quiet: BTreeMap<EndpointId, Timestamp>,
    /// What breakers have come to, of every endpoint that failed.
    pub(crate) breakers: BTreeMap<EndpointId, BreakerMemory>,
}

/// The last release, as far as its parts were read.
#[derive(Debug)]
struct Release {
    epoch: u64,
    limits_since: Timestamp,
    limits: Vec<LimitState>,
    parts_left: u32,
}

impl Legacy {
    /// Folds a fact.
    pub(crate) fn record(&mut self, fact: &Fact) {
        if let Fact::ShardReleased(released) = fact {
            self.released(released);
        } else if let Some(delivery) = fact.delivery() {
            self.in_flight.remove(&delivery.id);
        }
        if let Fact::AttemptMade(made) = fact {
            self.keep_quiet(made.delivery.endpoint, quiet_until(&made.outcome));
            self.learn(made);
        }
    }

    /// Notes what an attempt says for or against its endpoint; those of one request say it once.
    fn learn(&mut self, made: &AttemptMade) {
        let endpoint = made.delivery.endpoint;
        let signal = Signal::of(&made.outcome, made.duration, &StatusSet::default());
        let Some(good) = signal.good else { return };
        if good && !self.breakers.contains_key(&endpoint) {
            return;
        }
        let known = self.breakers.entry(endpoint).or_insert_with(|| (Breaker::new(), None));
        let (breaker, last) = known;
        let batch = made.batch.map(|batch| batch.id);
        if batch.is_some() && batch == *last {
            return;
        }
        *last = batch;
        let ended = made.started_at.saturating_add(made.duration);
        breaker.recall((made.started_at, ended), good);
        if breaker.is_fresh() {
            self.breakers.remove(&endpoint);
        }
    }

    fn keep_quiet(&mut self, endpoint: EndpointId, until: Option<Timestamp>) {
        if let Some(until) = until {
            let known = self.quiet.entry(endpoint).or_insert(until);
            *known = until.max(*known);
        }
    }

    /// What became of the owner before the one with this epoch.
    pub(crate) fn fate(&self, epoch: u64) -> Fate {
        let Some(before) = epoch.checked_sub(1).filter(|before| *before > 0) else {
            return Fate::None;
        };
        match &self.last {
            Some(last) if last.epoch == before && last.parts_left == 0 => {
                Fate::Released { limits_since: last.limits_since }
            }
            Some(_) | None => Fate::Died,
        }
    }

    /// What was left. Limits are those of the last owner that left any.
    pub(crate) fn into_left(self) -> Left {
        let limits = self.last.map(|last| last.limits).unwrap_or_default();
        let memory =
            |(endpoint, (breaker, _)): (_, (Breaker, _))| Some((endpoint, breaker.memory()?));
        Left {
            in_flight: self.in_flight.into_values().collect(),
            limits,
            quiet: self.quiet,
            breakers: self.breakers.into_iter().filter_map(memory).collect(),
        }
    }

    fn released(&mut self, released: &ShardReleased) {
        let in_flight = released.in_flight.iter();
        self.in_flight.extend(in_flight.map(|request| (request.delivery, *request)));
        let last = self.last.take().filter(|last| last.epoch == released.epoch);
        let mut last = last.unwrap_or_else(|| Release {
            epoch: released.epoch,
            limits_since: released.limits_since,
            limits: Vec::new(),
            parts_left: released.parts,
        });
        last.limits.extend(released.limits.iter().copied());
        for limit in &released.limits {
            self.keep_quiet(limit.endpoint, limit.quiet_until);
            if let Some(memory) = limit.breaker {
                // It is bounded once it is known what time it is.
                let breaker = Breaker::of(memory, Timestamp::from_nanos(u64::MAX));
                self.breakers.insert(limit.endpoint, (breaker, None));
            }
        }
        last.parts_left = last.parts_left.saturating_sub(1);
        self.last = Some(last);
    }
}

/// The facts by which an owner gives its shard away.
pub(crate) fn release(
    (shard, epoch): (Shard, u64),
    in_flight: &[InFlight],
    (limits_since, limits): (Timestamp, &[LimitState]),
    now: Timestamp,
) -> Vec<Record> {
    let empty = |part, parts| ShardReleased {
        shard,
        epoch,
        limits_since,
        in_flight: Vec::new(),
        limits: Vec::new(),
        part,
        parts,
    };
    let (requests, limits) =
        (in_flight.chunks(ShardReleased::REQUESTS_MAX), limits.chunks(ShardReleased::LIMITS_MAX));
    let parts = u32::try_from((requests.len() + limits.len()).max(1)).unwrap_or(u32::MAX);
    let mut facts: Vec<_> = (0..parts).map(|part| empty(part, parts)).collect();
    let mut fact = facts.iter_mut();
    for (requests, fact) in requests.zip(&mut fact) {
        fact.in_flight = requests.to_vec();
    }
    for (limits, fact) in limits.zip(fact) {
        fact.limits = limits.to_vec();
    }
    let record = |fact| Record {
        recorded_at: now,
        trace: TraceContext::default(),
        fact: Fact::ShardReleased(Box::new(fact)),
    };
    facts.into_iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{
        BreakerState, DeliveryRef, EventId, Outcome,
        fact::{DeliveryParked, InBatch, ShardClaimed, Timing},
    };

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn request(n: u16) -> InFlight {
        let endpoint = EndpointId::from_bytes([1; 16]);
        let mut event = [0; 16];
        event[..2].copy_from_slice(&n.to_be_bytes());
        let delivery = DeliveryId::of(EventId::from_bytes(event), endpoint, 0);
        InFlight { delivery, attempt: 1, endpoint, ends_by: NOW, request: delivery }
    }

    fn delivery() -> DeliveryRef {
        DeliveryRef {
            id: request(7).delivery,
            tenant: "acme".parse().unwrap(),
            event: EventId::from_bytes([0; 16]),
            event_sequence: 1,
            event_type: "a.b".parse().unwrap(),
            endpoint: request(7).endpoint,
            generation: 0,
            accepted_at: NOW,
        }
    }

    fn limit(n: u8) -> LimitState {
        let quiet_until = (n > 1).then_some(Timestamp::from_millis(u64::from(n) * 10_000));
        let endpoint = EndpointId::from_bytes([n; 16]);
        LimitState { endpoint, gate: NOW, plan: NOW, quiet_until, breaker: None, window: None }
    }

    fn fold(
        legacy: &mut Legacy,
        epoch: u64,
        requests: &[InFlight],
        limits: &[LimitState],
    ) -> usize {
        let shard = Shard::from_index(1);
        let records = release((shard, epoch), requests, (NOW, limits), NOW);
        for record in &records {
            legacy.record(&record.fact);
        }
        records.len()
    }

    #[test]
    fn what_was_left_is_what_was_in_flight_and_is_not_on_record() {
        let mut legacy = Legacy::default();
        let requests: Vec<_> = (0..1_000).map(request).collect();
        assert_eq!(fold(&mut legacy, 4, &requests, &[limit(1)]), 4);
        assert_eq!(legacy.fate(5), Fate::Released { limits_since: NOW });
        let delivery = delivery();
        legacy.record(&Fact::DeliveryParked(DeliveryParked { delivery, attempt: 1 }));
        let Left { in_flight, limits, .. } = legacy.into_left();
        assert_eq!((in_flight.len(), limits), (999, vec![limit(1)]));
        assert!(!in_flight.contains(&request(7)));
    }

    #[test]
    fn an_owner_that_said_nothing_or_not_all_has_died() {
        let mut legacy = Legacy::default();
        assert_eq!(legacy.fate(1), Fate::None);
        assert_eq!(legacy.fate(2), Fate::Died);
        assert_eq!(fold(&mut legacy, 1, &[], &[]), 1);
        assert_eq!(legacy.fate(2), Fate::Released { limits_since: NOW });
        let claimed = ShardClaimed { shard: Shard::from_index(1), epoch: 2, owner: String::new() };
        legacy.record(&Fact::ShardClaimed(claimed));
        assert_eq!(legacy.fate(3), Fate::Died);
        let parts = release((Shard::from_index(1), 2), &[request(1)], (NOW, &[limit(1)]), NOW);
        legacy.record(&parts[0].fact);
        assert_eq!(legacy.fate(3), Fate::Died);
        legacy.record(&parts[1].fact);
        assert_eq!(legacy.fate(3), Fate::Released { limits_since: NOW });
    }

    #[test]
    fn what_endpoints_asked_for_is_known_from_who_gave_the_shard_away_and_from_facts() {
        let mut legacy = Legacy::default();
        fold(&mut legacy, 4, &[], &[limit(1), limit(2), limit(3)]);
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
        for (endpoint, status, seconds) in [(3, 503, 50), (3, 429, 40), (4, 503, 60), (5, 500, 70)]
        {
            let refused = Outcome::Refused { status, retry_after: Some(at(seconds)) };
            let endpoint = EndpointId::from_bytes([endpoint; 16]);
            legacy.keep_quiet(endpoint, quiet_until(&refused));
        }
        let quiet: Vec<_> = legacy.into_left().quiet.into_values().collect();
        assert_eq!(quiet, [at(20), at(50), at(60)]);
    }

    /// An attempt that ended at a second.
    fn attempt(to: u8, status: u16, second: u64, batch: Option<u8>) -> Fact {
        let endpoint = EndpointId::from_bytes([to; 16]);
        let outcome = match status {
            200 => Outcome::Accepted { status },
            _ => Outcome::Refused { status, retry_after: None },
        };
        let batch = batch.map(|n| InBatch { id: BatchId::from_bytes([n; 16]), size: 2 });
        Fact::AttemptMade(Box::new(AttemptMade {
            delivery: DeliveryRef { endpoint, ..delivery() },
            attempt: 1,
            started_at: Timestamp::from_millis(second * 1_000),
            duration: Duration::ZERO,
            timing: Timing::default(),
            outcome,
            detail: String::new(),
            config_revision: 1,
            url: "https://example.com/".into(),
            signature: String::new(),
            response_headers: Vec::new(),
            response_body: bytes::Bytes::new(),
            response_truncated: false,
            retry_at: None,
            batch,
            trace_sampled: None,
        }))
    }

    #[test]
    fn which_endpoints_kept_failing_is_known_from_facts() {
        let mut legacy = Legacy::default();
        for second in 0..10 {
            // A success breaks the run.
            let other = if second < 9 { 404 } else { 200 };
            for (to, status) in [(1, 500), (2, other), (3, 429), (4, 200)] {
                legacy.record(&attempt(to, status, second, None));
            }
        }
        // One request says it once.
        for _ in 0..20 {
            legacy.record(&attempt(5, 500, 10, Some(1)));
        }
        let breakers = legacy.into_left().breakers;
        let known: Vec<_> = breakers.values().map(|it| (it.state, it.run)).collect();
        assert_eq!(known, [(BreakerState::Open, 0), (BreakerState::Closed, 1)]);
        let open = breakers.values().next().unwrap();
        assert_eq!(open.probe_at, Timestamp::from_millis(19_000));
    }

    #[test]
    fn what_an_owner_said_of_an_endpoint_counts_and_what_came_after() {
        let mut legacy = Legacy::default();
        for second in 0..10 {
            legacy.record(&attempt(1, 500, second, None));
        }
        let breaker = Some(BreakerMemory {
            state: BreakerState::HalfOpen,
            since: Timestamp::from_millis(9_500),
            run: 4,
            wait: Duration::from_secs(20),
            probe_at: NOW,
        });
        fold(&mut legacy, 1, &[], &[LimitState { breaker, ..limit(1) }]);
        // What was left in flight is on record behind that: begun before, it says nothing against.
        legacy.record(&attempt(1, 500, 9, None));
        assert_eq!(legacy.breakers.values().next().and_then(|(it, _)| it.memory()), breaker);
        legacy.record(&attempt(1, 200, 10, None));
        assert!(legacy.into_left().breakers.is_empty(), "it is closed");
    }
}
