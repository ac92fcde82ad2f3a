//! The feeds of one shard: endpoints whose first attempts come from EVENTS, by a cursor for each,
//! and not from tasks.
//!
//! A backlog of any size costs one cursor so. The owner opens a feed when it has had to put off
//! many deliveries of an endpoint, when the endpoint is paused to hold, and for good when the
//! endpoint wants order; it closes it when the cursor has caught up. What a feed covers is in
//! [`fanfare_domain::feed`]; how far it is, in [`cursor`].

mod cursor;
mod keys;
pub(crate) mod work;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use fanfare_domain::{
    DeliveryRef, EndpointId, Fact, Feed, TenantId, Timestamp,
    feed::{Cover, Interval, Phase, PutOff, Reason},
};
use fanfare_event_log::StoredFeed;

pub(crate) use self::cursor::{Cursor, Fed, Known, Next};
use crate::messages::MessageKey;

/// With how many first attempts put off an endpoint is fed: as many as cost more than a feed.
const PUT_OFF_MAX: usize = 100;

/// How long a feed is open at least.
const OPEN_MIN: Duration = Duration::from_secs(5);

/// How long what a closed feed covered is remembered, once everything in it is routed.
const REMEMBERED: Duration = Duration::from_mins(5);

/// How often all feeds are looked at, also those that nothing has happened to.
const LOOK_AT_ALL: Duration = Duration::from_secs(2);

/// Whose the first attempt of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The task's: it is to be made.
    Task,
    /// The feed's: the task is needless.
    Feed,
    /// That is not known yet.
    Limbo,
}

/// What a look at a feed came to: what is to be done with the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Store this.
    Write(Feed),
    /// Find out where a feed that is closing ends.
    End,
    /// Forget all about a feed that was closed.
    Remove,
}

/// What tells how a feed is to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    /// Whether the endpoint gets nothing at present, and everything later.
    pub(crate) is_held: bool,
    /// Whether the endpoint wants order.
    pub(crate) is_ordered: bool,
    /// Whether its lane takes first attempts at present.
    pub(crate) is_open: bool,
    /// Up to where everything is routed.
    pub(crate) routed: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    cursors: BTreeMap<EndpointId, Cursor>,
    /// The last sequence of each endpoint that was taken on as a task, or is on record, as far as
    /// the journal was folded.
    seen: HashMap<EndpointId, u64>,
    /// The first sequence of EVENTS that was stored after what the fold began with. About an event
    /// from there on everything is known: facts come after their event.
    floor: u64,
    /// The first attempts of each endpoint that are put off, and until when.
    put_off: HashMap<EndpointId, BTreeMap<u64, Timestamp>>,
    /// Feeds that are to be looked at.
    woken: BTreeSet<EndpointId>,
    /// When all were.
    looked_at: Timestamp,
    /// The sequence of the journal up to which everything was written.
    journal: u64,
}

/// What is found in the journal about feeds that are stored.
#[derive(Debug)]
pub(crate) struct Resumed {
    feeds: BTreeMap<EndpointId, StoredFeed>,
    seen: HashMap<EndpointId, u64>,
    /// What has concluded that blocked a key.
    concluded: BTreeSet<(EndpointId, u64)>,
}

impl Resumed {
    /// Begins with what is stored.
    pub(crate) fn new(feeds: impl IntoIterator<Item = StoredFeed>) -> Self {
        let feeds = feeds.into_iter().map(|stored| (stored.feed.endpoint, stored)).collect();
        Self { feeds, seen: HashMap::new(), concluded: BTreeSet::new() }
    }

    /// Folds a fact.
    pub(crate) fn record(&mut self, fact: &Fact) {
        let Some(delivery) = fact.delivery().filter(|it| it.generation == 0) else { return };
        let (endpoint, sequence) = (delivery.endpoint, delivery.event_sequence);
        let seen = self.seen.entry(endpoint).or_default();
        *seen = sequence.max(*seen);
        let is_blocked =
            |stored: &StoredFeed| stored.feed.blocked.iter().any(|it| it.by == sequence);
        if matches!(fact, Fact::DeliveryConcluded(_))
            && self.feeds.get(&endpoint).is_some_and(is_blocked)
        {
            self.concluded.insert((endpoint, sequence));
        }
    }
}

impl Feeds {
    /// Goes on with what is stored. `floor` is the first sequence of EVENTS that was stored after
    /// what was folded begins.
    pub(crate) fn resume(resumed: Resumed, floor: u64, now: Timestamp) -> Self {
        let Resumed { feeds, seen, concluded } = resumed;
        let mut new = Self { seen, floor, ..Self::default() };
        for (endpoint, StoredFeed { feed, revision }) in feeds {
            new.cursors.insert(endpoint, Cursor::resume((*feed).clone(), revision, now));
            new.woken.insert(endpoint);
        }
        for (endpoint, sequence) in concluded {
            if let Some(cursor) = new.cursors.get_mut(&endpoint) {
                cursor.on_record(sequence, true);
            }
        }
        new
    }

    /// Judges whose an event is. One whose endpoint wants order is never a task's before it is
    /// known what its feed covers.
    pub(crate) fn whose(&self, delivery: &DeliveryRef, is_ordered: bool) -> Whose {
        if delivery.generation > 0 {
            return Whose::Task;
        }
        let sequence = delivery.event_sequence;
        match self.cursors.get(&delivery.endpoint) {
            None if is_ordered => Whose::Limbo,
            None => Whose::Task,
            // It is being opened: what nobody else knows yet may never be stored.
            Some(cursor) if !cursor.is_stored => {
                let is_past = cursor.feed.past.iter().any(|past| past.contains(sequence));
                if is_past { Whose::Feed } else { Whose::Limbo }
            }
            Some(cursor) => match cursor.feed.cover(sequence) {
                Cover::Inside => Whose::Feed,
                Cover::Open => Whose::Limbo,
                Cover::Outside if is_ordered && cursor.is_finished() => Whose::Limbo,
                Cover::Outside => Whose::Task,
            },
        }
    }

    /// Tells whether the feed of a delivery's endpoint has its event in hand.
    pub(crate) fn holds(&self, delivery: &DeliveryRef) -> bool {
        let cursor = self.cursors.get(&delivery.endpoint).filter(|_| delivery.generation == 0);
        cursor.is_some_and(|cursor| cursor.holds(delivery.event_sequence))
    }

    /// Tells whether a delivery is its feed's for sure, and can be ended before the feed has come to
    /// it.
    pub(crate) fn may_end(&self, delivery: &DeliveryRef) -> bool {
        let cursor = self.cursors.get(&delivery.endpoint).filter(|_| delivery.generation == 0);
        cursor.is_some_and(|cursor| cursor.may_end(delivery.event_sequence))
    }

    /// Has the feed of a delivery's endpoint pass it over, since it ends. Tells whether it may end
    /// at once; otherwise it ends when the feed has come to it.
    pub(crate) fn end(&mut self, delivery: &DeliveryRef) -> bool {
        let cursor = self.cursors.get_mut(&delivery.endpoint);
        let Some(cursor) = cursor.filter(|_| delivery.generation == 0) else { return true };
        let sequence = delivery.event_sequence;
        if cursor.may_end(sequence) {
            cursor.end(sequence, self.journal);
            return true;
        }
        !cursor.holds(sequence)
    }

    /// Tells whether a delivery that was ended stays so, whatever is forgotten.
    pub(crate) fn remembers_end(&mut self, delivery: &DeliveryRef) -> bool {
        let cursor = self.cursors.get_mut(&delivery.endpoint).filter(|_| delivery.generation == 0);
        cursor.is_none_or(|cursor| cursor.remembers_end(delivery.event_sequence))
    }

    /// Tells whether a person's attempt can be made in the place of the feed's.
    pub(crate) fn may_pass_over(&self, delivery: &DeliveryRef) -> bool {
        let cursor = self.cursors.get(&delivery.endpoint).filter(|_| delivery.generation == 0);
        cursor.is_some_and(|cursor| cursor.may_pass_over(delivery.event_sequence))
    }

    /// Tells whether a delivery whose first attempt a person had made is sure not to be begun again by
    /// its feed, whatever is forgotten.
    pub(crate) fn remembers_made(&mut self, delivery: &DeliveryRef) -> bool {
        let cursor = self.cursors.get_mut(&delivery.endpoint).filter(|_| delivery.generation == 0);
        cursor.is_none_or(|cursor| cursor.remembers_made(delivery.event_sequence))
    }

    /// Notes up to where the journal was written.
    pub(crate) fn reached(&mut self, journal: u64) {
        self.journal = self.journal.max(journal);
    }

    /// Notes that a task was taken on.
    pub(crate) fn took(&mut self, endpoint: EndpointId, sequence: u64) {
        let seen = self.seen.entry(endpoint).or_default();
        *seen = sequence.max(*seen);
    }

    /// Has a message wait until it is known whose an event is.
    pub(crate) fn wait(&mut self, endpoint: EndpointId, sequence: u64, message: MessageKey) {
        if let Some(cursor) = self.cursors.get_mut(&endpoint) {
            cursor.limbo.push((sequence, message));
        }
    }

    /// Takes out the messages about which it is known by now whose the event is.
    pub(crate) fn out_of_limbo(&mut self, endpoint: EndpointId) -> Vec<(Whose, MessageKey)> {
        let Some(cursor) = self.cursors.get_mut(&endpoint).filter(|it| it.is_stored) else {
            return Vec::new();
        };
        let mut known = Vec::new();
        let sequences = cursor.limbo.iter().map(|(sequence, _)| *sequence);
        let held: BTreeSet<u64> = sequences.filter(|it| cursor.holds(*it)).collect();
        let mut last = None;
        cursor.limbo.retain(|(sequence, message)| match cursor.feed.cover(*sequence) {
            Cover::Inside => {
                last = last.max(Some(*sequence));
                known.push((Whose::Feed, *message));
                false
            }
            // It was taken over, and that is not stored yet.
            Cover::Outside if held.contains(sequence) => true,
            Cover::Outside => {
                known.push((Whose::Task, *message));
                false
            }
            Cover::Open => true,
        });
        if let Some(last) = last {
            self.hint(endpoint, last);
        }
        known
    }

    /// Tells whether so many first attempts are put off that a feed is cheaper.
    pub(crate) fn is_crowded(&self, endpoint: EndpointId) -> bool {
        self.put_off.get(&endpoint).is_some_and(|put_off| put_off.len() >= PUT_OFF_MAX)
    }

    /// Notes that a first attempt is put off.
    pub(crate) fn put_off(&mut self, delivery: &DeliveryRef, until: Timestamp) {
        if delivery.generation == 0 {
            let put_off = self.put_off.entry(delivery.endpoint).or_default();
            put_off.insert(delivery.event_sequence, until);
        }
    }

    /// Tells whether a first attempt that was put off until then is not its alarm clock's any more,
    /// but its endpoint's feed's.
    pub(crate) fn took_over(&self, delivery: &DeliveryRef, until: Timestamp) -> bool {
        let cursor = self.cursors.get(&delivery.endpoint).filter(|_| delivery.generation == 0);
        let put_off = PutOff { sequence: delivery.event_sequence, until };
        cursor.is_some_and(|cursor| cursor.took_over(put_off))
    }

    /// Notes that a first attempt has come back that was put off.
    pub(crate) fn came_back(&mut self, delivery: &DeliveryRef) {
        if let Some(put_off) = self.put_off.get_mut(&delivery.endpoint) {
            put_off.remove(&delivery.event_sequence);
            if put_off.is_empty() {
                self.put_off.remove(&delivery.endpoint);
            }
        }
    }

    /// Begins to feed an endpoint, unless it is fed: from behind everything that was taken on.
    pub(crate) fn open(
        &mut self,
        (endpoint, tenant): (EndpointId, TenantId),
        reason: Reason,
        (routed, now): (u64, Timestamp),
    ) {
        let seen = self.seen.get(&endpoint).copied().unwrap_or_default();
        let from = seen.saturating_add(1).max(self.floor);
        let feed = Feed {
            tenant,
            endpoint,
            from,
            phase: Phase::Open,
            reason,
            opened_at: now,
            next: from,
            blocked: Vec::new(),
            past: Vec::new(),
            ended: Vec::new(),
            ended_since: 0,
            taken_over: Vec::new(),
        };
        match self.cursors.get_mut(&endpoint) {
            None => {
                self.cursors.insert(endpoint, Cursor::new(feed, 0));
            }
            Some(cursor) if cursor.is_finished() && !cursor.is_writing => {
                let is_over = |past: &Interval| {
                    now.since(past.closed_at) >= REMEMBERED && routed >= past.until
                };
                let feed = cursor.reopened(from, feed, is_over);
                if feed.past.len() >= Feed::PAST_MAX {
                    return;
                }
                let revision = cursor.revision;
                cursor.begin_anew(Cursor::new(feed, revision));
            }
            Some(_) => return,
        }
        self.woken.insert(endpoint);
        // Their alarm clocks go off in vain.
        if let (Some(cursor), Some(put_off)) =
            (self.cursors.get_mut(&endpoint), self.put_off.get_mut(&endpoint))
        {
            put_off.retain(|sequence, until| {
                !cursor.take_over_put_off(PutOff { sequence: *sequence, until: *until })
            });
            if put_off.is_empty() {
                self.put_off.remove(&endpoint);
            }
        }
    }

    /// Tells whether first attempts may be taken over for an endpoint.
    pub(crate) fn takes_over(&self, endpoint: EndpointId) -> bool {
        self.cursors.get(&endpoint).is_some_and(|cursor| cursor.feed.phase == Phase::Open)
    }

    /// Takes a first attempt over from its message, if the endpoint is fed: the message waits until
    /// that is stored.
    pub(crate) fn take_over(&mut self, delivery: &DeliveryRef, message: MessageKey) -> bool {
        let Some(cursor) = self.cursors.get_mut(&delivery.endpoint) else { return false };
        if delivery.generation > 0 || cursor.feed.phase != Phase::Open {
            return false;
        }
        cursor.take_over(delivery.event_sequence);
        cursor.limbo.push((delivery.event_sequence, message));
        self.woken.insert(delivery.endpoint);
        true
    }

    /// Takes what is stored of a feed, by somebody else than us.
    pub(crate) fn adopt(&mut self, stored: StoredFeed, now: Timestamp) {
        let StoredFeed { feed, revision } = stored;
        let endpoint = feed.endpoint;
        self.woken.insert(endpoint);
        match self.cursors.get_mut(&endpoint) {
            Some(cursor) if cursor.is_writing || cursor.revision >= revision => {}
            // The same feed: ours knows better how far it is.
            Some(cursor) if cursor.is_stored && cursor.feed.from == feed.from => {
                let feed = Feed { next: cursor.feed.next, ..(*feed).clone() };
                cursor.stored(feed, revision, now);
            }
            Some(cursor) => {
                cursor.begin_anew(Cursor::resume((*feed).clone(), revision, now));
            }
            None => {
                self.cursors.insert(endpoint, Cursor::resume((*feed).clone(), revision, now));
            }
        }
    }

    /// The cursor of an endpoint.
    pub(crate) fn cursor(&mut self, endpoint: EndpointId) -> Option<&mut Cursor> {
        self.cursors.get_mut(&endpoint)
    }

    /// The revision of what is known to be stored of a feed.
    pub(crate) fn revision(&self, endpoint: EndpointId) -> Option<u64> {
        self.cursors.get(&endpoint).map(|cursor| cursor.revision)
    }

    /// Notes that an endpoint has an event for its feed.
    pub(crate) fn hint(&mut self, endpoint: EndpointId, sequence: u64) {
        if let Some(cursor) = self.cursors.get_mut(&endpoint) {
            cursor.hint(sequence);
            self.woken.insert(endpoint);
        }
    }

    /// Forgets a feed that was removed.
    pub(crate) fn forget(&mut self, endpoint: EndpointId) {
        if let Some(cursor) = self.cursors.remove(&endpoint) {
            self.took(endpoint, cursor.until());
        }
    }

    /// Has a feed looked at.
    pub(crate) fn wake(&mut self, endpoint: EndpointId) {
        if self.cursors.contains_key(&endpoint) {
            self.woken.insert(endpoint);
        }
    }

    /// Has the feeds looked at for which there may be something to do; now and then, all of them.
    pub(crate) fn wake_due(&mut self, routed: u64, now: Timestamp) {
        if now.since(self.looked_at) >= LOOK_AT_ALL {
            self.looked_at = now;
            return self.woken.extend(self.cursors.keys());
        }
        let due = self.cursors.iter().filter(|(_, cursor)| cursor.is_due(routed, now));
        self.woken.extend(due.map(|(endpoint, _)| *endpoint));
    }

    /// The feeds that are to be looked at.
    pub(crate) fn woken(&mut self) -> BTreeSet<EndpointId> {
        std::mem::take(&mut self.woken)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.cursors.len()
    }

    /// Notes a fact about a delivery.
    pub(crate) fn on_record(&mut self, delivery: &DeliveryRef, concluded: bool) {
        if delivery.generation > 0 {
            return;
        }
        if let Some(cursor) = self.cursors.get_mut(&delivery.endpoint) {
            cursor.on_record(delivery.event_sequence, concluded);
            self.woken.insert(delivery.endpoint);
        }
    }

    /// Says what a feed needs from the servers, besides being read.
    pub(crate) fn wish(
        &mut self,
        endpoint: EndpointId,
        around: Circumstances,
        now: Timestamp,
    ) -> Option<Wish> {
        let few = self.put_off.get(&endpoint).is_none_or(|them| them.len() <= PUT_OFF_MAX / 2);
        let cursor = self.cursors.get_mut(&endpoint).filter(|cursor| !cursor.is_writing)?;
        if !cursor.is_stored {
            return Some(Wish::Write(cursor.to_store()));
        }
        if cursor.has_taken_over() {
            return Some(Wish::Write(cursor.to_store()));
        }
        let is_wanted = around.is_held || around.is_ordered || !around.is_open || !few;
        match cursor.feed.phase {
            Phase::Open => {
                let is_done = cursor.is_at_head(around.routed) && cursor.is_idle();
                if is_done && !is_wanted && now.since(cursor.feed.opened_at) >= OPEN_MIN {
                    return Some(Wish::Write(Feed { phase: Phase::Closing, ..cursor.to_store() }));
                }
            }
            Phase::Closing => return Some(Wish::End),
            Phase::Closed { until, at } => {
                let is_over = now.since(at) >= REMEMBERED && around.routed >= until;
                let is_done = cursor.is_finished() && !cursor.has_alarms(now);
                if is_over && is_done && cursor.limbo.is_empty() {
                    return Some(Wish::Remove);
                }
            }
        }
        cursor.save(now).map(Wish::Write)
    }
}

#[cfg(test)]
mod tests;
