//! Ending all that waits for an endpoint: what waits here, and what waits for its time, which is found
//! by going through the shard's alarm clocks.
//!
//! ```text
//! some alarm clocks ─▶ ended, on record ─▶ stopped ─▶ the next ones
//! ```
//!
//! Nothing is stopped before its end is on record: without an alarm clock, nobody would come back to a
//! delivery that has not ended. An alarm that is being set meanwhile is not found; the mark in the
//! endpoint's configuration ends its delivery when it goes off.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::{DeliveryId, EndpointId, RetryDue, Timestamp};
use fanfare_event_log::{ReadError, Settler, journal::From};

use super::{Done, Ended, Held, Orders, Refused, ShardWorker, Waiting};

/// How many alarm clocks are looked at at once.
const LOOK_MAX: usize = 256;

/// How far the clocks of servers and services may be apart.
const CLOCKS_APART: Duration = Duration::from_mins(1);

/// Going through the alarm clocks of a shard for those of one endpoint.
pub(super) struct Walk {
    settler: Settler,
    endpoint: EndpointId,
    before: Timestamp,
    /// Where to go on; `None` at the end.
    next: Option<u64>,
    /// What has ended, and is not on record yet.
    unrecorded: BTreeSet<DeliveryId>,
    /// Whose alarm clocks are to be stopped once that is on record.
    pointless: Vec<DeliveryId>,
}

impl Walk {
    /// Returns what gives the command back.
    pub(super) fn give_up(self) -> Settler {
        self.settler
    }
}

impl Orders {
    /// Lets go of a command about all of an endpoint.
    pub(super) fn end_walk(&mut self, place: u64) -> Option<Settler> {
        self.in_hand.remove(&place);
        self.walks.remove(&place).map(Walk::give_up)
    }

    /// Goes on with a walk whose last findings are on record; returns what settles it at its end.
    fn walk(&mut self, place: u64) -> Option<Settler> {
        let walk = self.walks.get_mut(&place)?;
        if self.is_closing || !walk.unrecorded.is_empty() {
            return None;
        }
        let schedules = self.schedules.clone();
        let (shard, endpoint, before) = (self.shard, walk.endpoint, walk.before);
        let pointless = std::mem::take(&mut walk.pointless);
        if !pointless.is_empty() {
            self.under_way.spawn(async move {
                let mut stopped = Ok(());
                for delivery in pointless {
                    if stopped.is_ok() {
                        stopped = schedules.cancel(shard, delivery).await;
                    }
                }
                match stopped {
                    Ok(()) => Done::Silenced(place),
                    Err(error) => Done::Refused(Refused::Walk(place), error),
                }
            });
            return None;
        }
        let Some(from) = walk.next else { return self.end_walk(place) };
        self.under_way.spawn(async move {
            match schedules.waiting(shard, from, LOOK_MAX).await {
                Ok((mut found, next)) => {
                    found.retain(|retry| {
                        let delivery = &retry.delivery;
                        delivery.endpoint == endpoint && delivery.accepted_at < before
                    });
                    Done::Found(place, found, next)
                }
                Err(error) => Done::Refused(Refused::Walk(place), error),
            }
        });
        None
    }
}

impl ShardWorker {
    /// Ends what waits for an endpoint, and begins to look for what waits for its time.
    pub(super) async fn end_all(&mut self, endpoint: EndpointId, before: Timestamp, held: Held) {
        let is_meant = |waiting: &Waiting| {
            let delivery = &waiting.job.delivery;
            delivery.endpoint == endpoint && delivery.accepted_at < before
        };
        let mut taken = self.lanes.take_out(endpoint, is_meant, self.desk.now());
        taken.append(&mut self.early.give_up(is_meant));
        for waiting in taken {
            self.end_waiting(waiting);
        }
        let Held { settler, place } = held;
        let (unrecorded, pointless) = (BTreeSet::new(), Vec::new());
        let walk = Walk { settler, endpoint, before, next: Some(1), unrecorded, pointless };
        self.orders.walks.insert(place, walk);
        self.walk_on(place).await;
    }

    /// Ends the deliveries whose alarm clocks were found, unless the ledger or a feed knows better.
    pub(super) async fn end_found(
        &mut self,
        place: u64,
        found: Vec<RetryDue>,
        next: Option<u64>,
    ) -> Result<(), ReadError> {
        self.recall_found(place, &found).await?;
        let (mut unrecorded, mut pointless) = (BTreeSet::new(), Vec::new());
        for RetryDue { delivery, attempt, due_at, trace, .. } in found {
            let id = delivery.id;
            if attempt == 1 && self.feeds.took_over(&delivery, due_at) {
                // It is not the alarm clock's, and ends when the feed comes to it, if it has not.
                pointless.push(id);
                continue;
            }
            match self.end(&delivery, attempt, &trace) {
                Ended::Now => {
                    unrecorded.insert(id);
                    pointless.push(id);
                }
                Ended::Before => pointless.push(id),
                Ended::Later => {}
            }
        }
        if let Some(walk) = self.orders.walks.get_mut(&place) {
            (walk.next, walk.unrecorded, walk.pointless) = (next, unrecorded, pointless);
        }
        self.walk_on(place).await;
        Ok(())
    }

    /// Asks the journal what was ended for a command that was asked for before what the ledger
    /// covers, by an owner before us.
    async fn recall_found(&mut self, place: u64, found: &[RetryDue]) -> Result<(), ReadError> {
        let Some(walk) = self.orders.walks.get(&place) else { return Ok(()) };
        let before = walk.before;
        if before >= self.ledger.covers_from().at {
            return Ok(());
        }
        let found = found.iter().map(|retry| retry.delivery.id);
        let wanted = found.filter(|delivery| !self.ledger.knows(*delivery)).collect();
        self.recall(From::Time(before.saturating_sub(CLOCKS_APART)), &wanted).await
    }

    /// Notes that something is on record about a delivery.
    pub(super) async fn walks_on_record(&mut self, delivery: DeliveryId) {
        let walks = self.orders.walks.iter_mut();
        let places: Vec<u64> = walks
            .filter_map(|(place, walk)| walk.unrecorded.remove(&delivery).then_some(*place))
            .collect();
        for place in places {
            self.walk_on(place).await;
        }
    }

    pub(super) async fn walk_on(&mut self, place: u64) {
        if let Some(settler) = self.orders.walk(place) {
            settler.settle().await;
        }
    }
}
