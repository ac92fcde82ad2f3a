//! Looking at the streams, for metrics: whoever reads INBOX does it, so that of several ingests one
//! does.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_event_log::{EventLog, Survey};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::counters::Counters;

/// How often, however often somebody reads the metrics.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What was seen last, if this process looks.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Option<Survey>>>);

impl Seen {
    /// Looks at what was seen last.
    pub(crate) fn read(&self, look: impl FnOnce(&Survey)) {
        if let Some(survey) = &*self.lock() {
            look(survey);
        }
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
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let survey = if counters.reads_inbox() {
                let Some(surveyed) = stop.run_until_cancelled(log.survey()).await else { break };
                // What is not known is not told: an old number would look like a good one.
                surveyed.inspect_err(|error| debug!(%error, "the streams cannot be looked at")).ok()
            } else {
                None
            };
            *self.lock() = survey;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Survey>> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
