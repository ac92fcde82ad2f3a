//! Who may have how many of the process's requests in flight.
//!
//! All shards of a process share the permits. They are not simply first come, first served:
//! endpoints that never answer would hold all of them within seconds. What a lane may hold
//! depends on its standing:
//!
//! | standing | what it is                  | with nothing in flight       | with something in flight |
//! | -------- | --------------------------- | ---------------------------- | ------------------------ |
//! | proven   | answered fast of late       | any permit, the reserve too  | less than twice what is free |
//! | new      | not answered yet            | cautious lanes hold up to ¾  | one more, up to ½ |
//! | slow     | slow of late, or an answer is overdue | cautious lanes hold up to ½ | a share of what is left of that, the smaller the slower |
//!
//! New and slow lanes together are the cautious ones; a lane that turns slow takes along what it
//! holds. The reserve, a sixteenth of all, is for first attempts of proven lanes with nothing in
//! flight: nobody else takes from it, and no lane takes more than one permit. There, "first
//! attempts" are [fresh](Urgency::Fresh) ones.
//!
//! **Guarantee.** A proven lane with nothing in flight finds a permit for its first attempts at
//! once, whatever other endpoints do, as long as fewer endpoints than the reserve has permits
//! stop answering, having answered fast until then, within one time-out. How many endpoints have
//! never answered, or are known to be slow, does not matter.
//!
//! [Late](Urgency::Late) attempts hold three quarters at most. Those to lanes that are not slow are
//! begun at a pace of their own (see [`crate::strain`]): so many between two refills.
//!
//! No lock is held over an await. Workers wait at a [`Door`]: a permit that comes back wakes one
//! of them, the longest waiting that could use it, and whoever was woken passes what it leaves on
//! to the next.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::lanes::Urgency;

/// The most permits that a new lane holds.
const NEW_MAX: usize = 2;

/// The permits of a process.
#[derive(Debug)]
pub(crate) struct Permits {
    max: usize,
    state: Mutex<State>,
    /// Told when a late attempt is begun, or cannot be for want of a turn.
    late: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Held by lanes of each standing.
    held: [usize; Standing::COUNT],
    /// Held by late attempts.
    held_late: usize,
    /// How many late attempts may still begin that are not to slow lanes.
    turns: usize,
    waiting: VecDeque<Waiting>,
    /// Counts what came back, so that nobody is woken twice for the same.
    released: Released,
    doors: u64,
}

/// How many permits came back: of any lane, and of cautious ones.
#[derive(Clone, Copy, Debug, Default)]
struct Released {
    any: u64,
    cautious: u64,
}

/// A worker that found no permit.
#[derive(Debug)]
struct Waiting {
    door: u64,
    notify: Arc<Notify>,
    /// For lanes of which standing, and what it waits for.
    wants: [Option<Wanted>; Standing::COUNT],
    asked_at: Released,
}

/// What can help who was refused.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// Any permit.
    Any,
    /// One that a cautious lane gives back: there are others, but not for them.
    Cautious,
}

/// How a lane is thought of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is known of it.
    New,
    /// It answered fast of late.
    Proven,
    /// It answered slowly of late, or has not answered for long.
    Slow,
}

/// What one lane holds. Changed only under the lock of the permits.
#[derive(Debug)]
pub(crate) struct Share(Arc<Account>);

#[derive(Debug)]
struct Account {
    standing: AtomicU8,
    held: AtomicUsize,
}

/// The right to have one request in flight.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    account: Arc<Account>,
    is_late: bool,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No lane of this standing gets one.
    Standing,
    /// This lane holds its share; another of the same standing may get one.
    Lane,
}

/// Where one worker asks and waits.
#[derive(Debug)]
pub(crate) struct Door {
    permits: Arc<Permits>,
    id: u64,
    notify: Arc<Notify>,
}

impl Standing {
    const COUNT: usize = 3;

    /// Every standing, in the order of what is counted by it.
    pub(crate) const ALL: [Self; Self::COUNT] = [Self::New, Self::Proven, Self::Slow];

    /// The stable name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Proven => "proven",
            Self::Slow => "slow",
        }
    }

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::New => 0,
            Self::Proven => 1,
            Self::Slow => 2,
        }
    }
}

impl Share {
    /// The share of a lane of which nothing is known.
    pub(crate) fn new() -> Self {
        let standing = AtomicU8::new(encode(Standing::New));
        Self(Arc::new(Account { standing, held: AtomicUsize::default() }))
    }

    /// How the lane is thought of.
    pub(crate) fn standing(&self) -> Standing {
        self.0.standing()
    }
}

impl Account {
    fn standing(&self) -> Standing {
        match self.standing.load(Relaxed) {
            0 => Standing::New,
            1 => Standing::Proven,
            _ => Standing::Slow,
        }
    }
}

const fn encode(standing: Standing) -> u8 {
    match standing {
        Standing::New => 0,
        Standing::Proven => 1,
        Standing::Slow => 2,
    }
}

impl Permits {
    /// Makes `max` permits, at least one.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let max = max.max(1);
        let state = State { turns: usize::MAX, ..State::default() };
        Arc::new(Self { max, state: Mutex::new(state), late: Notify::new() })
    }

    /// Lets so many late attempts begin before the next call; returns how many more could have
    /// begun since the last.
    pub(crate) fn refill_turns(&self, count: usize) -> usize {
        let mut state = self.lock();
        let left = std::mem::replace(&mut state.turns, count);
        state.released.any += 1;
        self.wake(&mut state);
        left
    }

    /// Waits until a late attempt is begun, or cannot be for want of a turn. Cancel safe.
    pub(crate) async fn late(&self) {
        self.late.notified().await;
    }

    /// Opens a door for one worker.
    pub(crate) fn door(self: &Arc<Self>) -> Door {
        let mut state = self.lock();
        state.doors += 1;
        Door { permits: Arc::clone(self), id: state.doors, notify: Arc::new(Notify::new()) }
    }

    /// How many requests are in flight.
    pub(crate) fn held(&self) -> usize {
        self.lock().held.iter().sum()
    }

    /// How many may be in flight.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// What is held against each of the bounds, and the bound: of all requests, of those that keep new
    /// lanes and slow ones from more, and of late attempts. Of all, a sixteenth is kept for the few.
    pub(crate) fn bounds(&self) -> [(&'static str, usize, usize); 4] {
        let state = self.lock();
        let [new, proven, slow] = state.held;
        let most = self.three_quarters();
        [
            ("any", new + proven + slow, self.max),
            (Standing::New.as_str(), new + slow, most),
            (Standing::Slow.as_str(), new + slow, self.half()),
            ("late", state.held_late, most),
        ]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Counters that a panic left behind are whole: each change is one addition.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn half(&self) -> usize {
        (self.max / 2).max(1)
    }

    fn three_quarters(&self) -> usize {
        (self.max * 3 / 4).max(1)
    }

    fn reserve(&self) -> usize {
        self.max / 16
    }

    fn free(&self, state: &State) -> usize {
        self.max.saturating_sub(state.held.iter().sum())
    }

    /// Tells whether lanes of a standing can get a permit at all.
    fn is_possible(&self, state: &State, standing: Standing) -> bool {
        let [new, _, slow] = state.held;
        let (free, cautious) = (self.free(state), new + slow);
        match standing {
            Standing::Proven => free > 0,
            Standing::New => free > self.reserve() && cautious < self.three_quarters(),
            Standing::Slow => free > self.reserve() && cautious < self.half(),
        }
    }

    /// Tells whether a lane may have one more than it holds, where that is possible at all.
    fn fits(&self, state: &State, lane: (Standing, usize), time: Duration) -> bool {
        let (standing, held) = lane;
        if held == 0 {
            return true;
        }
        let [new, _, slow] = state.held;
        match standing {
            Standing::Proven => {
                held < self.free(state).saturating_sub(self.reserve()).saturating_mul(2)
            }
            Standing::New => held < NEW_MAX && new + slow < self.half(),
            Standing::Slow => {
                let left = self.half().saturating_sub(new + slow) as u128;
                // Four times what is left for a lane that takes no time, half of that at 1 s.
                let share = left * 4_000 / (1_000 + time.as_millis());
                (held as u128) < share
            }
        }
    }

    /// Wakes the longest waiting worker that could use what is free, and has not been refused
    /// since something came back.
    fn wake(&self, state: &mut State) {
        let possible = Standing::ALL.map(|standing| self.is_possible(state, standing));
        let released = state.released;
        let could = |waiting: &Waiting| {
            let asked_at = waiting.asked_at;
            let mut wants = waiting.wants.iter().zip(possible);
            wants.any(|(wanted, possible)| {
                possible
                    && match wanted {
                        None => false,
                        Some(Wanted::Any) => asked_at.any < released.any,
                        Some(Wanted::Cautious) => asked_at.cautious < released.cautious,
                    }
            })
        };
        let found = state.waiting.iter().position(could);
        if let Some(waiting) = found.and_then(|at| state.waiting.remove(at)) {
            waiting.notify.notify_one();
        }
    }
}

impl Door {
    /// Changes how a lane is thought of; what it holds counts as that from now on.
    pub(crate) fn judge(&self, share: &Share, standing: Standing) {
        if share.standing() == standing {
            return;
        }
        let mut state = self.permits.lock();
        let (before, held) = (share.standing(), share.0.held.load(Relaxed));
        for (which, change) in state.held.iter_mut().enumerate() {
            if which == before.index() {
                *change = change.saturating_sub(held);
            } else if which == standing.index() {
                *change += held;
            }
        }
        share.0.standing.store(encode(standing), Relaxed);
        if before != Standing::Proven {
            state.released.came_back(before);
            self.permits.wake(&mut state);
        }
    }

    /// Takes a permit for a lane whose requests take `time`. Whoever is refused is in line, and
    /// is woken through [`Self::knocked`].
    pub(crate) fn take(
        &self,
        share: &Share,
        time: Duration,
        urgency: Urgency,
    ) -> Result<Permit, Refusal> {
        let mut state = self.permits.lock();
        let (standing, held) = (share.standing(), share.0.held.load(Relaxed));
        let is_late = urgency == Urgency::Late;
        let is_paced = is_late && standing != Standing::Slow;
        if is_paced {
            self.permits.late.notify_one();
        }
        let is_over = is_paced && state.turns == 0;
        // The reserve is for first attempts.
        let is_kept = is_late
            && (self.permits.free(&state) <= self.permits.reserve()
                || state.held_late >= self.permits.three_quarters());
        let refusal = if is_over || is_kept || !self.permits.is_possible(&state, standing) {
            Refusal::Standing
        } else if self.permits.fits(&state, (standing, held), time) {
            if let Some(count) = state.held.get_mut(standing.index()) {
                *count += 1;
            }
            share.0.held.store(held + 1, Relaxed);
            if is_late {
                state.held_late += 1;
            }
            if is_paced {
                state.turns -= 1;
            }
            let (permits, account) = (Arc::clone(&self.permits), Arc::clone(&share.0));
            return Ok(Permit { permits, account, is_late });
        } else {
            Refusal::Lane
        };
        self.stand_in_line(&mut state, standing);
        Err(refusal)
    }

    /// Waits until something came back that this worker could use. Cancel safe: a turn that came
    /// meanwhile is kept for the next call.
    pub(crate) async fn knocked(&self) {
        self.notify.notified().await;
    }

    /// Lets the next one try what this worker, which was woken, has left.
    pub(crate) fn pass_on(&self) {
        let mut state = self.permits.lock();
        self.permits.wake(&mut state);
    }

    fn stand_in_line(&self, state: &mut State, standing: Standing) {
        let asked_at = state.released;
        let is_short = self.permits.free(state) <= self.permits.reserve();
        let wanted = match standing {
            Standing::New | Standing::Slow if !is_short => Wanted::Cautious,
            Standing::New | Standing::Slow | Standing::Proven => Wanted::Any,
        };
        if !state.waiting.iter().any(|waiting| waiting.door == self.id) {
            let notify = Arc::clone(&self.notify);
            let wants = [None; Standing::COUNT];
            state.waiting.push_back(Waiting { door: self.id, notify, wants, asked_at });
        }
        // Whoever is in line already keeps its place, and what came back since counts for it.
        let ours = state.waiting.iter_mut().find(|waiting| waiting.door == self.id);
        if let Some(before) = ours.and_then(|ours| ours.wants.get_mut(standing.index())) {
            *before = Some(wanted);
        }
    }
}

impl Released {
    fn came_back(&mut self, standing: Standing) {
        self.any += 1;
        match standing {
            Standing::New | Standing::Slow => self.cautious += 1,
            Standing::Proven => {}
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.waiting.retain(|waiting| waiting.door != self.id);
        // A turn that it had and did not use.
        self.permits.wake(&mut state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        let standing = self.account.standing();
        if let Some(count) = state.held.get_mut(standing.index()) {
            *count = count.saturating_sub(1);
        }
        let held = self.account.held.load(Relaxed);
        self.account.held.store(held.saturating_sub(1), Relaxed);
        if self.is_late {
            state.held_late = state.held_late.saturating_sub(1);
        }
        state.released.came_back(standing);
        self.permits.wake(&mut state);
    }
}

#[cfg(test)]
mod tests;
