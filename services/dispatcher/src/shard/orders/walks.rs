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

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_domain::{DeliveryId, EndpointId, RetryDue, Timestamp};
use fanfare_event_log::{ReadError, Settler, journal::From};

use super::{Done, Ended, Held, Orders, Refused, ShardWorker, Waiting};

/// How many alarm clocks are looked at at once.
const LOOK_MAX: usize = 256;

/// How far the clocks of servers and services may be apart.
const CLOCKS_APART: Duration = Duration::from_mins(1);

/// Where walks begin.
const FIRST: u64 = 1;

/// How many walks go on at once.
const AT_ONCE: usize = 2;

/// Going through the alarm clocks of the shard, and what is to be walked for.
///
/// One walk is for all endpoints that were waiting when it began. Of an endpoint that is being
/// walked for, a later command waits until that is over, and of those that wait the latest is all
/// that is kept: it ends what the others do. So however often it is asked for, the alarm clocks are
/// gone through by a few at a time.
pub(super) struct Walks<H = Held> {
    under_way: BTreeMap<u64, Walk<H>>,
    /// What waits for a walk.
    waiting: BTreeMap<EndpointId, Wanted<H>>,
    /// How many walks were begun.
    begun: u64,
}

/// What is to be ended of an endpoint: what is of events accepted before that.
struct Wanted<H = Held> {
    before: Timestamp,
    held: H,
}

/// One way through the alarm clocks.
struct Walk<H = Held> {
    wanted: BTreeMap<EndpointId, Wanted<H>>,
    /// Where to go on; `None` at the end.
    next: Option<u64>,
    /// What has ended, and is not on record yet.
    unrecorded: BTreeSet<DeliveryId>,
    /// Whose alarm clocks are to be stopped once that is on record.
    pointless: Vec<DeliveryId>,
}

impl<H> Default for Walks<H> {
    fn default() -> Self {
        Self { under_way: BTreeMap::new(), waiting: BTreeMap::new(), begun: 0 }
    }
}

impl<H> Walks<H> {
    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Takes every command out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = H> + use<H> {
        let Self { under_way, waiting, .. } = std::mem::take(self);
        let walked_for = under_way.into_values().flat_map(|walk| walk.wanted.into_values());
        walked_for.chain(waiting.into_values()).map(|wanted| wanted.held)
    }

    /// Has a command wait for a walk. Returns one that need not wait any more, since another one of
    /// the endpoint that waits ends all that it would.
    fn wait(&mut self, endpoint: EndpointId, wanted: Wanted<H>) -> Option<H> {
        let Some(other) = self.waiting.remove(&endpoint) else {
            self.waiting.insert(endpoint, wanted);
            return None;
        };
        let (latest, covered) =
            if wanted.before >= other.before { (wanted, other) } else { (other, wanted) };
        self.waiting.insert(endpoint, latest);
        Some(covered.held)
    }

    /// Begins a walk for all that wait and are not being walked for; returns its number.
    fn begin(&mut self) -> Option<u64> {
        if self.under_way.len() >= AT_ONCE {
            return None;
        }
        let is_walked_for = |endpoint: &EndpointId| {
            self.under_way.values().any(|walk| walk.wanted.contains_key(endpoint))
        };
        let (waiting, wanted): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(endpoint, _)| is_walked_for(endpoint));
        self.waiting = waiting;
        if wanted.is_empty() {
            return None;
        }
        self.begun += 1;
        let (unrecorded, pointless) = (BTreeSet::new(), Vec::new());
        self.under_way
            .insert(self.begun, Walk { wanted, next: Some(FIRST), unrecorded, pointless });
        Some(self.begun)
    }
}

impl Walk {
    /// What is to be ended of each endpoint.
    fn before(&self) -> BTreeMap<EndpointId, Timestamp> {
        self.wanted.iter().map(|(endpoint, wanted)| (*endpoint, wanted.before)).collect()
    }
}

impl Orders {
    /// Ends a walk; returns what settles its commands.
    pub(super) fn end_walk(&mut self, number: u64) -> Vec<Settler> {
        let ended = self.walks.under_way.remove(&number);
        let wanted = ended.map(|walk| walk.wanted).unwrap_or_default();
        wanted.into_values().map(|wanted| self.let_go(wanted.held)).collect()
    }

    /// Goes on with a walk whose last findings are on record; returns what settles its commands at
    /// its end.
    fn walk(&mut self, number: u64) -> Vec<Settler> {
        let Some(walk) = self.walks.under_way.get_mut(&number) else { return Vec::new() };
        if self.is_closing || !walk.unrecorded.is_empty() {
            return Vec::new();
        }
        let (schedules, shard) = (self.schedules.clone(), self.shard);
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
                    Ok(()) => Done::Silenced(number),
                    Err(error) => Done::Refused(Refused::Walk(number), error),
                }
            });
            return Vec::new();
        }
        match walk.next {
            Some(from) => self.look(number, from),
            None => return self.end_walk(number),
        }
        Vec::new()
    }

    /// Looks at some alarm clocks for a walk.
    fn look(&mut self, number: u64, from: u64) {
        let Some(walk) = self.walks.under_way.get(&number) else { return };
        let (schedules, shard, before) = (self.schedules.clone(), self.shard, walk.before());
        self.under_way.spawn(async move {
            match schedules.waiting(shard, from, LOOK_MAX).await {
                Ok((mut found, next)) => {
                    found.retain(|RetryDue { delivery, .. }| {
                        let before = before.get(&delivery.endpoint);
                        before.is_some_and(|before| delivery.accepted_at < *before)
                    });
                    Done::Found(number, found, next)
                }
                Err(error) => Done::Refused(Refused::Walk(number), error),
            }
        });
    }

    /// Begins the walks that may be.
    pub(super) fn begin_walks(&mut self) {
        while !self.is_closing
            && let Some(number) = self.walks.begin()
        {
            self.look(number, FIRST);
        }
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
        if let Some(covered) = self.orders.walks.wait(endpoint, Wanted { before, held }) {
            self.orders.let_go(covered).settle().await;
        }
        self.orders.begin_walks();
    }

    /// Ends the deliveries whose alarm clocks were found, unless the ledger or a feed knows better.
    pub(super) async fn end_found(
        &mut self,
        number: u64,
        found: Vec<RetryDue>,
        next: Option<u64>,
    ) -> Result<(), ReadError> {
        self.recall_found(number, &found).await?;
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
        if let Some(walk) = self.orders.walks.under_way.get_mut(&number) {
            (walk.next, walk.unrecorded, walk.pointless) = (next, unrecorded, pointless);
        }
        self.walk_on(number).await;
        Ok(())
    }

    /// Asks the journal what was ended for a command that was asked for before what the ledger
    /// covers, by an owner before us.
    async fn recall_found(&mut self, number: u64, found: &[RetryDue]) -> Result<(), ReadError> {
        let Some(walk) = self.orders.walks.under_way.get(&number) else { return Ok(()) };
        let before = |retry: &RetryDue| walk.wanted.get(&retry.delivery.endpoint);
        let Some(before) = found.iter().filter_map(before).map(|wanted| wanted.before).min() else {
            return Ok(());
        };
        if before >= self.ledger.covers_from().at {
            return Ok(());
        }
        let found = found.iter().map(|retry| retry.delivery.id);
        let wanted = found.filter(|delivery| !self.ledger.knows(*delivery)).collect();
        self.recall(From::Time(before.saturating_sub(CLOCKS_APART)), &wanted).await
    }

    /// Notes that something is on record about a delivery.
    pub(super) async fn walks_on_record(&mut self, delivery: DeliveryId) {
        let walks = self.orders.walks.under_way.iter_mut();
        let numbers: Vec<u64> = walks
            .filter_map(|(number, walk)| walk.unrecorded.remove(&delivery).then_some(*number))
            .collect();
        for number in numbers {
            self.walk_on(number).await;
        }
    }

    /// Goes on with a walk, and with others once it is over.
    pub(super) async fn walk_on(&mut self, number: u64) {
        for settler in self.orders.walk(number) {
            settler.settle().await;
        }
        self.orders.begin_walks();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(n: u8) -> EndpointId {
        EndpointId::from_bytes([n; 16])
    }

    /// A command of that place about all of an endpoint.
    fn wanted(place: u64) -> Wanted<u64> {
        Wanted { before: Timestamp::from_millis(place), held: place }
    }

    fn walked_for(walks: &Walks<u64>, number: u64) -> Vec<u64> {
        walks.under_way[&number].wanted.values().map(|wanted| wanted.held).collect()
    }

    #[test]
    fn one_walk_is_for_all_that_wait_and_an_endpoint_has_one_at_a_time() {
        let mut walks = Walks::default();
        assert!(walks.wait(endpoint(1), wanted(1)).is_none());
        assert_eq!(walks.begin(), Some(1));
        // The same again, while it is walked for: the last one counts.
        assert!(walks.wait(endpoint(1), wanted(2)).is_none());
        assert_eq!(walks.begin(), None);
        assert_eq!(walks.wait(endpoint(1), wanted(3)), Some(2));
        assert_eq!(walks.wait(endpoint(1), wanted(2)), Some(2), "it is handed out again");
        // Others have a walk of their own, and then wait.
        assert!(walks.wait(endpoint(2), wanted(4)).is_none());
        assert!(walks.wait(endpoint(3), wanted(5)).is_none());
        assert_eq!(walks.begin(), Some(2));
        assert_eq!(walked_for(&walks, 2), [4, 5]);
        assert!(walks.wait(endpoint(4), wanted(6)).is_none());
        assert_eq!(walks.begin(), None, "two at once");
        walks.under_way.remove(&1);
        assert_eq!(walks.begin(), Some(3));
        assert_eq!(walked_for(&walks, 3), [3, 6]);
        assert!(walks.wait(endpoint(2), wanted(7)).is_none());
        let mut all: Vec<u64> = walks.take_all().collect();
        all.sort_unstable();
        assert_eq!(all, [3, 4, 5, 6, 7]);
        assert!(walks.is_empty());
    }
}
