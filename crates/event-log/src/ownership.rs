//! Who does a piece of work that only one process may do: a heartbeat in a key-value bucket.
//!
//! The heartbeat decides who *claims*; the claim in the journal guards the records, and
//! [`Lease::confirmed_at`] guards requests. Nobody's wall clock matters: who waits watches the
//! key on its own monotonic clock, and every write is a compare-and-set.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    EventLog, ReadError,
    cas::{self, Cell, Held, Set, Unanswered, Write},
    topology::Bucket,
};

/// How long a heartbeat may fail to change before another process takes over.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(3);

/// How often the heart beats.
const BEAT: Duration = Duration::from_millis(200);
/// How often who waits looks.
const LOOK: Duration = Duration::from_millis(200);
/// The longest time between two looks for which they count as one watch. After a longer one
/// (the servers were away, or we were stopped) the watch begins anew, so that a holder who was
/// away for the same reason has its chance to come back.
const LOOK_GAP_MAX: Duration = Duration::from_secs(1);
/// How long to wait after the servers refused a heartbeat.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How long releasing a role may take.
const RELEASE: Duration = Duration::from_secs(2);

/// The right to do a role's work, as long as heartbeats succeed. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    confirmed: watch::Receiver<Instant>,
    lost: CancellationToken,
}

/// Another process has the role.
#[derive(Debug, thiserror::Error)]
#[error("the role {role} was taken by {owner}")]
pub struct Taken {
    /// The role.
    pub role: String,
    /// Who has it.
    pub owner: String,
}

impl EventLog {
    /// Waits until nobody else holds the role (at once if it was released; [`TAKEOVER_AFTER`]
    /// without a change, measured on our own clock, if its holder died), then takes it.
    /// Returns `None` if `stop` came first.
    ///
    /// The returned future beats the heart every 200 ms by compare-and-set until `stop`, then
    /// releases the role; the caller spawns it. While the servers are away it goes on trying:
    /// the lease only gets old. It ends with an error, whose source is a [`Taken`], when another
    /// process has taken the role. Dropping it does not release the role: others wait it out.
    ///
    /// `role` is made of letters, digits, `-`, `_` and single dots; `owner` is unique to a
    /// process's run.
    pub async fn acquire(
        &self,
        role: &str,
        owner: &str,
        stop: CancellationToken,
    ) -> Result<
        Option<(Lease, impl Future<Output = Result<(), ReadError>> + Send + use<>)>,
        ReadError,
    > {
        let cell = self.key(&self.topology().bucket(Bucket::Owners), role);
        let role = Role { name: role.to_owned(), cell, value: Bytes::from(owner.to_owned()) };
        let Some((sequence, at)) = stop.run_until_cancelled(role.take()).await else {
            // A write may have been under way.
            role.release().await;
            return Ok(None);
        };
        let (beats, confirmed) = watch::channel(at);
        let lost = CancellationToken::new();
        let lease = Lease { confirmed, lost: lost.clone() };
        Ok(Some((lease, role.hold(sequence, beats, lost, stop))))
    }
}

impl Lease {
    /// When the role was last confirmed, on the monotonic clock: the time at which the heartbeat
    /// was *sent* that the server took.
    pub fn confirmed_at(&self) -> Instant {
        *self.confirmed.borrow()
    }

    /// Cancelled when the role is lost for good.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }
}

struct Role {
    name: String,
    cell: Cell,
    /// Who we are.
    value: Bytes,
}

/// What is known of somebody else's heartbeat.
struct Watch {
    /// The last beat; 0 if there is none.
    sequence: u64,
    /// When it was first seen.
    since: Instant,
    /// When the last look was answered.
    looked_at: Instant,
}

impl Watch {
    /// Takes a look that was asked for and answered at these times, and tells whether the role
    /// may be taken from `held`.
    fn look(&mut self, held: Option<&Held>, asked: Instant, answered: Instant) -> bool {
        let sequence = held.map_or(0, |held| held.sequence);
        let held = held.is_some_and(|held| held.value.is_some());
        let broken = asked.duration_since(self.looked_at) > LOOK_GAP_MAX;
        self.looked_at = answered;
        if !held {
            return true;
        }
        if broken || sequence != self.sequence {
            (self.sequence, self.since) = (sequence, answered);
        }
        asked.duration_since(self.since) >= TAKEOVER_AFTER
    }
}

impl Role {
    /// Waits for the role to be free and takes it. Returns the sequence of our first beat, and
    /// when it was sent.
    async fn take(&self) -> (u64, Instant) {
        let now = Instant::now();
        let mut watch = Watch { sequence: 0, since: now, looked_at: now };
        loop {
            let asked = Instant::now();
            match self.cell.get().await {
                Ok(held) if watch.look(held.as_ref(), asked, Instant::now()) => {
                    let expected = held.map_or(0, |held| held.sequence);
                    let sent = Instant::now();
                    if let Some(Set::Stored(sequence)) = self.beat(expected).await {
                        info!(role = self.name, "took the role");
                        return (sequence, sent);
                    }
                }
                Ok(_) => {}
                Err(error) => debug!(%error, role = self.name, "cannot see who holds the role"),
            }
            sleep(LOOK).await;
        }
    }

    async fn hold(
        self,
        mut sequence: u64,
        beats: watch::Sender<Instant>,
        lost: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), ReadError> {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let beating = async {
            loop {
                ticks.tick().await;
                let sent = Instant::now();
                match self.beat(sequence).await {
                    Some(Set::Stored(stored)) => {
                        sequence = stored;
                        beats.send_replace(sent);
                    }
                    Some(Set::Conflict(held)) => sequence = self.still_ours(held)?,
                    None => {}
                }
            }
        };
        let ended: Option<Result<(), ReadError>> = stop.run_until_cancelled(beating).await;
        if let Some(Err(error)) = ended {
            lost.cancel();
            return Err(error);
        }
        self.release().await;
        Ok(())
    }

    /// Returns the sequence to go on from if nobody has the role: an operator deleted the key.
    fn still_ours(&self, held: Option<Held>) -> Result<u64, ReadError> {
        match held {
            Some(Held { value: Some(owner), .. }) => {
                let owner = String::from_utf8_lossy(&owner).into_owned();
                warn!(role = self.name, owner, "another process took the role");
                Err(cas::refused(self.cell.stream(), Taken { role: self.name.clone(), owner }))
            }
            Some(Held { sequence, value: None, .. }) => Ok(sequence),
            None => Ok(0),
        }
    }

    /// Lets a successor in at once. Best effort: it gets in by itself after a while.
    async fn release(&self) {
        let releasing = async {
            let mut held = self.cell.get().await?;
            // A beat may have been under way when we were stopped, and come in between.
            while let Some(ours) = held.filter(|held| held.value.as_ref() == Some(&self.value)) {
                held = match self.cell.set(ours.sequence, &Write::Deleted).await {
                    Ok(Set::Conflict(held)) => held,
                    Ok(Set::Stored(_)) | Err(_) => break,
                };
            }
            Ok::<(), Unanswered>(())
        };
        if !matches!(timeout(RELEASE, releasing).await, Ok(Ok(()))) {
            debug!(role = self.name, "the role could not be released");
        }
    }

    /// Writes a heartbeat. `None` if the servers refuse it, for example because storage is short:
    /// then nobody can take the role either.
    async fn beat(&self, expected: u64) -> Option<Set> {
        match self.cell.set(expected, &Write::Value(self.value.clone())).await {
            Ok(set) => Some(set),
            Err(error) => {
                warn!(%error, role = self.name, "a heartbeat was refused");
                sleep(REFUSED_PAUSE).await;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(sequence: u64) -> Held {
        Held::for_tests(sequence, Some(Bytes::from_static(b"other")))
    }

    /// Looks every 200 ms, `times` times, and returns at which look the role was free.
    fn looks(watch: &mut Watch, held: &Held, from: Instant, times: u32) -> Option<u32> {
        (0..times).find(|&look| {
            let at = from + LOOK * look;
            watch.look(Some(held), at, at)
        })
    }

    fn watch(at: Instant) -> Watch {
        Watch { sequence: 0, since: at, looked_at: at }
    }

    #[test]
    fn a_still_heart_is_taken_over_after_three_seconds() {
        let start = Instant::now();
        assert_eq!(looks(&mut watch(start), &held(7), start, 100), Some(15));
    }

    #[test]
    fn a_beat_begins_the_wait_anew() {
        let start = Instant::now();
        let mut watch = watch(start);
        assert_eq!(looks(&mut watch, &held(7), start, 15), None);
        assert_eq!(looks(&mut watch, &held(8), start + LOOK * 15, 100), Some(15));
    }

    #[test]
    fn time_without_answers_does_not_count() {
        let start = Instant::now();
        let mut watch = watch(start);
        assert_eq!(looks(&mut watch, &held(7), start, 5), None);
        let later = start + Duration::from_mins(1);
        assert_eq!(looks(&mut watch, &held(7), later, 100), Some(15));
    }

    #[test]
    fn a_released_role_is_free_at_once() {
        let start = Instant::now();
        let mut watch = watch(start);
        assert!(!watch.look(Some(&held(7)), start, start));
        assert!(watch.look(Some(&Held::for_tests(8, None)), start, start));
        assert!(watch.look(None, start, start));
    }
}
