//! When, and whether, to try again.
//!
//! ```text
//! outcome ──▶ Policy::judge ──▶ Delivered | RetryAt(t) | GiveUp(why)
//! ```
//!
//! The decision is a function of its arguments alone, jitter included, so that whoever judges the
//! same attempt again comes to the same due time.

pub mod span;
mod status;
#[cfg(test)]
mod tests;

use std::{num::NonZeroU32, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sha2::{Digest as _, Sha256};

pub use status::{MalformedStatusSet, StatusSet};

use crate::{BatchId, Conclusion, DeliveryId, Outcome, Timestamp, fact::ConclusionReason};

/// How far into the future an endpoint may push its next attempt with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// How much longer than the policy's horizon a delivery may live.
pub const GRACE: Duration = Duration::from_hours(7 * 24);
/// How long before the event leaves the log a delivery is given up at the latest.
pub const RETENTION_MARGIN: Duration = Duration::from_hours(2 * 24);

/// How many attempts a delivery gets, how long to wait between them, and which answers are final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The waits: each is the least time between the end of an attempt and the next one.
    pub delays: Delays,
    /// The most that chance adds to a wait, in thousandths of it; 0 to 1,000.
    #[serde(default, deserialize_with = "thousandths")]
    pub jitter: u16,
    /// Whether every refusal is tried again, or only the listed ones. Faults always are.
    #[serde(default)]
    pub retry_on: RetryOn,
    /// The statuses that are tried again under [`RetryOn::Listed`]; others are final.
    #[serde(default)]
    pub listed: StatusSet,
    /// Statuses by which an endpoint says that it wants nothing any more.
    #[serde(default)]
    pub gone: StatusSet,
    /// Statuses whose `Retry-After` counts: it makes the wait longer, never shorter.
    #[serde(default)]
    pub retry_after: StatusSet,
}

/// Which refusals are tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    /// All of them.
    #[default]
    Anything,
    /// Those with a status of [`Policy::listed`].
    Listed,
}

/// The waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Delays {
    /// One wait per retry.
    List(
        #[serde(serialize_with = "span::list::serialize", deserialize_with = "delay_list")]
        Vec<Duration>,
    ),
    /// Waits that grow by a factor.
    Exponential {
        /// The first wait.
        #[serde(serialize_with = "span::serialize", deserialize_with = "delay")]
        initial: Duration,
        /// What each wait is multiplied by to give the next.
        factor: NonZeroU32,
        /// The longest wait.
        #[serde(serialize_with = "span::serialize", deserialize_with = "delay")]
        max: Duration,
        /// How many retries there are.
        #[serde(deserialize_with = "retries")]
        retries: u32,
    },
}

/// An attempt to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The delivery that it belongs to.
    pub delivery: DeliveryId,
    /// The batch that it was made in, if it was: the same chance decides for all of it.
    pub batch: Option<BatchId>,
    /// Its number, counted from 1.
    pub attempt: u32,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// When it ended: waits count from here.
    pub ended_at: Timestamp,
    /// The delivery's give-up time: no attempt begins after it.
    pub give_up_at: Timestamp,
}

/// What to do with a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it arrived.
    Delivered,
    /// Try again once this instant has come.
    RetryAt(Timestamp),
    /// Let it be.
    GiveUp(GiveUp),
}

/// Why a delivery is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// Every attempt that the policy allows was made.
    AttemptsSpent,
    /// The endpoint answered with a status that the policy calls final.
    Refused,
    /// The endpoint wants nothing any more: it is to be disabled.
    Gone,
    /// The next attempt would be due after the delivery's give-up time.
    Expired,
}

impl Verdict {
    /// Returns how the delivery ends and why, if it ends.
    pub const fn conclusion(self) -> Option<(Conclusion, ConclusionReason)> {
        match self {
            Self::Delivered => Some((Conclusion::Delivered, ConclusionReason::Outcome)),
            Self::RetryAt(_) => None,
            Self::GiveUp(GiveUp::AttemptsSpent) => {
                Some((Conclusion::Exhausted, ConclusionReason::AttemptsSpent))
            }
            Self::GiveUp(GiveUp::Refused | GiveUp::Gone) => {
                Some((Conclusion::Refused, ConclusionReason::Outcome))
            }
            Self::GiveUp(GiveUp::Expired) => {
                Some((Conclusion::Exhausted, ConclusionReason::Expired))
            }
        }
    }
}

impl Policy {
    /// The largest [`Policy::jitter`].
    pub const JITTER_MAX: u16 = 1_000;

    /// Builds a policy without jitter that waits `delays[n]` after failed attempt `n + 1`, tries
    /// every refusal again but 410, and minds the `Retry-After` of 429 and 503.
    pub fn from_delays(delays: Vec<Duration>) -> Self {
        Self {
            delays: Delays::List(delays),
            jitter: 0,
            retry_on: RetryOn::Anything,
            listed: StatusSet::default(),
            gone: StatusSet::of(&[410]),
            retry_after: StatusSet::of(&[429, 503]),
        }
    }

    /// Decides what follows an attempt.
    ///
    /// A retry is never due before `ended_at` plus the policy's wait, nor before the time that the
    /// endpoint asked for, up to [`RETRY_AFTER_MAX`]; jitter lengthens whichever is longer. A give-up
    /// time that lies before the due time ends the delivery at once: waiting would change nothing.
    pub fn judge(&self, judged: &Judged<'_>) -> Verdict {
        let asked = match judged.outcome {
            Outcome::Accepted { .. } => return Verdict::Delivered,
            Outcome::Refused { status, .. } if self.gone.contains(*status) => {
                return Verdict::GiveUp(GiveUp::Gone);
            }
            Outcome::Refused { status, .. } if self.is_final(*status) => {
                return Verdict::GiveUp(GiveUp::Refused);
            }
            Outcome::Refused { status, retry_after } => {
                retry_after.filter(|_| self.retry_after.contains(*status))
            }
            Outcome::Failed(_) => None,
        };
        let Some(delay) = self.delays.after(judged.attempt) else {
            return Verdict::GiveUp(GiveUp::AttemptsSpent);
        };
        // Also the wait that an endpoint asks for: all that it refuses asks for the same second.
        let asked = asked.map(|asked| asked.since(judged.ended_at).min(RETRY_AFTER_MAX));
        let wait = self.lengthen(delay.max(asked.unwrap_or_default()), chance(judged));
        let due = judged.ended_at.saturating_add(wait);
        if due > judged.give_up_at {
            Verdict::GiveUp(GiveUp::Expired)
        } else {
            Verdict::RetryAt(due)
        }
    }

    /// Returns the longest time that the policy's own waits can add up to, jitter included.
    pub fn horizon(&self) -> Duration {
        (1..=self.delays.retries())
            .map_while(|attempt| self.delays.after(attempt))
            .fold(Duration::ZERO, |sum, delay| sum.saturating_add(self.lengthen(delay, u32::MAX)))
    }

    /// Returns when a delivery is given up, whatever its state: the horizon and a grace after its
    /// event was accepted, but before the event leaves the log.
    pub fn give_up_at(&self, accepted_at: Timestamp, retention: Duration) -> Timestamp {
        let life = self.horizon().saturating_add(GRACE);
        accepted_at.saturating_add(life.min(retention.saturating_sub(RETENTION_MARGIN)))
    }

    fn is_final(&self, status: u16) -> bool {
        match self.retry_on {
            RetryOn::Anything => false,
            RetryOn::Listed => !self.listed.contains(status),
        }
    }

    /// Adds to a wait its share of jitter: `chance` is that share, in parts of `u32::MAX`.
    fn lengthen(&self, delay: Duration, chance: u32) -> Duration {
        let jitter = u128::from(self.jitter.min(Self::JITTER_MAX));
        let most = delay.as_nanos().saturating_mul(jitter) / u128::from(Self::JITTER_MAX);
        let extra = most.saturating_mul(u128::from(chance)) / u128::from(u32::MAX);
        delay.saturating_add(Duration::from_nanos(u64::try_from(extra).unwrap_or(u64::MAX)))
    }
}

impl Delays {
    /// The most retries of a policy.
    pub const RETRIES_MAX: usize = 64;
    /// The longest wait.
    pub const DELAY_MAX: Duration = Duration::from_hours(7 * 24);

    /// Returns how many retries there are.
    pub fn retries(&self) -> u32 {
        match self {
            Self::List(delays) => u32::try_from(delays.len()).unwrap_or(u32::MAX),
            Self::Exponential { retries, .. } => *retries,
        }
    }

    /// Returns the wait after a failed attempt, counted from 1; `None` if it was the last.
    pub fn after(&self, attempt: u32) -> Option<Duration> {
        let retry = attempt.checked_sub(1)?;
        match self {
            Self::List(delays) => delays.get(usize::try_from(retry).ok()?).copied(),
            Self::Exponential { initial, factor, max, retries } => (retry < *retries)
                .then(|| initial.saturating_mul(factor.get().saturating_pow(retry)).min(*max)),
        }
    }
}

/// Derives from an attempt what another system would roll dice for.
fn chance(judged: &Judged<'_>) -> u32 {
    let mut hash = Sha256::new();
    hash.update(judged.batch.as_ref().map_or(judged.delivery.as_bytes(), BatchId::as_bytes));
    hash.update(judged.attempt.to_be_bytes());
    let digest = hash.finalize();
    digest.first_chunk().map_or(0, |head| u32::from_be_bytes(*head))
}

/// A policy has a value outside its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum OutOfLimits {
    #[error("jitter is 0 to {max} thousandths, not {0}", max = Policy::JITTER_MAX)]
    Jitter(u16),
    #[error("there are at most {max} retries", max = Delays::RETRIES_MAX)]
    Retries,
    #[error("a wait is at most {max} hours", max = Delays::DELAY_MAX.as_secs() / 3_600)]
    Delay,
}

fn thousandths<'de, D: Deserializer<'de>>(source: D) -> Result<u16, D::Error> {
    let jitter = u16::deserialize(source)?;
    if jitter <= Policy::JITTER_MAX {
        Ok(jitter)
    } else {
        Err(D::Error::custom(OutOfLimits::Jitter(jitter)))
    }
}

fn retries<'de, D: Deserializer<'de>>(source: D) -> Result<u32, D::Error> {
    let retries = u32::deserialize(source)?;
    let within = usize::try_from(retries).is_ok_and(|retries| retries <= Delays::RETRIES_MAX);
    if within { Ok(retries) } else { Err(D::Error::custom(OutOfLimits::Retries)) }
}

fn delay<'de, D: Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    let delay = span::deserialize(source)?;
    if delay <= Delays::DELAY_MAX { Ok(delay) } else { Err(D::Error::custom(OutOfLimits::Delay)) }
}

fn delay_list<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<Duration>, D::Error> {
    let delays = span::list::deserialize(source)?;
    if delays.len() > Delays::RETRIES_MAX {
        Err(D::Error::custom(OutOfLimits::Retries))
    } else if delays.iter().any(|delay| *delay > Delays::DELAY_MAX) {
        Err(D::Error::custom(OutOfLimits::Delay))
    } else {
        Ok(delays)
    }
}
