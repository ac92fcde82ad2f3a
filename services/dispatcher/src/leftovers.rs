//! Requests that run on after their shard was given away.
//!
//! As long as nobody has claimed the shard, what comes of them goes on record as before. After
//! that only the new owner can write it down, and is told.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use fanfare_domain::{
    DeliveryId, Record, Shard, SpanId,
    fact::{AttemptReport, InFlight},
};
use fanfare_event_log::{EventLog, JournalWriter};
use fanfare_service::telemetry::trace_id;
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    lanes::Flight,
    shard::{Begun, Finished},
    workers::Workers,
};

/// How long an answer to a report is waited for, and how long until the next one.
const ANSWER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// How many deliveries' facts are written at once: well within what a batch of facts holds.
const TOGETHER_MAX: usize = 64;

/// How many reports wait for their answers at once.
const REPORTS_MAX: usize = 16;

/// What is left of a shard that was given away.
pub(crate) struct Leftovers {
    pub(crate) shard: Shard,
    pub(crate) log: EventLog,
    /// The right to write the shard's facts, until somebody claims it.
    pub(crate) writer: Option<JournalWriter>,
    pub(crate) attempts: Workers<Begun, Finished>,
    /// What the attempts are, and when each is over at the latest.
    pub(crate) in_flight: BTreeMap<Flight, (Vec<InFlight>, Instant)>,
}

/// Sees all leftovers through that come, until no more can.
pub(crate) async fn see_through(mut coming: mpsc::Receiver<Leftovers>) {
    let mut seeing = JoinSet::new();
    let mut open = true;
    while open || !seeing.is_empty() {
        tokio::select! {
            leftovers = coming.recv(), if open => match leftovers {
                Some(leftovers) => drop(seeing.spawn(leftovers.run())),
                None => open = false,
            },
            Some(ended) = seeing.join_next() => resume(ended),
        }
    }
}

impl Leftovers {
    async fn run(mut self) {
        while let Some(until) = self.in_flight.values().map(|(_, until)| *until).max() {
            let Ok(joined) = timeout_at(until, self.attempts.done()).await else { break };
            // One that was stopped before anything was sent.
            let Ok(finished) = joined.map_err(resume_panic) else { continue };
            let Some((deliveries, until)) = self.in_flight.remove(&finished.flight) else {
                continue;
            };
            let parts = finished.parts.into_iter().map(|part| (part.delivery, part.records));
            self.tell(deliveries, parts.collect(), until).await;
        }
        tracing::debug!(
            shard = self.shard.index(),
            unknown = self.in_flight.len(),
            "the requests are over that ran on"
        );
    }

    /// Tells what came of the deliveries of a request: the journal, or else the new owner, who also
    /// is told of those that were not sent after all.
    async fn tell(
        &mut self,
        deliveries: Vec<InFlight>,
        mut parts: BTreeMap<DeliveryId, Vec<Record>>,
        until: Instant,
    ) {
        for some in deliveries.chunks(TOGETHER_MAX) {
            let with_records =
                |it: &InFlight| (*it, parts.remove(&it.delivery).unwrap_or_default());
            let some: Vec<_> = some.iter().map(with_records).collect();
            let records: Vec<_> = some.iter().flat_map(|(_, records)| records).cloned().collect();
            let is_on_record = self.record(&records).await;
            let untold = some.into_iter().filter(|(_, it)| !is_on_record || it.is_empty());
            let report = async |(delivery, records)| self.report(delivery, records, until).await;
            stream::iter(untold).for_each_concurrent(REPORTS_MAX, report).await;
        }
    }

    /// Puts facts on record; tells whether that was possible.
    async fn record(&mut self, records: &[Record]) -> bool {
        let Some(writer) = self.writer.as_mut().filter(|_| !records.is_empty()) else {
            return false;
        };
        match writer.append(records).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "facts go to the new owner of their shard");
                self.writer = None;
                false
            }
        }
    }

    /// Tells the new owner, until it has answered or does not wait for it any more.
    async fn report(&self, request: InFlight, records: Vec<Record>, until: Instant) {
        let InFlight { delivery, attempt, endpoint, .. } = request;
        let report = AttemptReport { delivery, attempt, records };
        while Instant::now() < until {
            if self.log.report(self.shard, &report, ANSWER).await {
                return;
            }
            sleep(PAUSE).await;
        }
        let made = report.records.iter().find_map(|record| {
            record.fact.attempt_made().map(|made| (&made.delivery, &record.trace))
        });
        tracing::warn!(
            tenant_id = made.map(|(it, _)| display(&it.tenant)),
            event_id = made.map(|(it, _)| display(it.event)),
            endpoint_id = %endpoint,
            delivery_id = %delivery,
            trace_id = made.map(|(it, trace)| display(trace_id(it, trace))),
            span_id = %SpanId::attempt(delivery, attempt),
            attempt,
            "what came of an attempt is not on record, so it will be made again"
        );
    }
}

fn resume<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn resume_panic(error: JoinError) {
    if let Ok(panic) = error.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}
