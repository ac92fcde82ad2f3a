//! What waits in a lane, of one kind of attempt: one by one, or put together to batches.
//!
//! | endpoint        | first attempts                  | retries                                  |
//! | --------------- | ------------------------------- | ---------------------------------------- |
//! | takes no batches | in a row                       | in a row                                 |
//! | takes batches   | in a row, so many from its head | in groups: what failed together, and else by their number |
//!
//! Whoever asks says how batches are put together; a change of that is told with
//! [`Queue::rearrange`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use fanfare_domain::{Batch, BatchId, Timestamp, endpoint::Batching, fact::InBatch};

use crate::lanes::{Kind, Urgency};

/// How long those that failed together are waited for once the first of them is here. Their alarms
/// go off at the same time, and arrive one after the other.
pub(super) const GATHER: Duration = Duration::from_secs(2);

/// What an event is taken to add to its data in a body.
const OVERHEAD: usize = 128;

/// What is known of an attempt that can be put together with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// The attempt's number. Only those with the same one go together.
    pub(crate) attempt: u32,
    /// What it failed with before.
    pub(crate) batch: Option<InBatch>,
    /// The bytes of the event's data; 0 if they are not at hand.
    pub(crate) bytes: usize,
    /// How urgent it is, if it is a first attempt.
    pub(crate) urgency: Urgency,
}

/// Who goes together.
pub(super) type Key = (u32, Option<BatchId>);

/// How a lane puts batches together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fill {
    /// The most attempts of a request.
    pub(super) max: usize,
    /// How long the first waits for others.
    pub(super) wait: Duration,
}

/// An attempt that waits.
#[derive(Debug)]
struct Entry<T> {
    since: Timestamp,
    load: Load,
    item: T,
}

/// Attempts that go together.
#[derive(Debug)]
struct Group<T> {
    entries: VecDeque<Entry<T>>,
    /// How many are expected.
    size: usize,
    /// Until when the others are waited for.
    until: Timestamp,
}

/// What was taken for one request.
#[derive(Debug)]
pub(super) struct Taken<T> {
    pub(super) first: T,
    pub(super) more: Vec<T>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    kind: Kind,
    row: VecDeque<Entry<T>>,
    row_bytes: usize,
    groups: BTreeMap<Key, Group<T>>,
    /// When each group is ready.
    ready: BTreeSet<(Timestamp, Key)>,
    grouped: usize,
}

impl Load {
    /// Who it goes with.
    pub(super) fn key(&self) -> Key {
        (self.attempt, self.batch.map(|batch| batch.id))
    }

    fn size(&self) -> usize {
        self.bytes + OVERHEAD
    }
}

impl Fill {
    /// How an endpoint's batches are put together; at once where the room gets scarce.
    pub(super) fn of(batching: Batching, is_hurried: bool) -> Self {
        let wait = if is_hurried { Duration::ZERO } else { batching.max_wait };
        Self { max: usize::from(batching.max_events.get()), wait }
    }
}

impl<T> Group<T> {
    /// When it can go: once it is complete, or the others were waited for long enough.
    fn ready_at(&self) -> Timestamp {
        let completed = self.size.checked_sub(1).and_then(|last| self.entries.get(last));
        completed.map_or(self.until, |last| last.since.min(self.until))
    }
}

impl<T> Queue<T> {
    /// Nothing waits.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            row: VecDeque::new(),
            row_bytes: 0,
            groups: BTreeMap::new(),
            ready: BTreeSet::new(),
            grouped: 0,
        }
    }

    /// Since when the oldest of those waits that stand in a row, and of the group that is ready.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let group = self.ready.first().and_then(|(_, key)| self.groups.get(key));
        let first = group.and_then(|group| group.entries.front());
        self.row.front().into_iter().chain(first).map(|entry| entry.since).min()
    }

    /// How many attempts wait.
    pub(super) fn len(&self) -> usize {
        self.row.len() + self.grouped
    }

    /// Tells whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests it takes to send what waits.
    pub(super) fn requests(&self, fill: Option<Fill>) -> usize {
        self.row.len().div_ceil(fill.map_or(1, |fill| fill.max)) + self.groups.len()
    }

    /// Tells whether one that arrives is sent with others that wait already.
    pub(super) fn joins(&self, load: &Load, fill: Option<Fill>) -> bool {
        let Some(fill) = fill else { return false };
        match self.kind {
            Kind::First => !self.row.len().is_multiple_of(fill.max),
            Kind::Retry => load.batch.is_some() && self.groups.contains_key(&load.key()),
        }
    }

    /// Queues an attempt.
    pub(super) fn push(&mut self, item: T, load: Load, fill: Option<Fill>, now: Timestamp) {
        let entry = Entry { since: now, load, item };
        match (self.kind, fill) {
            (Kind::First, _) | (Kind::Retry, None) => {
                self.row_bytes += load.size();
                self.row.push_back(entry);
            }
            (Kind::Retry, Some(fill)) => self.gather(entry, fill),
        }
    }

    /// Takes back what was taken and did not fit its request: it is the next to go, and waits for
    /// nobody.
    pub(super) fn give_back(&mut self, items: Vec<(T, Load)>, fill: Option<Fill>, now: Timestamp) {
        let at_once = Fill { max: fill.map_or(1, |fill| fill.max), wait: Duration::ZERO };
        let since = now.saturating_sub(fill.map_or(Duration::ZERO, |fill| fill.wait));
        match (self.kind, fill) {
            (Kind::First, _) | (Kind::Retry, None) => {
                for (item, load) in items.into_iter().rev() {
                    self.row_bytes += load.size();
                    self.row.push_front(Entry { since, load, item });
                }
            }
            (Kind::Retry, Some(_)) => {
                for (item, load) in items {
                    let key = load.key();
                    self.gather(Entry { since: now, load, item }, at_once);
                    if let Some(mut group) = self.remove(key) {
                        group.until = now;
                        self.insert(key, group);
                    }
                }
            }
        }
    }

    /// When something of it can go, as far as it is up to what waits; `None` if nothing waits.
    pub(super) fn ready_at(&self, fill: Option<Fill>) -> Option<Timestamp> {
        let row = match fill {
            None => self.row.front().map(|_| Timestamp::EPOCH),
            Some(fill) => self.row_ready_at(fill),
        };
        let group = self.ready.first().map(|(at, _)| *at);
        row.into_iter().chain(group).min()
    }

    /// How urgent the next of a row is.
    pub(super) fn urgency(&self) -> Urgency {
        self.row.front().map_or(Urgency::Late, |entry| entry.load.urgency)
    }

    /// Since when it was up to the endpoint that what is next waits.
    pub(super) fn waits_since(&self, fill: Option<Fill>) -> Option<Timestamp> {
        match fill {
            None => self.row.front().map(|entry| entry.since),
            Some(_) => self.ready_at(fill),
        }
    }

    /// Takes what goes in one request. It must be ready.
    pub(super) fn take(&mut self, fill: Option<Fill>) -> Option<Taken<T>> {
        let max = fill.map_or(1, |fill| fill.max);
        let group = self.ready.first().map(|(_, key)| *key);
        let Some(key) = group else { return self.take_from_row(max) };
        let mut group = self.remove(key)?;
        let first = group.entries.pop_front()?.item;
        let rest = group.entries.len().min(max.saturating_sub(1));
        let more = group.entries.drain(..rest).map(|entry| entry.item).collect();
        self.insert(key, group);
        Some(Taken { first, more })
    }

    /// Takes out up to `count` of those that came last. Those that go together are taken together,
    /// and with them more than `count`; each is returned with its group.
    pub(super) fn shed(&mut self, count: usize) -> Vec<(Option<Key>, T)> {
        let from = self.row.len().saturating_sub(count);
        let mut shed = Vec::new();
        for entry in self.row.drain(from..) {
            self.row_bytes = self.row_bytes.saturating_sub(entry.load.size());
            shed.push((None, entry.item));
        }
        while shed.len() < count {
            let Some((_, key)) = self.ready.last().copied() else { break };
            let Some(group) = self.remove(key) else { break };
            shed.extend(group.entries.into_iter().map(|entry| (Some(key), entry.item)));
        }
        shed
    }

    /// Takes out what is wanted.
    pub(super) fn extract(&mut self, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let part = |entries: VecDeque<Entry<T>>| -> (VecDeque<_>, VecDeque<_>) {
            entries.into_iter().partition(|entry| is_wanted(&entry.item))
        };
        let (mut wanted, kept) = part(std::mem::take(&mut self.row));
        self.row = kept;
        self.row_bytes = self.row.iter().map(|entry| entry.load.size()).sum();
        let keys: Vec<Key> = self.ready.iter().map(|(_, key)| *key).collect();
        for key in keys {
            let Some(mut group) = self.remove(key) else { continue };
            let (out, kept) = part(std::mem::take(&mut group.entries));
            wanted.extend(out);
            group.entries = kept;
            self.insert(key, group);
        }
        wanted.into_iter().map(|entry| entry.item).collect()
    }

    /// Goes by another way of putting batches together.
    pub(super) fn rearrange(&mut self, fill: Option<Fill>) {
        if self.kind == Kind::First {
            return;
        }
        let mut entries: Vec<_> = std::mem::take(&mut self.row).into();
        while let Some((_, key)) = self.ready.first().copied() {
            let Some(group) = self.remove(key) else { break };
            entries.extend(group.entries);
        }
        self.row_bytes = 0;
        for Entry { since, load, item } in entries {
            self.push(item, load, fill, since);
        }
    }

    fn row_ready_at(&self, fill: Fill) -> Option<Timestamp> {
        let first = self.row.front()?.since;
        if self.row_bytes >= Batch::BYTES_MAX {
            return Some(first);
        }
        let waited = first.saturating_add(fill.wait);
        let filled = fill.max.checked_sub(1).and_then(|last| self.row.get(last));
        Some(filled.map_or(waited, |last| last.since.min(waited)))
    }

    fn take_from_row(&mut self, max: usize) -> Option<Taken<T>> {
        let entry = self.row.pop_front()?;
        let mut bytes = entry.load.size();
        let mut more = Vec::new();
        while more.len() + 1 < max
            && let Some(next) = self.row.front()
            && bytes + next.load.size() <= Batch::BYTES_MAX
            && let Some(next) = self.row.pop_front()
        {
            bytes += next.load.size();
            more.push(next.item);
        }
        self.row_bytes = self.row_bytes.saturating_sub(bytes);
        Some(Taken { first: entry.item, more })
    }

    fn gather(&mut self, entry: Entry<T>, fill: Fill) {
        let key = entry.load.key();
        let mut group = self.remove(key).unwrap_or_else(|| {
            let (size, wait) = match entry.load.batch {
                Some(batch) => (usize::try_from(batch.size).unwrap_or(fill.max), GATHER),
                None => (fill.max, fill.wait.min(GATHER)),
            };
            let until = entry.since.saturating_add(wait);
            Group { entries: VecDeque::new(), size: size.min(fill.max), until }
        });
        group.entries.push_back(entry);
        self.insert(key, group);
    }

    fn remove(&mut self, key: Key) -> Option<Group<T>> {
        let group = self.groups.remove(&key)?;
        self.ready.remove(&(group.ready_at(), key));
        self.grouped -= group.entries.len();
        Some(group)
    }

    /// Keeps a group, unless nothing is left of it.
    fn insert(&mut self, key: Key, group: Group<T>) {
        if group.entries.is_empty() {
            return;
        }
        self.grouped += group.entries.len();
        self.ready.insert((group.ready_at(), key));
        self.groups.insert(key, group);
    }
}
