//! Sends what is in the queue, a batch at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Counts, Item, Pace, Series, convert};
use crate::{
    Context, ExportError,
    otlp::{Collector, Instance, Protocol},
};

/// How long what is left may take when the process ends.
const LAST_PUSH: Duration = Duration::from_secs(3);
/// How long spans gather before they are looked at, where the queue is of the default size at least:
/// each would wake us otherwise. In that time it takes more than any process makes.
const GATHERING: Duration = Duration::from_millis(50);
/// How often it is told that the collector takes nothing.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// Sends spans to the collector.
pub struct Exporter {
    client: Client,
    coming: mpsc::Receiver<Item>,
    pace: Pace,
    counts: Arc<Counts>,
    /// What is made by and by.
    series: VecDeque<Box<Series>>,
    /// How many spans the collector has been given, and has not answered about.
    under_way: u64,
    told: Option<Instant>,
}

/// What speaks to the collector.
pub(super) struct Client {
    exporter: SpanExporter,
    collector: Collector,
    resource: Resource,
}

fn exporter(collector: &Collector, resource: &Resource) -> Result<SpanExporter, ExportError> {
    let builder = SpanExporter::builder();
    let made = match collector.protocol {
        Protocol::Grpc => collector.configure_grpc(builder.with_tonic()).build(),
        Protocol::Http => {
            let builder = builder.with_http().with_http_client(collector.http_client()?);
            collector.configure(builder).build()
        }
    };
    let mut exporter = made.map_err(ExportError::Unusable)?;
    exporter.set_resource(resource);
    Ok(exporter)
}

impl Client {
    pub(super) fn new(collector: Collector, instance: &Instance) -> Result<Self, ExportError> {
        let resource = instance.resource();
        Ok(Self { exporter: exporter(&collector, &resource)?, collector, resource })
    }

    /// Sends a batch, and waits for the collector as long as it may take and no longer.
    async fn send(&mut self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (began, patience) = (Instant::now(), self.collector.patience);
        let sent = timeout(patience, self.exporter.export(batch)).await;
        let sent = sent.unwrap_or(Err(OTelSdkError::Timeout(patience)));
        if sent.is_err() && began.elapsed() >= patience {
            // A connection that nothing comes back from may never end by itself.
            match exporter(&self.collector, &self.resource) {
                Ok(exporter) => self.exporter = exporter,
                Err(error) => debug!(%error, "the collector is not connected to anew"),
            }
        }
        sent
    }
}

impl Context {
    /// Has spans sent until everything else has ended, and what is left then.
    pub fn export_traces(&mut self, exporter: Exporter) {
        let stop = self.support_stop();
        self.spawn_telemetry("traces", exporter.run(stop));
    }
}

impl Pace {
    /// A small queue would be full before it is looked at.
    fn gathering(&self) -> Duration {
        if self.queue_max < Self::default().queue_max { Duration::ZERO } else { GATHERING }
    }
}

impl Exporter {
    pub(super) fn new(
        client: Client,
        coming: mpsc::Receiver<Item>,
        pace: Pace,
        counts: Arc<Counts>,
    ) -> Self {
        let series = VecDeque::new();
        Self { client, coming, pace, counts, series, under_way: 0, told: None }
    }

    /// Sends spans until `stop`, and then what is left, for some seconds at most.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let late = async {
            stop.cancelled().await;
            sleep(LAST_PUSH).await;
        };
        tokio::select! {
            () = self.send_all(&stop) => {}
            () = late => self.give_up(),
        }
    }

    /// Counts what is left.
    fn give_up(&mut self) {
        self.counts.refused.fetch_add(self.under_way, Ordering::Relaxed);
        let mut left = self.counts.in_series.load(Ordering::Relaxed);
        while let Ok(item) = self.coming.try_recv() {
            left += match item {
                Item::Event(_) | Item::Own(_) => 1,
                // They are counted.
                Item::Series(_) => 0,
            };
        }
        self.series.clear();
        self.counts.drop_some(left);
        info!(under_way = self.under_way, left, "the last spans were not sent in time");
    }

    /// Sends what comes until nothing can come any more.
    async fn send_all(&mut self, stop: &CancellationToken) {
        while let Some(batch) = self.next(stop).await {
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            self.under_way = count;
            let sent = self.client.send(batch).await;
            self.under_way = 0;
            match sent {
                Ok(()) => {
                    self.counts.exported.fetch_add(count, Ordering::Relaxed);
                    self.told = None;
                }
                Err(cause) => {
                    self.counts.refused.fetch_add(count, Ordering::Relaxed);
                    self.tell(&cause);
                }
            }
        }
    }

    fn tell(&mut self, cause: &OTelSdkError) {
        if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            self.told = Some(Instant::now());
            warn!(%cause, "the collector does not take spans, which are dropped");
        }
    }

    /// Waits for a batch: a full one, or what came within the delay. Nothing comes after `stop` that
    /// is not in the queue by then.
    pub(super) async fn next(&mut self, stop: &CancellationToken) -> Option<Vec<SpanData>> {
        let max = self.pace.batch_max;
        loop {
            let (mut items, mut batch) = (Vec::new(), Vec::new());
            if self.series.is_empty() {
                let first = stop.run_until_cancelled(self.coming.recv_many(&mut items, max)).await;
                if first.is_none() {
                    self.coming.close();
                    self.coming.recv_many(&mut items, max).await;
                }
                if items.is_empty() {
                    return None;
                }
            } else {
                // Who has many spans leaves half of each batch to the others.
                let others = std::iter::from_fn(|| self.coming.try_recv().ok());
                items.extend(others.take(max.div_ceil(2)));
            }
            self.sort(&mut items, &mut batch);
            let deadline = Instant::now() + self.pace.delay;
            while batch.len() < max {
                let gathered = (Instant::now() + self.pace.gathering()).min(deadline);
                if stop.run_until_cancelled(sleep_until(gathered)).await.is_none() {
                    break;
                }
                let room = max - batch.len();
                let more = timeout_at(deadline, self.coming.recv_many(&mut items, room));
                match stop.run_until_cancelled(more).await {
                    Some(Ok(1..)) => self.sort(&mut items, &mut batch),
                    Some(Ok(0) | Err(_)) | None => break,
                }
            }
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Puts single spans into a batch, and then as many of the others as there is room for.
    fn sort(&mut self, items: &mut Vec<Item>, batch: &mut Vec<SpanData>) {
        for item in items.drain(..) {
            match item {
                Item::Event(span) => batch.push(convert::of(*span)),
                Item::Own(data) => batch.push(*data),
                Item::Series(series) => self.series.push_back(series),
            }
        }
        while batch.len() < self.pace.batch_max
            && let Some(series) = self.series.front_mut()
        {
            match series.next() {
                Some(span) => batch.push(convert::of(span)),
                None => drop(self.series.pop_front()),
            }
        }
    }
}
