//! How many messages one look at the configuration is good for.
//!
//! A message is judged by a view that has every change which was acknowledged before the message was
//! published. For that, the servers are asked how far CONFIG has come, after the message was stored:
//! one question for each batch. In a flood the messages of many batches are stored already. Then
//! INBOX is asked first how far *it* has come: the question about CONFIG that follows is good for all
//! of that. It compares sequences, never clocks.

use std::time::Duration;

use fanfare_event_log::{EventLog, Position, ReadError};
use tokio::time::Instant;

use crate::judge::Judge;

/// How many messages have to wait behind a batch for INBOX to be asked: two more batches, since that
/// costs as much as the question that it saves.
const FLOOD: u64 = 256;
/// For how long an answer counts: should a cluster lose acknowledged messages with the servers that had
/// them, others get their sequences.
const FRESH: Duration = Duration::from_secs(1);

/// Up to where INBOX had come when the configuration was looked at for the last time. To be forgotten
/// when INBOX is opened anew.
#[derive(Debug, Default)]
pub(super) struct CaughtUp {
    last: Option<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    /// The last sequence that had been stored before.
    until: u64,
    /// When that was.
    at: Instant,
}

impl CaughtUp {
    /// Waits until the view has every change that was acknowledged before these messages were
    /// published. Cancel safe.
    pub(super) async fn with(
        &mut self,
        taken: impl Iterator<Item = Position>,
        (log, judge): (&EventLog, &Judge),
    ) -> Result<(), ReadError> {
        let Some(newest) = taken.max_by_key(|position| position.sequence) else { return Ok(()) };
        if self.has(newest.sequence) {
            return Ok(());
        }
        let at = Instant::now();
        let until = if newest.pending < FLOOD { newest.sequence } else { log.inbox_last().await? };
        judge.catch_up().await?;
        self.last = Some(Look { until, at });
        Ok(())
    }

    fn has(&self, sequence: u64) -> bool {
        self.last.is_some_and(|look| sequence <= look.until && look.at.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_is_good_for_what_was_stored_before_it_and_for_a_while() {
        assert!(!CaughtUp::default().has(1));
        let caught_up = CaughtUp { last: Some(Look { until: 7, at: Instant::now() }) };
        assert!(caught_up.has(7));
        assert!(!caught_up.has(8));
        tokio::time::advance(FRESH).await;
        assert!(!caught_up.has(7));
    }
}
