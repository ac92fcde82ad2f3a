//! Pushing by OTLP, if the standard variables ask for it.
//!
//! A thread of its own reads the instruments and pushes them, once a minute unless
//! `OTEL_METRIC_EXPORT_INTERVAL` says otherwise. A collector that is away or slow holds up that
//! thread and nothing else, and that thread for so long only as it may take over a batch.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry_otlp::{MetricExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    metrics::{PeriodicReader, Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::otlp::{self, Collector, ExportError, Protocol, Signal, TlsVariables, variable};

/// The variables, of which OTLP's own ones are read where the exporter is made.
const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    insecure: "OTEL_EXPORTER_OTLP_METRICS_INSECURE",
    tls: TlsVariables {
        authorities: ["OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", otlp::AUTHORITIES],
        certificate: ["OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", otlp::CERTIFICATE],
        key: ["OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", otlp::KEY],
    },
    // Those who ask get it, whatever the variables say.
    others: &["prometheus"],
};

/// Pushes, and waits for the collector as long as it may take and no longer.
pub(super) struct Patient {
    exporter: Mutex<Arc<MetricExporter>>,
    collector: Collector,
    /// The thread that pushes has none.
    runtime: Handle,
}

/// Returns what pushes, if anything is to be pushed.
pub(super) fn reader_from_env() -> Result<Option<PeriodicReader<Patient>>, ExportError> {
    let Some(collector) = METRICS.collector(variable)? else { return Ok(None) };
    Ok(Some(PeriodicReader::builder(Patient::new(collector)?).build()))
}

fn exporter(collector: &Collector) -> Result<MetricExporter, ExportError> {
    // Cumulative, unless a variable says otherwise.
    let builder = MetricExporter::builder();
    let made = match collector.protocol {
        Protocol::Grpc => collector.configure_grpc(builder.with_tonic()).build(),
        Protocol::Http => {
            let builder = builder.with_http().with_http_client(collector.http_client()?);
            collector.configure(builder).build()
        }
    };
    made.map_err(ExportError::Unusable)
}

impl Patient {
    /// Must be called inside a Tokio runtime.
    fn new(collector: Collector) -> Result<Self, ExportError> {
        let exporter = Mutex::new(Arc::new(exporter(&collector)?));
        Ok(Self { exporter, collector, runtime: Handle::current() })
    }

    fn current(&self) -> Arc<MetricExporter> {
        Arc::clone(&self.exporter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection that nothing comes back from may never end by itself.
    fn connect_anew(&self) {
        let _inside = self.runtime.enter();
        match exporter(&self.collector) {
            Ok(exporter) => {
                let mut current = self.exporter.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(exporter);
            }
            Err(error) => debug!(%error, "the collector is not connected to anew"),
        }
    }
}

impl PushMetricExporter for Patient {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let (exporter, patience) = (self.current(), self.collector.patience);
        let began = Instant::now();
        // On the runtime: a timer that is polled elsewhere fails when the runtime ends before it.
        let late = AbortOnDropHandle::new(self.runtime.spawn(sleep_for(patience)));
        let pushed = tokio::select! {
            biased;
            pushed = exporter.export(metrics) => pushed,
            _ended = late => Err(OTelSdkError::Timeout(patience)),
        };
        if pushed.is_err() && began.elapsed() >= patience {
            self.connect_anew();
        }
        pushed
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.current().force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.current().shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.current().temporality()
    }
}

/// A timer has to be made on the runtime too.
async fn sleep_for(time: Duration) {
    sleep(time).await;
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::Resource;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;
    use crate::{Metric, Metrics};

    const SHORT: Duration = Duration::from_millis(100);

    /// Pushes by a thread without a runtime, as it is done.
    fn pushing(protocol: Protocol, address: String) -> Metrics {
        crate::install_crypto_provider();
        let collector = Collector::at(protocol, address, SHORT);
        let patient = Patient::new(collector).unwrap();
        let reader = PeriodicReader::builder(patient).with_interval(SHORT).build();
        let resource = Resource::builder_empty().build();
        let metrics = Metrics::with(resource, |provider| provider.with_reader(reader));
        metrics.counter(Metric::new("fanfare.some.events", "{event}", "What it means."), || 3);
        Metrics { pushed: true, ..metrics }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_collector_that_hung_gets_numbers_again_once_it_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/v1/metrics", listener.local_addr().unwrap());
        let metrics = pushing(Protocol::Http, address);
        let collecting = async {
            let (_silent, _peer) = listener.accept().await.unwrap();
            let (mut stream, _peer) = listener.accept().await.unwrap();
            let (mut seen, mut some) = (Vec::new(), [0; 4_096]);
            // The second on one connection: so the first was answered, and in time. Under load it
            // may not be.
            loop {
                if let Ok(count @ 1..) = stream.read(&mut some).await {
                    seen.extend_from_slice(&some[..count]);
                } else {
                    seen.clear();
                    (stream, _) = listener.accept().await.unwrap();
                }
                let word = b"fanfare.some.events";
                match seen.windows(word.len()).filter(|it| it == word).count() {
                    0 => {}
                    1 => {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        stream.write_all(answer).await.ok();
                    }
                    _ => break,
                }
            }
        };
        timeout(Duration::from_mins(1), collecting).await.unwrap();
        metrics.shut_down().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_connection_that_nothing_comes_back_from_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metrics = pushing(Protocol::Grpc, format!("http://{}", listener.local_addr().unwrap()));
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(timeout(Duration::from_mins(1), listener.accept()).await.unwrap().unwrap());
        }
        metrics.shut_down().await;
    }
}
