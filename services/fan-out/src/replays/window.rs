//! How much of a replay may be on its way: what was made and was not attempted yet. So a replay is
//! as fast as its endpoints, and what is slow or held back waits in EVENTS, where it costs nothing.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    DeliveryId, Fact, Replay,
    job::{Range, Scope},
};
use fanfare_event_log::{Column, EventLog, JournalFilter, JournalReader, ReadError, journal::From};
use tokio::time::sleep;

/// The most deliveries on their way.
const OPEN_MAX: usize = 256;

/// How long to wait before it is looked again whether there is room.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Window {
    reader: JournalReader,
    open: BTreeSet<DeliveryId>,
}

impl Window {
    /// Begins to watch what becomes of what is made from now on.
    pub(super) async fn open(log: &EventLog, replay: &Replay) -> anyhow::Result<Self> {
        let filter = match &replay.scope {
            Scope::Range(Range { endpoint: Some(only), .. }) => {
                JournalFilter::Column(log.shards().of(*only), Column::Attempts)
            }
            Scope::Range(_) | Scope::Only(_) => JournalFilter::Deliveries,
        };
        let reader = log.journal(filter, From::New).await.context("read the journal")?;
        Ok(Self { reader, open: BTreeSet::new() })
    }

    /// Adds what was made.
    pub(super) fn extend(&mut self, made: impl IntoIterator<Item = DeliveryId>) {
        self.open.extend(made);
    }

    /// Waits until more may be made. Cancel safe.
    pub(super) async fn make_room(&mut self, log: &EventLog) -> Result<(), ReadError> {
        while !self.open.is_empty() {
            let last = log.journal_last().await?;
            while let Some(batch) = self.reader.next_until(last).await? {
                for record in &batch.facts {
                    self.note(&record.fact);
                }
            }
            if self.open.len() < OPEN_MAX {
                break;
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn note(&mut self, fact: &Fact) {
        let begun = match fact {
            Fact::AttemptMade(made) => &made.delivery,
            Fact::DeliveryParked(parked) => &parked.delivery,
            Fact::DeliveryConcluded(concluded) => &concluded.delivery,
            // It still waits for its first attempt.
            Fact::DeliveryDeferred(_)
            | Fact::RetryScheduled(_)
            | Fact::ShardClaimed(_)
            | Fact::ShardReleased(_)
            | Fact::EventRouted(_) => return,
        };
        self.open.remove(&begun.id);
    }
}
