//! Feeding: first attempts that come from EVENTS by a cursor, see [`crate::feeds`].

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    DeliveryId, EndpointId, Feed, StoredEvent, Target,
    endpoint::Ordering,
    feed::{Reason, key_of},
};
use fanfare_event_log::{ReadError, StoredFeed, feeds::Written};

use super::{Origin, ShardWorker, Waiting};
use crate::{
    attempt::Job,
    feeds::{
        Circumstances, Fed, Next, Whose, Wish,
        work::{Done, Read},
    },
    lanes::{Load, Urgency},
    memory::Source,
    pen,
    task_event::TaskEvent,
};

/// The key that all events share where all are to be in order. Not 0, which stands for none.
const ALL: u64 = 1;

/// How long after its acceptance an event is fresh, so that nothing else comes before it.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// How many single events are read at once, and how many in order at most.
const SINGLES_MAX: usize = 32;
const READ_MIN: usize = 16;
const READ_MAX: usize = 256;

impl ShardWorker {
    /// Sees to the feeds that something has happened to.
    pub(super) fn feed(&mut self) {
        for endpoint in self.feeds.woken() {
            self.feed_one(endpoint);
        }
        self.feeds_counted.set(self.feeds.len());
    }

    /// Feeds an endpoint from now on, if it is not.
    pub(super) fn begin_to_feed(&mut self, endpoint: EndpointId, reason: Reason) {
        let Some(tenant) = self.desk.tenant(endpoint) else { return };
        let (routed, now) = (self.desk.routed(), self.desk.now());
        self.feeds.open((endpoint, tenant), reason, (routed, now));
        if !self.feeds.takes_over(endpoint) {
            return;
        }
        let is_ours = |Waiting { job, origin, .. }: &Waiting| {
            let is_task = matches!(origin, Origin::Message(_)) && job.is_first_of_task();
            is_task && job.delivery.generation == 0
        };
        let mut given_up = self.lanes.give_up(endpoint, is_ours, now);
        given_up
            .extend(self.early.give_up(|it| it.job.delivery.endpoint == endpoint && is_ours(it)));
        for Waiting { job, origin, place: _ } in given_up {
            let Origin::Message(message) = origin else { continue };
            if self.feeds.take_over(&job.delivery, message) {
                self.ledger.withdraw(job.delivery.id);
            }
        }
    }

    /// Looks for feeds that somebody else has written.
    pub(super) fn see_feeds(&mut self) {
        let view = self.desk.feeds();
        let revision = view.revision();
        if revision != self.feeds_seen {
            self.feeds_seen = revision;
            let ours = &self.feeds;
            let is_new = |stored: &&StoredFeed| {
                ours.revision(stored.feed.endpoint).is_none_or(|known| known < stored.revision)
            };
            let shard = self.shard;
            let new: Vec<_> =
                view.read(|feeds| feeds.of_shard(shard).filter(is_new).cloned().collect());
            for stored in new {
                self.feeds.adopt(stored, self.desk.now());
            }
        }
        self.feeds.wake_due(self.desk.routed(), self.desk.now());
    }

    /// Takes what came of a question to the servers.
    pub(super) async fn fed(&mut self, done: Result<Done, ReadError>) -> Result<()> {
        match done.context("feed an endpoint")? {
            Done::Read(read) => self.read(read),
            Done::Singles(endpoint, events) => self.read_singles(endpoint, events),
            Done::First(endpoint, from, first) => {
                if let Some(cursor) = self.feeds.cursor(endpoint) {
                    cursor.found(from, first);
                }
                self.feeds.wake(endpoint);
            }
            Done::Ended(endpoint, ends) => {
                if let Some(cursor) = self.feeds.cursor(endpoint) {
                    cursor.found_ends(ends);
                }
                self.feeds.wake(endpoint);
                self.decide_orders(endpoint);
            }
            Done::Wrote(feed, written) => self.wrote(*feed, written).await,
            Done::Removed(endpoint, written) => {
                if matches!(written, Some(Written::Stored(_))) {
                    self.feeds.forget(endpoint);
                } else if let Some(cursor) = self.feeds.cursor(endpoint) {
                    cursor.not_written();
                }
            }
        }
        Ok(())
    }

    async fn wrote(&mut self, feed: Feed, written: Option<Written>) {
        let (endpoint, now) = (feed.endpoint, self.desk.now());
        let Some(cursor) = self.feeds.cursor(endpoint) else { return };
        cursor.not_written();
        match written {
            // Tried again with the next look.
            None => return,
            Some(Written::Stored(revision)) => {
                if feed.phase != cursor.phase() || !cursor.is_stored() {
                    let (tenant, phase, from) = (&feed.tenant, feed.phase, feed.from);
                    tracing::info!(
                        tenant_id = %tenant,
                        endpoint_id = %endpoint,
                        ?phase,
                        from,
                        "a feed changed"
                    );
                }
                cursor.stored(feed, revision, now);
            }
            Some(Written::Conflict { revision, feed: Some(feed) }) => {
                let feed = Arc::new(*feed);
                self.feeds.adopt(StoredFeed { feed, revision }, now);
            }
            Some(Written::Conflict { revision, feed: None }) => cursor.expect(revision),
        }
        self.feeds.wake(endpoint);
        self.clear_limbo(endpoint).await;
        self.decide_orders(endpoint);
    }

    /// Lets go of the messages that waited for a feed's beginning or end.
    async fn clear_limbo(&mut self, endpoint: EndpointId) {
        for (whose, message) in self.feeds.out_of_limbo(endpoint) {
            let settled = match whose {
                Whose::Feed => self.messages.on_record(message),
                // It comes again, and is taken on then.
                Whose::Task | Whose::Limbo => {
                    if let Some(settler) = self.messages.give_back(message) {
                        settler.redeliver(Duration::ZERO).await;
                    }
                    None
                }
            };
            if let Some(settler) = settled {
                settler.settle().await;
            }
        }
    }

    fn feed_one(&mut self, endpoint: EndpointId) {
        let now = self.desk.now();
        let rules = self.rulebook.rules(&self.desk, endpoint);
        let is_ordered = rules.ordering != Ordering::None;
        let is_held = self.desk.is_on_hold(endpoint);
        let around = Circumstances {
            is_held,
            is_ordered,
            is_open: self.lanes.takes_firsts(endpoint, now),
            routed: self.desk.routed(),
        };
        if self.work.may_write()
            && let Some(wish) = self.feeds.wish(endpoint, around, now)
        {
            self.fulfil(endpoint, wish);
        }
        let Some(cursor) = self.feeds.cursor(endpoint) else { return };
        if !is_ordered {
            cursor.give_up_order();
        }
        if self.work.may_read()
            && let Some(since) = cursor.ask_for_ends()
        {
            self.work.find_ends(endpoint, since);
        }
        let room = self.lanes.feed_room(endpoint, rules, now).filter(|_| !is_held);
        let Some((wanted, room)) = room else { return cursor.let_go() };
        self.offer(endpoint, room);
        self.read_on(endpoint, wanted);
    }

    fn fulfil(&mut self, endpoint: EndpointId, wish: Wish) {
        let Some(cursor) = self.feeds.cursor(endpoint) else { return };
        let revision = cursor.writing();
        match wish {
            Wish::Write(feed) => self.work.write(feed, revision),
            Wish::End => {
                let feed = cursor.to_store();
                self.work.end(feed, revision);
            }
            Wish::Remove => self.work.remove(endpoint, revision),
        }
    }

    /// Puts events into the endpoint's lane that has room for so many.
    fn offer(&mut self, endpoint: EndpointId, mut room: usize) {
        let now = self.desk.now();
        while room > 0 {
            let Some(cursor) = self.feeds.cursor(endpoint) else { return };
            if cursor.front().is_none() || !cursor.is_stored() {
                return;
            }
            let Some((mut places, _)) = self.ration.take(Source::Task, 1, 0) else { return };
            let ledger = &self.ledger;
            match cursor.judge(|delivery| ledger.known(delivery)) {
                Next::Stand => return,
                Next::Pass => drop(cursor.pop(false)),
                Next::Make => {
                    let (Some(fed), Some(place)) = (cursor.pop(true), places.pop()) else { return };
                    self.ledger.feed(fed.delivery);
                    let target = Target { delivery: fed.delivery, endpoint, not_before: None };
                    let delivery = fed.event.delivery(&target, 0);
                    if self.is_cancelled(&delivery) {
                        let trace = fed.event.trace().clone();
                        self.end_by_hand((delivery, 0), trace, pen::Source::Feed(place));
                        continue;
                    }
                    self.desk.tell_fed(&delivery, fed.event.trace(), now);
                    self.haunt(endpoint, fed.event.accepted_at());
                    let job = Job::first(delivery, None, Arc::clone(&fed.event));
                    let is_late = now.since(fed.event.accepted_at()) > FRESH_FOR;
                    let urgency = if is_late { Urgency::Late } else { Urgency::Fresh };
                    let load = Load { urgency, ..job.load() };
                    let item = Waiting { job, origin: Origin::Feed(fed), place };
                    self.lanes.feed(endpoint, (item, load), now);
                    room -= 1;
                }
            }
        }
    }

    /// Reads more, if half of what the lane wants would empty what was read.
    fn read_on(&mut self, endpoint: EndpointId, wanted: usize) {
        let (now, routed) = (self.desk.now(), self.desk.routed());
        let Some(cursor) = self.feeds.cursor(endpoint) else { return };
        if !self.work.may_read()
            || cursor.ready() > wanted / 2
            || self.desk.memory().room_bytes() == 0
        {
            return;
        }
        let whose = (endpoint, cursor.tenant());
        if cursor.has_singles() && cursor.is_stored() {
            let singles = cursor.singles(SINGLES_MAX);
            self.work.read_singles(endpoint, singles);
            return;
        }
        if cursor.is_fetching_first() {
            return;
        }
        if cursor.may_look_for_the_end() {
            let from = cursor.reading();
            self.work.find_first(whose, from);
        } else if cursor.may_read(routed, now) {
            let limit = routed.max(cursor.hinted()).min(cursor.until());
            let from = cursor.reading();
            self.work.read(whose, from, limit, wanted.clamp(READ_MIN, READ_MAX));
        }
    }

    fn read(&mut self, read: Read) {
        let Read { endpoint, from, events, next, looked_to } = read;
        let (now, ordering) = (self.desk.now(), self.ordering(endpoint));
        let events: Vec<_> = events
            .into_iter()
            .map(|event| self.fed_event((endpoint, ordering), event, false))
            .collect();
        if let Some(cursor) = self.feeds.cursor(endpoint) {
            cursor.take(from, events, (next, looked_to), now);
        }
        self.feeds.wake(endpoint);
    }

    fn read_singles(&mut self, endpoint: EndpointId, events: Vec<(u64, Option<StoredEvent>)>) {
        let ordering = self.ordering(endpoint);
        for (sequence, event) in events {
            if event.is_none() {
                tracing::warn!(endpoint_id = %endpoint, sequence, "an event is gone");
            }
            let fed = event.map(|event| self.fed_event((endpoint, ordering), event, true));
            if let Some(cursor) = self.feeds.cursor(endpoint) {
                cursor.take_single(sequence, fed);
            }
        }
        self.feeds.wake(endpoint);
    }

    fn fed_event(
        &self,
        (endpoint, ordering): (EndpointId, Ordering),
        event: StoredEvent,
        single: bool,
    ) -> Fed {
        let key = match ordering {
            Ordering::None => None,
            Ordering::Key => event.event.ordering_key.as_deref().map(key_of),
            Ordering::All => Some(ALL),
        };
        let bytes = self.desk.memory().count(event.event.data.len());
        Fed {
            sequence: event.sequence,
            delivery: DeliveryId::of(event.event.id, endpoint, 0),
            key,
            single,
            event: Arc::new(TaskEvent::new(event, Arc::new(bytes))),
        }
    }

    fn ordering(&self, endpoint: EndpointId) -> Ordering {
        self.rulebook.rules(&self.desk, endpoint).ordering
    }

    /// Takes back what a lane may not keep.
    pub(super) fn take_back(&mut self, endpoint: EndpointId, fed: Fed) {
        self.ledger.withdraw(fed.delivery);
        if let Some(cursor) = self.feeds.cursor(endpoint) {
            cursor.take_back(fed);
        }
    }
}
