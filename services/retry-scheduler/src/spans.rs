//! Spans that sampling left out, made afterwards for deliveries that are exhausted.
//!
//! Their failed attempts are exported already, each when it was made. What is missing is what hangs
//! above them: that the event was taken in, matched, and became a delivery. All of it is on record,
//! and the ids are functions of what it is about, so it is as it would have been, but for parts of
//! milliseconds that nobody noted.
//!
//! One look into the journal at a time, beside all other work. What there is no room for is dropped.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::{
    DeliveryRef, EventId, Fact, Timestamp, TraceContext,
    trace::span::{self, Told},
};
use fanfare_event_log::{
    EventLog, ReadError,
    journal::{From, JournalFilter},
};
use fanfare_service::Traces;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::agenda::Exhausted;

/// How many deliveries may wait for it.
const WAITING_MAX: usize = 1_024;
/// How many messages of the journal are read for one.
const BATCHES_MAX: usize = 2_000;
/// How far the clocks of two servers may be apart.
const SKEW: Duration = Duration::from_secs(10);
/// How many events are remembered whose own spans were made.
const EVENTS_MAX: usize = 10_000;

/// Takes deliveries that are exhausted. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Afterwards(mpsc::Sender<Ended>, Traces);

/// Makes the spans.
pub(crate) struct Maker {
    coming: mpsc::Receiver<Ended>,
    traces: Traces,
    log: EventLog,
    /// The events whose own spans were made lately, with their generation.
    made: BTreeSet<(EventId, u32)>,
}

/// A delivery that ended, and the trace that its event came with.
struct Ended {
    delivery: DeliveryRef,
    context: TraceContext,
}

/// Makes both ends.
pub(crate) fn afterwards(traces: Traces, log: EventLog) -> (Afterwards, Maker) {
    let (sender, coming) = mpsc::channel(WAITING_MAX);
    let maker = Maker { coming, traces: traces.clone(), log, made: BTreeSet::new() };
    (Afterwards(sender, traces), maker)
}

impl Afterwards {
    /// Takes a delivery whose trace was not sampled.
    pub(crate) fn take(&self, exhausted: &Exhausted) {
        let Self(queue, traces) = self;
        let Some(record) = exhausted.facts.last().filter(|_| traces.is_on()) else { return };
        let delivery = &exhausted.delivery;
        if traces.samples(&Told::of_delivery(delivery, &record.trace).place()) {
            return;
        }
        let ended = Ended { delivery: delivery.clone(), context: record.trace.clone() };
        if queue.try_send(ended).is_err() {
            debug!(delivery_id = %delivery.id, "no room to make the spans of a delivery");
        }
    }
}

impl Maker {
    /// Makes spans until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(async {
            while let Some(ended) = self.coming.recv().await {
                let delivery = ended.delivery.id;
                if let Err(error) = self.make(ended).await {
                    debug!(%error, delivery_id = %delivery, "spans could not be made");
                }
            }
        })
        .await;
        // Whoever has something to tell finds that there is nobody.
        stop.cancelled().await;
        Ok(())
    }

    async fn make(&mut self, Ended { delivery, context }: Ended) -> Result<(), ReadError> {
        let Some((routed_at, targets)) = self.routed(&delivery).await? else { return Ok(()) };
        let told = Told::of_delivery(&delivery, &context);
        if self.made.len() >= EVENTS_MAX {
            self.made.clear();
        }
        if self.made.insert((delivery.event, delivery.generation)) {
            if delivery.generation == 0 {
                let accepted = (delivery.accepted_at, delivery.accepted_at);
                self.traces.export(span::ingest(&told, accepted));
            }
            self.traces.export(span::fan_out(&told, targets, (routed_at, routed_at)));
        }
        self.traces.export(span::delivery(&delivery, &context, (routed_at, routed_at)));
        Ok(())
    }

    /// When the event was matched, and how many deliveries came of it.
    async fn routed(
        &self,
        delivery: &DeliveryRef,
    ) -> Result<Option<(Timestamp, usize)>, ReadError> {
        let from = From::Time(delivery.accepted_at.saturating_sub(SKEW));
        let last = self.log.journal_last().await?;
        let mut reader = self.log.journal(JournalFilter::Routed, from).await?;
        for _ in 0..BATCHES_MAX {
            let Some(batch) = reader.next_until(last).await? else { break };
            let found = batch.facts.iter().find_map(|record| match &record.fact {
                Fact::EventRouted(routed)
                    if routed.event == delivery.event
                        && routed.generation == delivery.generation =>
                {
                    let count = routed.targets.len() + routed.fed.len() + routed.held.len();
                    Some((record.recorded_at, count))
                }
                Fact::EventRouted(_)
                | Fact::ShardClaimed(_)
                | Fact::ShardReleased(_)
                | Fact::AttemptMade(_)
                | Fact::DeliveryDeferred(_)
                | Fact::DeliveryParked(_)
                | Fact::DeliveryConcluded(_)
                | Fact::RetryScheduled(_) => None,
            });
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}
