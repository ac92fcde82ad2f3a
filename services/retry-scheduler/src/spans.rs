//! Spans that sampling left out, made afterwards for deliveries that are exhausted.
//!
//! Their failed attempts are exported already, each when it was made. What is missing is what hangs
//! above them: that the event was taken in, matched, and became a delivery. All of it is on record,
//! and the ids are functions of what it is about, so it is as it would have been, but for parts of
//! milliseconds that nobody noted.
//!
//! One look into the journal a second at most, beside all other work, for all that were accepted
//! about the same time; a replay's deliveries count as accepted when it made them. What there is no
//! room for is left out.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_domain::{
    DeliveryRef, EventId, Timestamp, TraceContext, chain,
    trace::span::{self, Span, Told},
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
    /// The events whose own spans were made lately, and of which replay.
    made: BTreeSet<(EventId, u32)>,
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
        let wanted = ended.iter().map(Ended::routing).collect();
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
            match routings.get(&ended.routing()) {
                Some(routing) => self.export(&ended, routing),
                None => self.counters.spans_left_out.add(1),
            }
        }
    }

    fn export(&mut self, ended: &Ended, routing: &Routing) {
        if self.made.len() >= EVENTS_MAX {
            self.made.clear();
        }
        let is_first = self.made.insert(ended.routing());
        for span in ended.spans(routing, is_first) {
            self.traces.export(|| span);
        }
    }
}

impl Ended {
    /// Which routing of its event it came of.
    fn routing(&self) -> (EventId, u32) {
        (self.delivery.event, self.delivery.generation)
    }

    /// What hangs above its attempts; with the event's own spans, if it is the first of its routing. An
    /// event that is replayed was taken in before, in another trace.
    fn spans(&self, routing: &Routing, is_first: bool) -> Vec<Span> {
        let Self { delivery, context } = self;
        let (told, routed) = (Told::of_delivery(delivery, context), &routing.routed);
        let routed_at = (routing.recorded_at, routing.recorded_at);
        let mut spans = Vec::new();
        if is_first && delivery.generation == 0 {
            spans.push(span::ingest(&told, (delivery.accepted_at, delivery.accepted_at)));
        }
        if is_first {
            spans.push(span::fan_out(&told, routed.targets.len() + routed.fed.len(), routed_at));
        }
        spans.push(span::delivery(delivery, context, routed_at));
        spans
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
    use fanfare_domain::fact::EventRouted;

    use super::*;
    use crate::samples::{after, delivery};

    #[test]
    fn an_exhausted_replay_hangs_below_its_own_matching_and_not_below_the_taking_in() {
        for (generation, names) in [
            (0, &["process INBOX", "process EVENTS", "create DELIVERIES"][..]),
            (3, &["process EVENTS", "create DELIVERIES"]),
        ] {
            let delivery = DeliveryRef { generation, ..delivery(1) };
            let routed = EventRouted {
                event: delivery.event,
                tenant: delivery.tenant.clone(),
                event_sequence: 1,
                config_revision: 1,
                generation,
                targets: vec![delivery.endpoint],
                skipped: Vec::new(),
                held: Vec::new(),
                fed: Vec::new(),
                part: 0,
                parts: 1,
            };
            let routing = Routing { routed, sequence: 9, recorded_at: after(7) };
            let ended = Ended { delivery, context: TraceContext::default() };
            let spans = ended.spans(&routing, true);
            assert_eq!(spans.iter().map(|span| span.name).collect::<Vec<_>>(), names);
            assert!(spans.is_sorted_by(|above, below| below.parent == Some(above.id)));
            assert_eq!(spans.last().map(|span| span.start), Some(after(7)));
            assert_eq!(spans.iter().any(|span| !span.links.is_empty()), generation > 0);
            assert_eq!(ended.spans(&routing, false).len(), 1, "the others are there");
        }
    }

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
