//! Going on where owners before us stopped.
//!
//! What they still have in flight is *foreign*: it counts as live and against its endpoint's cap,
//! and the messages that bring it wait, until they report what came of it or its time is over.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    DeliveryId, EndpointId, SpanId, Timestamp,
    fact::{InFlight, LimitState},
};
use fanfare_event_log::Reported;

use super::ShardWorker;
use crate::{
    lanes::{Learnt, RateState},
    legacy::{Fate, Left, MARGIN, SILENT_FOR},
    pen::{Entry, Source},
};

/// For how long an endpoint counts as full for which anything was waiting when the owner before
/// us died. After that there is one ghost for each delivery that came until then, or comes later:
/// the queues are read by then as far as the dead can have read them.
const SURVEY: Duration = Duration::from_secs(1);

impl ShardWorker {
    /// Takes on what owners before us left.
    pub(super) fn inherit(&mut self, left: Left) {
        let now = self.desk.now();
        for request in left.in_flight {
            let until = request.ends_by.saturating_add(MARGIN);
            if until > now {
                self.ledger.hold(request.delivery, request.attempt);
                if self.foreign.add(request) {
                    self.lanes.ghost(request.endpoint, 1, until);
                }
            }
        }
        let mut learnt = BTreeMap::<_, Learnt>::new();
        for LimitState { endpoint, gate, plan, quiet_until: _, breaker: _, window } in left.limits {
            // One that only asked to be left alone has none.
            if plan > Timestamp::EPOCH {
                self.lanes.take_over(endpoint, RateState { gate, plan }, now);
            }
            learnt.entry(endpoint).or_default().window = window;
        }
        for (endpoint, memory) in left.breakers {
            learnt.entry(endpoint).or_default().breaker = Some(memory);
        }
        for (endpoint, learnt) in learnt {
            let rules = self.rulebook.rules(&self.desk, endpoint);
            self.lanes.remember(endpoint, learnt, rules, now);
        }
        for (endpoint, until) in left.quiet {
            self.lanes.leave_alone(endpoint, until, now);
        }
    }

    /// Takes a report about what an owner before us had in flight.
    pub(super) async fn take_report(&mut self, Reported { report, receipt }: Reported) {
        let waited_for = self.foreign.get(report.delivery);
        if waited_for.is_none_or(|request| request.attempt != report.attempt) {
            // On its way to the journal, if it is live; else it is on record, or too late.
            if !self.ledger.is_live(report.delivery) {
                receipt.give().await;
            }
            return;
        }
        let Some(request) = self.end_foreign(report.delivery) else { return };
        if report.records.is_empty() {
            self.give_up_on(&request).await;
            receipt.give().await;
        } else {
            self.pen.gather(Entry { records: report.records, source: Source::Report(receipt) });
        }
    }

    /// Gives up on requests that are over, and about which nobody has said anything.
    pub(super) async fn forget_overdue(&mut self) {
        for delivery in self.foreign.overdue(self.desk.now()) {
            let Some(request) = self.end_foreign(delivery) else { continue };
            tracing::warn!(
                endpoint_id = %request.endpoint,
                delivery_id = %delivery,
                attempt = request.attempt,
                span_id = %SpanId::attempt(delivery, request.attempt),
                "it is not known what came of an attempt"
            );
            self.give_up_on(&request).await;
        }
    }

    /// Assumes that the owner before us, if it died, has a delivery in flight that was waiting
    /// when we claimed the shard.
    pub(super) fn haunt(&mut self, endpoint: EndpointId, stored_at: Timestamp) {
        if self.fate != Fate::Died || stored_at > self.claimed_at {
            return;
        }
        let timeout = self.desk.timeout(endpoint).saturating_sub(SILENT_FOR);
        let until = self.claimed_at.saturating_add(timeout);
        if until > self.desk.now() {
            let survey = self.claimed_at.saturating_add(SURVEY).min(until);
            self.lanes.ghost(endpoint, u16::MAX, survey);
            self.lanes.ghost(endpoint, 1, until);
        }
    }

    /// Has a delivery taken on anew: the messages that waited for it come again.
    async fn give_up_on(&mut self, request: &InFlight) {
        self.ledger.withdraw(request.delivery);
        let asked = self.orders.forsake(request.delivery);
        for settler in self.messages.forsake(request.delivery).into_iter().chain(asked) {
            settler.redeliver(Duration::ZERO).await;
        }
    }

    /// Waits no more for a delivery; with the last of its request, the request's slot is free.
    fn end_foreign(&mut self, delivery: DeliveryId) -> Option<InFlight> {
        let (request, is_last) = self.foreign.remove(delivery)?;
        if is_last {
            let until = request.ends_by.saturating_add(MARGIN);
            self.lanes.lay(request.endpoint, until, self.desk.now());
        }
        Some(request)
    }
}
