//! Looking at the streams, for metrics: whoever reads INBOX does it, so that of several ingests one
//! does.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_domain::chain;
use fanfare_event_log::{EventLog, ReadError, Survey};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::counters::Counters;

/// How often, however often somebody reads the metrics.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After how many looks in a row that failed a person is told: servers that elect a leader are well
/// again sooner.
const TELL_AFTER: u32 = 3;
/// How often the same is told again.
const TELL_EVERY: Duration = Duration::from_mins(5);

/// What was seen last, if this process looks.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Inner>);

#[derive(Default)]
struct Inner {
    survey: Mutex<Option<Survey>>,
    /// How many looks failed, of all or of a part.
    failures: AtomicU64,
}

/// When a person is told that looks fail.
#[derive(Default)]
struct Patience {
    in_a_row: u32,
    told: Option<Instant>,
}

impl Seen {
    /// Looks at what was seen last.
    pub(crate) fn read(&self, look: impl FnOnce(&Survey)) {
        if let Some(survey) = &*self.lock() {
            look(survey);
        }
    }

    /// How many looks did not see everything.
    pub(crate) fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// Looks for as long as the service takes messages.
    pub(crate) async fn keep(
        self,
        log: EventLog,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = Patience::default();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let survey = if counters.reads_inbox() {
                let Some(surveyed) = stop.run_until_cancelled(log.survey()).await else { break };
                self.judge(surveyed, &mut patience)
            } else {
                None
            };
            *self.lock() = survey;
        }
        Ok(())
    }

    /// Notes what could not be seen. What is not known is not told: an old number would look like a
    /// good one.
    fn judge(&self, survey: Result<Survey, ReadError>, patience: &mut Patience) -> Option<Survey> {
        let (survey, missing) = match survey {
            Ok(survey) if survey.unseen.is_empty() => {
                *patience = Patience::default();
                return Some(survey);
            }
            Ok(survey) => {
                let missing = survey.unseen.join(", ");
                (Some(survey), missing)
            }
            Err(error) => (None, chain(&error)),
        };
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        if patience.is_over(Instant::now()) {
            warn!(missing, "the streams cannot be looked at, and their numbers are not told");
        } else {
            debug!(missing, "the streams cannot be looked at");
        }
        survey
    }

    fn lock(&self) -> MutexGuard<'_, Option<Survey>> {
        // It is replaced as a whole.
        self.0.survey.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Patience {
    /// Counts a look that failed; tells whether somebody is to be told now.
    fn is_over(&mut self, now: Instant) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let lately = self.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY);
        let is_over = self.in_a_row >= TELL_AFTER && !lately;
        if is_over {
            self.told = Some(now);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_told_and_what_is_missing_is_counted() {
        let (seen, mut patience) = (Seen::default(), Patience::default());
        let whole = Survey::default();
        assert_eq!(seen.judge(Ok(whole.clone()), &mut patience), Some(whole));
        let part = Survey { unseen: vec!["EVENTS"], ..Survey::default() };
        assert_eq!(seen.judge(Ok(part.clone()), &mut patience), Some(part));
        assert_eq!(seen.failures(), 1);
    }

    #[test]
    fn a_person_is_told_of_what_lasts_and_now_and_then() {
        let (mut patience, now) = (Patience::default(), Instant::now());
        let told = |patience: &mut Patience, at| (0..9).filter(|_| patience.is_over(at)).count();
        assert!(!patience.is_over(now) && !patience.is_over(now));
        assert_eq!(told(&mut patience, now), 1);
        assert_eq!(told(&mut patience, now + TELL_EVERY), 1);
    }
}
