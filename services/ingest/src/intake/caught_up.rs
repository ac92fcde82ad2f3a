//! How many messages one look at the configuration is good for.
//!
//! A message is judged by a view that has every change which was acknowledged before the message was
//! published. For that, the servers are asked how far CONFIG has come, after the message was stored:
//! one question for each batch. In a flood the messages of many batches are stored already. Then
//! INBOX is asked first how far *it* has come: the question about CONFIG that follows is good for all
//! of that. It compares sequences, never clocks.

use std::time::Duration;

use fanfare_event_log::{EventLog, Position, ReadError};
use tokio::time::{Instant, timeout};

use crate::judge::Judge;

/// How many messages have to wait behind a batch for INBOX to be asked: two more batches, since that
/// costs as much as the question that it saves.
const FLOOD: u64 = 256;
/// How long INBOX is asked. The batch in hand can do without the answer.
const ASKED_FOR: Duration = Duration::from_millis(300);
/// For how long an answer counts: should a cluster lose acknowledged messages with the servers that
/// had them, their sequences are given to others.
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
    /// Waits until the view has every change that was acknowledged before the newest of some messages,
    /// which are in hand, was published. Cancel safe.
    pub(super) async fn reach(
        &mut self,
        newest: Position,
        log: &EventLog,
        judge: &Judge,
    ) -> Result<(), ReadError> {
        let inbox_last = async { timeout(ASKED_FOR, log.inbox_last()).await.ok()?.ok() };
        self.ask(newest, inbox_last, judge.catch_up()).await
    }

    async fn ask(
        &mut self,
        newest: Position,
        inbox_last: impl Future<Output = Option<u64>>,
        catch_up: impl Future<Output = Result<(), ReadError>>,
    ) -> Result<(), ReadError> {
        if self.has(newest.sequence) {
            return Ok(());
        }
        let (at, mut until) = (Instant::now(), newest.sequence);
        if newest.pending >= FLOOD {
            // Before CONFIG is asked: what comes later may be behind a change that is not in the view.
            until = until.max(inbox_last.await.unwrap_or_default());
        }
        catch_up.await?;
        self.last = Some(Look { until, at });
        Ok(())
    }

    fn has(&self, sequence: u64) -> bool {
        self.last.is_some_and(|look| sequence <= look.until && look.at.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use fanfare_domain::Timestamp;

    use super::*;

    fn newest(sequence: u64, pending: u64) -> Position {
        let stored_at = Timestamp::EPOCH;
        Position { sequence, stored_at, delivered: 1, pending, suspect: false }
    }

    /// Asks; returns who was asked, in order.
    async fn asked(
        caught_up: &mut CaughtUp,
        newest: Position,
        inbox_last: Option<u64>,
        answer: Result<(), ReadError>,
    ) -> Vec<&'static str> {
        let asked = RefCell::new(Vec::new());
        let inbox = async {
            asked.borrow_mut().push("INBOX");
            inbox_last
        };
        let config = async {
            asked.borrow_mut().push("CONFIG");
            answer
        };
        let is_refused = caught_up.ask(newest, inbox, config).await.is_err();
        if is_refused {
            asked.borrow_mut().push("refused");
        }
        asked.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_flood_one_look_is_good_for_what_was_there_before_it_for_a_while() {
        let mut caught_up = CaughtUp::default();
        let all = ["INBOX", "CONFIG"];
        assert_eq!(asked(&mut caught_up, newest(7, FLOOD), Some(900), Ok(())).await, all);
        assert!(asked(&mut caught_up, newest(900, FLOOD), Some(901), Ok(())).await.is_empty());
        assert_eq!(asked(&mut caught_up, newest(901, FLOOD), Some(901), Ok(())).await, all);
        tokio::time::advance(FRESH).await;
        assert_eq!(asked(&mut caught_up, newest(901, FLOOD), Some(901), Ok(())).await, all);
    }

    #[tokio::test]
    async fn a_look_is_good_for_what_is_in_hand_where_inbox_is_not_asked_or_silent() {
        for (pending, who) in [(FLOOD - 1, &["CONFIG"][..]), (FLOOD, &["INBOX", "CONFIG"])] {
            let mut caught_up = CaughtUp::default();
            assert_eq!(asked(&mut caught_up, newest(7, pending), None, Ok(())).await, who);
            assert!(caught_up.has(7));
            assert!(!caught_up.has(8));
        }
    }

    #[tokio::test]
    async fn a_look_that_came_to_nothing_does_not_count() {
        let mut caught_up = CaughtUp::default();
        let refused = asked(&mut caught_up, newest(7, 0), None, Err(ReadError::Closed)).await;
        assert_eq!(refused, ["CONFIG", "refused"]);
        assert!(!caught_up.has(7));
    }
}
