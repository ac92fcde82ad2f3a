//! The task behind a membership: beats the heart, watches the others, writes the table.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_domain::ShardCount;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Released, Share,
    roster::Roster,
    table::{Key, Keys, Owners, State},
    watching::{self, Seen, What},
};
use crate::{
    EventLog, ReadError,
    cas::{Cell, Set, Write},
    topology::Bucket,
};

/// How often the heart beats.
const BEAT: Duration = Duration::from_millis(200);
/// After how long without one of our own beats the watch is begun anew.
const LATE: Duration = Duration::from_secs(1);
/// How long to wait after the servers refused a write.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How long leaving may take once nobody works any more.
const FAREWELL: Duration = Duration::from_secs(2);
/// How many changes may wait to be looked at.
const SEEN_MAX: usize = 256;

/// See the module.
pub(super) struct Driver {
    pub(super) log: EventLog,
    pub(super) keys: Keys,
    /// How many shards there are to share.
    pub(super) count: ShardCount,
    /// What our ids begin with.
    pub(super) owner: String,
    pub(super) confirmed: watch::Sender<Option<Instant>>,
    pub(super) shares: watch::Sender<Share>,
    pub(super) released: Arc<watch::Sender<Released>>,
    pub(super) stop: CancellationToken,
}

/// How a membership ended.
enum Ended {
    /// We left.
    Left,
    /// The others took us for dead. The number of the next grant.
    Evicted(u64),
}

/// One membership, under one id.
struct Turn<'a> {
    driver: &'a Driver,
    me: Arc<str>,
    roster: Roster,
    lost: CancellationToken,
    jobs: JoinSet<Job>,
    /// The sequence of our last beat.
    beat: u64,
    beating: bool,
    writing: bool,
    evicting: BTreeSet<Arc<str>>,
    state: State,
    /// When our own heart was last seen, or the watch begun anew.
    seen_at: Instant,
    late: Arc<Notify>,
    /// When to end even if the table cannot be written.
    deadline: Option<Instant>,
}

/// What came of joining.
enum Joined {
    /// We are a member; when our first beat was sent, and its sequence.
    As(Instant, u64),
    /// Something else stands where our beat was to be. It may have been there, and was taken for that
    /// of the dead before we knew.
    Not,
    /// The stop came first.
    Stopped,
}

/// A write that has ended.
enum Job {
    /// Of our heart, sent at that time.
    Beat(Instant, Option<Set>),
    /// Of the table.
    Table(Owners, Option<Set>),
    /// That deletes the key of a dead member.
    Eviction(Arc<str>, Option<Set>),
}

/// Something that happened.
enum Event {
    Tick,
    Job(Result<Job, JoinError>),
    Seen(Option<Seen>),
    Released,
    Stop,
    Deadline,
}

impl Driver {
    /// Is a member until the stop, under a new id whenever the others took us for dead.
    pub(super) async fn run(self) -> Result<(), ReadError> {
        let (mut number, mut next) = (1_u64, 0);
        while !self.stop.is_cancelled() {
            let me = match number {
                1 => self.owner.clone(),
                _ => format!("{}-{number}", self.owner),
            };
            number += 1;
            match self.take_turn(Arc::from(me), next).await? {
                Ended::Left => return Ok(()),
                Ended::Evicted(after) => next = after,
            }
        }
        Ok(())
    }

    async fn take_turn(&self, me: Arc<str>, next: u64) -> Result<Ended, ReadError> {
        let (sent, beat) = match self.join(&me).await {
            Joined::As(sent, beat) => (sent, beat),
            Joined::Not => return Ok(Ended::Evicted(next)),
            Joined::Stopped => return Ok(Ended::Left),
        };
        self.confirmed.send_replace(Some(sent));
        let lost = CancellationToken::new();
        let member = Arc::clone(&me);
        self.shares.send_replace(Share { member, lost: lost.clone(), ..Share::default() });
        info!(role = self.keys.role(), member = &*me, "joined");
        let turn = Turn {
            driver: self,
            roster: Roster::new(self.count, Arc::clone(&me), next),
            me,
            lost,
            jobs: JoinSet::new(),
            beat,
            beating: false,
            writing: false,
            evicting: BTreeSet::new(),
            state: State::Live,
            seen_at: Instant::now(),
            late: Arc::default(),
            deadline: None,
        };
        Box::pin(turn.run()).await
    }

    /// Writes our first beat.
    async fn join(&self, me: &str) -> Joined {
        let cell = self.cell(&self.keys.member(me));
        let joining = async {
            loop {
                let sent = Instant::now();
                match write(&cell, 0, &Write::Value(State::Live.encode())).await {
                    Some(Set::Stored(beat)) => return Joined::As(sent, beat),
                    Some(Set::Conflict(_)) => {
                        warn!(role = self.keys.role(), member = me, "joins under another name");
                        sleep(REFUSED_PAUSE).await;
                        return Joined::Not;
                    }
                    None => {}
                }
            }
        };
        let joined = self.stop.run_until_cancelled(joining).await;
        if joined.is_none() {
            // The write may have been under way.
            let deleting = async {
                let held = cell.get().await.ok().flatten();
                let here = held.filter(|held| held.value.is_some());
                if let Some(held) = here {
                    write(&cell, held.sequence, &Write::Deleted).await;
                }
            };
            let _ = timeout(FAREWELL, deleting).await;
        }
        joined.unwrap_or(Joined::Stopped)
    }

    fn cell(&self, key: &str) -> Cell {
        self.log.key(&self.log.topology().bucket(Bucket::Owners), key)
    }
}

impl Turn<'_> {
    async fn run(mut self) -> Result<Ended, ReadError> {
        let (seeing, mut seen) = mpsc::channel(SEEN_MAX);
        let mut watching = JoinSet::new();
        let (log, keys) = (self.driver.log.clone(), self.driver.keys.clone());
        watching.spawn(watching::watch(log, keys, seeing, Arc::clone(&self.late)));
        let mut released = self.driver.released.subscribe();
        released.mark_changed();
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.has_left() {
            self.act();
            let deadline = self.deadline.unwrap_or_else(Instant::now);
            let event = tokio::select! {
                _ = ticks.tick(), if !self.beating => Event::Tick,
                Some(job) = self.jobs.join_next() => Event::Job(job),
                seen = seen.recv() => Event::Seen(seen),
                Ok(()) = released.changed() => Event::Released,
                () = self.driver.stop.cancelled(), if self.state == State::Live => Event::Stop,
                () = sleep_until(deadline), if self.deadline.is_some() => Event::Deadline,
            };
            match event {
                Event::Tick => self.beat(),
                Event::Job(job) => {
                    if self.finished(job).is_err() {
                        return Ok(self.lose(released).await);
                    }
                }
                Event::Seen(Some(seen)) => self.saw(seen.sequence, seen.what),
                Event::Seen(None) => return ended(watching).await,
                Event::Released => {
                    if self.take_back() && self.state == State::Live {
                        self.leave(&mut ticks);
                    }
                }
                Event::Stop => self.leave(&mut ticks),
                Event::Deadline => break,
            }
        }
        self.say_farewell().await;
        Ok(Ended::Left)
    }

    /// Does what the roster asks for.
    fn act(&mut self) {
        let wanted = self.roster.decide();
        if let Some((expected, owners)) = wanted.filter(|_| !self.writing) {
            self.writing = true;
            let cell = self.driver.cell(&self.driver.keys.table());
            self.jobs.spawn(async move {
                let written = write(&cell, expected, &Write::Value(owners.encode())).await;
                Job::Table(owners, written)
            });
        }
        let dead: Vec<_> = self.roster.deaths().dead().collect();
        for (member, beat) in dead {
            if self.evicting.insert(Arc::clone(member)) {
                let cell = self.driver.cell(&self.driver.keys.member(member));
                let member = Arc::clone(member);
                self.jobs.spawn(async move {
                    let written = write(&cell, beat, &Write::Deleted).await;
                    Job::Eviction(member, written)
                });
            }
        }
        let (grants, withdrawn) = self.roster.grants();
        self.driver.shares.send_if_modified(|share| {
            let changed = share.grants != grants || share.withdrawn != withdrawn;
            (share.grants, share.withdrawn) = (grants, withdrawn);
            changed
        });
    }

    fn beat(&mut self) {
        self.beating = true;
        let cell = self.driver.cell(&self.driver.keys.member(&self.me));
        let (expected, value) = (self.beat, Write::Value(self.state.encode()));
        self.jobs.spawn(async move {
            let sent = Instant::now();
            let written = write(&cell, expected, &value).await;
            Job::Beat(sent, written)
        });
    }

    /// Takes note of what a write came to; an error if it says that we were evicted.
    fn finished(&mut self, job: Result<Job, JoinError>) -> Result<(), Lost> {
        let job = job.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        match job {
            Job::Beat(sent, written) => {
                self.beating = false;
                match written {
                    Some(Set::Stored(sequence)) => self.confirm(sent, sequence),
                    Some(Set::Conflict(_)) => return Err(Lost),
                    None => {}
                }
            }
            Job::Table(owners, written) => {
                self.writing = false;
                match written {
                    Some(Set::Stored(sequence)) => self.saw(sequence, What::Table(owners)),
                    Some(Set::Conflict(Some(held))) => {
                        let Seen { sequence, what } = Seen::of(Key::Table, &held);
                        self.saw(sequence, what);
                    }
                    Some(Set::Conflict(None)) => self.saw(0, What::Table(Owners::default())),
                    None => {}
                }
            }
            Job::Eviction(member, written) => {
                self.evicting.remove(&member);
                match written {
                    Some(Set::Stored(sequence)) => {
                        warn!(role = self.role(), member = &*member, "evicted a dead member");
                        self.saw(sequence, What::Member(member, None));
                    }
                    Some(Set::Conflict(Some(held))) => {
                        let Seen { sequence, what } = Seen::of(Key::Member(member), &held);
                        self.saw(sequence, what);
                    }
                    Some(Set::Conflict(None)) => self.saw(0, What::Member(member, None)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn confirm(&mut self, sent: Instant, sequence: u64) {
        self.beat = sequence;
        self.driver.confirmed.send_replace(Some(sent));
        if self.seen_at.elapsed() > LATE {
            self.seen_at = Instant::now();
            self.late.notify_one();
        }
    }

    fn saw(&mut self, sequence: u64, what: What) {
        let now = Instant::now();
        match what {
            What::Member(member, state) => {
                if member == self.me {
                    self.seen_at = now;
                }
                self.roster.saw_member(&member, sequence, state, now);
            }
            What::Table(owners) => self.roster.saw_table(sequence, owners, now),
        }
    }

    /// Takes back what nobody works on any more. Returns whether nobody will work on anything.
    fn take_back(&mut self) -> bool {
        let mut grants = BTreeSet::new();
        let mut everything = false;
        self.driver.released.send_if_modified(|released| {
            grants = std::mem::take(&mut released.grants);
            everything = released.everything;
            false
        });
        for grant in grants {
            self.roster.release(grant);
        }
        if everything {
            self.roster.release_everything();
        }
        self.note_end();
        everything
    }

    fn leave(&mut self, ticks: &mut Interval) {
        info!(role = self.role(), member = &*self.me, shards = self.roster.held(), "leaving");
        self.state = State::Leaving;
        self.roster.leave();
        ticks.reset_immediately();
        self.note_end();
    }

    fn note_end(&mut self) {
        if self.state == State::Leaving && self.roster.held() == 0 {
            self.deadline.get_or_insert_with(|| Instant::now() + FAREWELL);
        }
    }

    /// Whether nothing is ours any more, and everybody can know.
    fn has_left(&self) -> bool {
        self.deadline.is_some() && !self.writing && !self.roster.owns_any()
    }

    /// Deletes our key: the others need not wait for our death. Best effort.
    async fn say_farewell(mut self) {
        let deleting = async {
            while self.beating {
                let Some(job) = self.jobs.join_next().await else { break };
                self.finished(job)?;
            }
            let cell = self.driver.cell(&self.driver.keys.member(&self.me));
            write(&cell, self.beat, &Write::Deleted).await;
            Ok::<(), Lost>(())
        };
        if !matches!(timeout(FAREWELL, deleting).await, Ok(Ok(()))) {
            debug!(role = self.role(), member = &*self.me, "left without a word");
        }
        self.driver.confirmed.send_replace(None);
    }

    /// Has everything dropped at once, and waits until it is. Only then may we be a member again:
    /// a lease covers whatever still works.
    async fn lose(mut self, mut released: watch::Receiver<Released>) -> Ended {
        warn!(role = self.role(), member = &*self.me, "was taken for dead, and joins anew");
        self.driver.confirmed.send_replace(None);
        self.lost.cancel();
        let (grants, mut withdrawn) = self.roster.grants();
        withdrawn.extend(grants);
        self.driver.shares.send_replace(Share { withdrawn, ..Share::default() });
        self.take_back();
        while self.roster.held() > 0 && released.changed().await.is_ok() {
            self.take_back();
        }
        Ended::Evicted(self.roster.next())
    }

    fn role(&self) -> &str {
        self.driver.keys.role()
    }
}

/// The others took us for dead.
struct Lost;

/// Why the watch has ended.
async fn ended(mut watching: JoinSet<Result<(), ReadError>>) -> Result<Ended, ReadError> {
    let Some(ended) = watching.join_next().await else { return Err(ReadError::Closed) };
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    Err(ReadError::Closed)
}

/// Writes one key. `None` if the servers refuse it, for example because storage is short.
async fn write(cell: &Cell, expected: u64, write: &Write) -> Option<Set> {
    match cell.set(expected, write).await {
        Ok(set) => Some(set),
        Err(error) => {
            warn!(%error, "what members tell each other was refused");
            sleep(REFUSED_PAUSE).await;
            None
        }
    }
}
