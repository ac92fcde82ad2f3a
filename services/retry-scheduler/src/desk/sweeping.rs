//! Looks after alarms that should have gone off: the servers can forget one for ever.
//!
//! An alarm is *stuck* if it is still stored although its time has long passed. It is *missing* if
//! it is neither stored nor can be in the due queue: the queue is empty, or everything in it is
//! younger. A first attempt that was put off may be its endpoint's feed's by now: then its alarm goes
//! off in vain, and is not missed. Between looking and acting the journal is read up to where it was after the look, so
//! that what a dispatcher had just taken from the queue is not mistaken for missing.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use anyhow::Context as _;
use fanfare_domain::{DeliveryId, RetryDue, Shard, Timestamp, feed::PutOff};
use fanfare_event_log::{EventLog, ReadError, Schedules};
use fanfare_service::delivery_line;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Desk, Tools, jobs, jobs::Done};
use crate::agenda::{Overdue, Patience, alarm};

/// The most alarms of a shard that are looked at in one sweep.
const LOOKS_MAX: usize = 256;
/// How many questions of a sweep are asked at once.
const QUESTIONS_MAX: usize = 16;

/// The sweeps.
pub(super) struct Sweeping {
    /// Whether alarms are being looked at.
    running: bool,
    next_at: Instant,
    /// Whether the sweep found so much that there may well be more.
    again: bool,
    /// Since when alarms have had a fair chance to go off.
    calm_since: Timestamp,
    /// How long ago the oldest alarm should have gone off, at the last sweep.
    pub(super) past_due: Duration,
    /// What is to be done once the journal is read up to the key.
    found: BTreeMap<u64, Vec<Finding>>,
}

/// What a look at a shard's overdue alarms brought up.
pub(super) struct Findings {
    found: Vec<Finding>,
    /// The last sequence of the journal after the look.
    barrier: u64,
    /// Whether as many alarms were looked at as one sweep may.
    was_full: bool,
}

/// An alarm that did not go off.
struct Finding {
    overdue: Overdue,
    retry: RetryDue,
    state: State,
}

/// What is wrong with an alarm.
#[derive(Clone, Copy, Debug)]
enum State {
    Stuck,
    Missing,
    /// Missing, and not missed: a feed makes the attempt.
    Fed,
}

impl Sweeping {
    /// Begins at an instant; alarms had no fair chance to go off before.
    pub(super) fn new(calm_since: Timestamp) -> Self {
        let (running, again, found) = (false, false, BTreeMap::new());
        let (next_at, past_due) = (Instant::now(), Duration::ZERO);
        Self { running, next_at, again, calm_since, past_due, found }
    }

    /// Returns up to where the journal has to be read before anything can be done.
    pub(super) fn barrier(&self, position: u64) -> Option<u64> {
        self.found.keys().next().copied().filter(|barrier| *barrier > position)
    }
}

impl Desk {
    /// Has overdue alarms looked at, if it is time to.
    pub(super) fn sweep(&mut self) {
        let now = self.tools.now();
        if !self.tools.log.is_connected() {
            self.sweeping.calm_since = now;
        }
        if self.sweeping.running
            || !self.sweeping.found.is_empty()
            || Instant::now() < self.sweeping.next_at
        {
            return;
        }
        self.review();
        let (calm_since, grace) = (self.sweeping.calm_since, self.tools.settings.sweep_grace);
        let overdue = self.agenda.overdue(Patience { now, calm_since, grace }, LOOKS_MAX);
        self.sweeping.past_due = self.agenda.past_due(grace, now);
        if !overdue.is_empty() {
            self.sweeping.running = true;
            self.jobs.spawn(look(self.tools.clone(), self.shard, overdue));
        }
        self.sweeping.again = false;
        self.sweeping.next_at = Instant::now() + self.tools.settings.sweep_interval;
    }

    /// Takes note of what a look brought up.
    pub(super) fn looked(&mut self, findings: Option<Findings>) {
        self.sweeping.running = false;
        let Some(Findings { found, barrier, was_full }) = findings else {
            // Whatever kept us from looking may keep alarms from going off as well.
            self.sweeping.calm_since = self.tools.now();
            return;
        };
        if found.is_empty() {
            return;
        }
        self.sweeping.again |= was_full;
        self.sweeping.found.entry(barrier).or_default().extend(found);
    }

    /// Sets alarms once more, those whose deliveries still wait for them now that the journal is
    /// read as far as it was when they were looked at.
    pub(super) async fn rescue(&mut self) -> anyhow::Result<()> {
        while let Some(entry) = self.sweeping.found.first_entry() {
            if *entry.key() > self.position {
                break;
            }
            for finding in entry.remove() {
                self.rescue_one(&finding).await?;
            }
        }
        if self.sweeping.again && !self.sweeping.running && self.sweeping.found.is_empty() {
            self.sweeping.next_at = Instant::now();
            self.sweep();
        }
        Ok(())
    }

    async fn rescue_one(&mut self, finding: &Finding) -> anyhow::Result<()> {
        let Finding { overdue: Overdue { delivery, sequence, due }, retry, state } = finding;
        let (now, shard) = (self.tools.now(), self.shard);
        if !self.agenda.rescue(*delivery, *sequence, now) {
            return Ok(());
        }
        self.saved.note_change();
        if matches!(state, State::Fed) {
            debug!(delivery_id = %delivery, %shard, "left to its endpoint's feed");
            return Ok(());
        }
        delivery_line!(
            warn, (retry.delivery, retry.trace), "an alarm did not go off and is set again",
            attempt = retry.attempt,
            %shard,
            ?state,
            late = ?now.since(*due),
        );
        self.tools.wait_for_lease().await;
        match self.tools.schedules.rescue(shard, retry).await {
            Ok(pending) => {
                self.tools.counters.rescues.add(1);
                self.alarms += 1;
                self.setting.begin(*delivery);
                self.jobs.spawn(jobs::rescue(*delivery, pending));
                Ok(())
            }
            Err(error) => jobs::full(error).context("rescue an alarm"),
        }
    }
}

async fn look(tools: Tools, shard: Shard, overdue: Vec<Overdue>) -> anyhow::Result<Done> {
    let grace = tools.settings.sweep_grace;
    let findings = match find(&tools.log, &tools.schedules, shard, &overdue, grace).await {
        Ok(findings) => Some(findings),
        Err(error) => {
            warn!(%error, %shard, "overdue alarms could not be looked at");
            None
        }
    };
    Ok(Done::Looked { findings })
}

async fn find(
    log: &EventLog,
    schedules: &Schedules,
    shard: Shard,
    overdue: &[Overdue],
    grace: Duration,
) -> Result<Findings, ReadError> {
    let stored = async |overdue: Overdue| {
        Ok::<_, ReadError>((overdue, schedules.get(shard, overdue.delivery).await?))
    };
    let looked: Vec<_> = stream::iter(overdue.iter().copied())
        .map(stored)
        .buffered(QUESTIONS_MAX)
        .try_collect()
        .await?;
    // Asked for after the alarms: one that went off in between is in the queue by now.
    let oldest = schedules.oldest_due(shard).await?;
    let (mut found, mut missing) = (Vec::new(), BTreeMap::new());
    for (overdue, retry) in looked {
        match retry {
            Some(retry) => found.push(Finding { overdue, retry, state: State::Stuck }),
            None if is_missing(&overdue, oldest, grace) => {
                missing.entry(overdue.sequence).or_insert_with(Vec::new).push(overdue);
            }
            None => debug!(delivery_id = %overdue.delivery, %shard, "still in the due queue"),
        }
    }
    let restored: Vec<Vec<Finding>> = stream::iter(missing)
        .map(async |(sequence, overdue)| restore(log, sequence, &overdue).await)
        .buffered(QUESTIONS_MAX)
        .try_collect()
        .await?;
    found.extend(leave_to_feeds(log, shard, restored.into_iter().flatten().collect()).await?);
    let barrier = log.journal_last().await?;
    Ok(Findings { found, barrier, was_full: overdue.len() == LOOKS_MAX })
}

/// Tells whether an alarm that is not stored cannot be in the due queue either.
fn is_missing(overdue: &Overdue, oldest: Option<Timestamp>, grace: Duration) -> bool {
    let latest = overdue.due.saturating_add(grace).saturating_add(Duration::from_secs(1));
    oldest.is_none_or(|oldest| oldest > latest)
}

/// Finds those among missing alarms whose attempts the feeds of their endpoints make. Asked for after
/// the due queue: an alarm is passed over only once it is stored that it may be.
async fn leave_to_feeds(
    log: &EventLog,
    shard: Shard,
    mut missing: Vec<Finding>,
) -> Result<Vec<Finding>, ReadError> {
    let mut feeds = BTreeMap::new();
    for Finding { retry, state, .. } in &mut missing {
        let RetryDue { delivery, due_at, .. } = &*retry;
        if retry.attempt > 1 || delivery.generation > 0 {
            continue;
        }
        let feed = match feeds.entry(delivery.endpoint) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(log.feed(shard, delivery.endpoint).await?),
        };
        let put_off = PutOff { sequence: delivery.event_sequence, until: *due_at };
        if feed.as_ref().is_some_and(|feed| feed.took_over(put_off)) {
            *state = State::Fed;
        }
    }
    Ok(missing)
}

/// Makes missing alarms from the facts that gave them their time.
async fn restore(
    log: &EventLog,
    sequence: u64,
    overdue: &[Overdue],
) -> Result<Vec<Finding>, ReadError> {
    let Some(batch) = log.journal_batch(sequence).await? else { return Ok(Vec::new()) };
    let of = |delivery: DeliveryId| {
        let mut alarms = batch.facts.iter().filter_map(|record| alarm(sequence, record));
        alarms.find(|retry| retry.delivery.id == delivery)
    };
    let finding = |overdue: &Overdue| {
        let retry = of(overdue.delivery)?;
        Some(Finding { overdue: *overdue, retry, state: State::Missing })
    };
    Ok(overdue.iter().filter_map(finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{NOW, after, delivery};

    #[test]
    fn an_alarm_is_missing_if_it_cannot_be_in_the_due_queue() {
        let grace = Duration::from_secs(5);
        let overdue = Overdue { delivery: delivery(1).id, sequence: 1, due: NOW };
        for (oldest, missing) in
            [(None, true), (Some(after(0)), false), (Some(after(6)), false), (Some(after(7)), true)]
        {
            assert_eq!(is_missing(&overdue, oldest, grace), missing, "{oldest:?}");
        }
    }
}
