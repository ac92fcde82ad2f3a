//! Spans that sampling left out, made afterwards for deliveries that are exhausted.
//!
//! Their failed attempts are exported already, each when it was made. What is missing is what hangs
//! above them: that the event was taken in, matched, and became a delivery. All of it is on record,
//! and the ids are functions of what it is about, so it is as it would have been, but for parts of
//! milliseconds that nobody noted.
//!
//! One look into the journal a second at most, beside all other work, for all that were accepted
//! about the same time. What there is no room for is left out, and so are replays: when an event was
//! matched anew is not to be told from the delivery.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_domain::{
    DeliveryRef, EventId, Timestamp, TraceContext, chain,
    trace::span::{self, Told},
};
use fanfare_event_log::{EventLog, scan::Routing};
use fanfare_service::Traces;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{agenda::Exhausted, counters::Counters};

/// How many deliveries may wait for it.
const WAITING_MAX: usize = 1_024;
/// How often the journal is looked into.
const PACE: Duration = Duration::from_secs(1);
/// Within what time events are accepted that are looked for at once.
const WINDOW: Duration = Duration::from_secs(10);
/// How many messages of the journal are read in one look.
const MESSAGES_MAX: usize = 2_000;
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// How far the clocks of two servers may be apart.
const SKEW: Duration = Duration::from_secs(10);
/// How many events are remembered whose own spans were made.
const EVENTS_MAX: usize = 10_000;

/// Takes deliveries that are exhausted. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Afterwards {
    queue: mpsc::Sender<Ended>,
    traces: Traces,
    counters: Arc<Counters>,
}

/// Makes the spans.
pub(crate) struct Maker {
    coming: mpsc::Receiver<Ended>,
    traces: Traces,
    log: EventLog,
    counters: Arc<Counters>,
    /// The events whose own spans were made lately.
    made: BTreeSet<EventId>,
}

/// A delivery that ended, and the trace that its event came with.
struct Ended {
    delivery: DeliveryRef,
    context: TraceContext,
}

/// Makes both ends.
pub(crate) fn afterwards(
    traces: Traces,
    log: EventLog,
    counters: Arc<Counters>,
) -> (Afterwards, Maker) {
    let (queue, coming) = mpsc::channel(WAITING_MAX);
    let maker = Maker {
        coming,
        traces: traces.clone(),
        log,
        counters: Arc::clone(&counters),
        made: BTreeSet::new(),
    };
    (Afterwards { queue, traces, counters }, maker)
}

impl Afterwards {
    /// How many deliveries may wait; of more no spans are made.
    pub(crate) const WAITING_MAX: usize = WAITING_MAX;

    /// What tells how many wait. It keeps nothing open.
    pub(crate) fn waiting(&self) -> impl Fn() -> usize + Send + Sync + 'static + use<> {
        let queue = self.queue.downgrade();
        move || queue.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    /// Takes a delivery whose trace was not sampled.
    pub(crate) fn take(&self, exhausted: &Exhausted) {
        let Self { queue, traces, counters } = self;
        let Some(record) = exhausted.facts.last().filter(|_| traces.is_on()) else { return };
        let delivery = &exhausted.delivery;
        if traces.samples(&Told::of_delivery(delivery, &record.trace).place()) {
            return;
        }
        if delivery.generation > 0 {
            counters.spans_left_out.add(1);
            return;
        }
        let ended = Ended { delivery: delivery.clone(), context: record.trace.clone() };
        if queue.try_send(ended).is_err() {
            counters.spans_left_out.add(1);
        }
    }
}

impl Maker {
    /// Makes spans until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        stop.run_until_cancelled(async {
            let mut waiting = Vec::new();
            while !waiting.is_empty() || self.coming.recv_many(&mut waiting, WAITING_MAX).await > 0
            {
                pace.tick().await;
                while waiting.len() < WAITING_MAX
                    && let Ok(ended) = self.coming.try_recv()
                {
                    waiting.push(ended);
                }
                self.make(earliest(&mut waiting)).await;
            }
        })
        .await;
        // Whoever has something to tell finds that there is nobody.
        stop.cancelled().await;
        Ok(())
    }

    /// Makes the spans of deliveries whose events were accepted about the same time.
    async fn make(&mut self, (since, ended): (Timestamp, Vec<Ended>)) {
        let wanted = ended.iter().map(|ended| (ended.delivery.event, 0)).collect();
        let look = self.log.routed_on_record(&wanted, since.saturating_sub(SKEW), MESSAGES_MAX);
        let routings = match timeout(LOOK_MAX, look).await {
            Ok(Ok(routings)) => routings,
            Ok(Err(error)) => {
                debug!(error = chain(&error), "spans could not be made");
                return self.counters.spans_left_out.add(ended.len());
            }
            Err(_elapsed) => {
                debug!("spans could not be made in time");
                return self.counters.spans_left_out.add(ended.len());
            }
        };
        for ended in ended {
            match routings.get(&(ended.delivery.event, 0)) {
                Some(routing) => self.export(&ended, routing),
                None => self.counters.spans_left_out.add(1),
            }
        }
    }

    fn export(&mut self, Ended { delivery, context }: &Ended, routing: &Routing) {
        let (told, routed) = (Told::of_delivery(delivery, context), &routing.routed);
        let routed_at = (routing.recorded_at, routing.recorded_at);
        if self.made.len() >= EVENTS_MAX {
            self.made.clear();
        }
        if self.made.insert(delivery.event) {
            let accepted = (delivery.accepted_at, delivery.accepted_at);
            self.traces.export(|| span::ingest(&told, accepted));
            let targets = routed.targets.len() + routed.fed.len();
            self.traces.export(|| span::fan_out(&told, targets, routed_at));
        }
        self.traces.export(|| span::delivery(delivery, context, routed_at));
    }
}

/// Takes out the deliveries whose events were accepted first, with when that was.
fn earliest(waiting: &mut Vec<Ended>) -> (Timestamp, Vec<Ended>) {
    let accepted_at = |ended: &Ended| ended.delivery.accepted_at;
    let since = waiting.iter().map(accepted_at).min().unwrap_or(Timestamp::EPOCH);
    let until = since.saturating_add(WINDOW);
    (since, waiting.extract_if(.., |ended| accepted_at(ended) <= until).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{after, delivery};

    #[test]
    fn what_was_accepted_about_the_same_time_is_looked_for_at_once_the_oldest_first() {
        let ended = |(number, seconds)| {
            let delivery = DeliveryRef { accepted_at: after(seconds), ..delivery(number) };
            Ended { delivery, context: TraceContext::default() }
        };
        let mut waiting: Vec<_> = [(1, 40), (2, 9), (3, 0), (4, 10)].map(ended).into();
        for (seconds, numbers) in [(0, &[2, 3, 4][..]), (40, &[1])] {
            let (since, taken) = earliest(&mut waiting);
            let taken: Vec<_> = taken.iter().map(|ended| ended.delivery.event).collect();
            let expected: Vec<_> = numbers.iter().map(|number| delivery(*number).event).collect();
            assert_eq!((since, taken), (after(seconds), expected));
        }
        assert!(waiting.is_empty());
    }
}
