//! Starts tasks, watches them, stops them in order.
//!
//! ```text
//! stop asked for, or a task ended ─▶ not ready ─▶ stop() cancelled: intake ends ─▶ tasks finish
//!   within the grace period, or are aborted ─▶ support_stop() cancelled ─▶ support tasks finish
//! ```
//!
//! *Support* tasks are what the others need to finish their work, or what tells of it: a broker
//! that runs as our child, the HTTP server that answers `/readyz`. They end last.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fanfare_domain::chain;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, info_span, warn};

use crate::{
    Clock, Failure, Health, Joined as _, Metrics, Readiness, SystemClock, Traces,
    health::Phase,
    signals::{NoSignals, Signals, StopRequests},
};

/// How long support tasks may take to end, after all others have.
const SUPPORT_GRACE: Duration = Duration::from_secs(15);

/// How long aborted tasks may take to drop what they hold.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// What services are given: a way to spawn tasks, word of when to stop, the clock, health, metrics.
///
/// Dropping it aborts every task at once, as a crash would.
pub struct Context {
    service: String,
    stop: CancellationToken,
    support_stop: CancellationToken,
    tasks: Tasks,
    support: Tasks,
    health: Health,
    metrics: Metrics,
    traces: Traces,
    clock: Arc<dyn Clock>,
}

/// Tasks and their names. An id is in `names` for as long as its task is in `set`.
#[derive(Debug, Default)]
struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: BTreeMap<Id, String>,
}

/// Why the running phase ended.
enum Cause {
    Requested,
    TaskEnded(Failure),
}

impl Context {
    /// Makes a context on the machine's clock, for a service or several.
    pub fn new(service: impl Into<String>) -> Self {
        Self::with_clock(service, Arc::new(SystemClock))
    }

    /// Makes a context on a given clock.
    pub fn with_clock(service: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            service: service.into(),
            stop: CancellationToken::new(),
            support_stop: CancellationToken::new(),
            tasks: Tasks::default(),
            support: Tasks::default(),
            health: Health::default(),
            metrics: Metrics::default(),
            traces: Traces::default(),
            clock,
        }
    }

    /// Has services make their instruments there. Before any of them is started.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Has services send their spans there. Before any of them is started.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Names the service whose `start` is called next: its tasks and conditions carry the name.
    ///
    /// ```text
    /// ingest::start(context.service("ingest"), settings.ingest).await?;
    /// fan_out::start(context.service("fan-out"), settings.fan_out).await?;
    /// ```
    pub fn service(&mut self, name: impl Into<String>) -> &mut Self {
        self.service = name.into();
        self
    }

    /// Returns the token that is cancelled when services must stop taking work.
    ///
    /// Cancelling it asks for an orderly stop of everything on this context.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Returns the token that is cancelled when support tasks must end.
    pub fn support_stop(&self) -> CancellationToken {
        self.support_stop.clone()
    }

    /// Returns the clock that services go by.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Returns the health of the process, for whoever answers questions about it.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Returns the instruments of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns where the process's spans go.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Registers a condition of being ready. It does not hold until the handle says so.
    pub fn readiness(&self, name: &str) -> Readiness {
        self.health.condition(self.full(name))
    }

    /// Spawns a task that must live until [`Context::stop`] is cancelled.
    ///
    /// Once that happens it finishes what it has in hand and returns `Ok`. Must be called inside
    /// a Tokio runtime.
    pub fn spawn<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (service, name) = (self.service.clone(), name.into());
        self.tasks.spawn(&service, &name, task);
    }

    /// Spawns a task that must live until [`Context::support_stop`] is cancelled.
    ///
    /// Must be called inside a Tokio runtime.
    pub fn spawn_support<F>(&mut self, name: impl Into<String>, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (service, name) = (self.service.clone(), name.into());
        self.support.spawn(&service, &name, task);
    }

    /// Spawns a support task that nothing depends on: should it end early or panic, everything goes on
    /// without it.
    pub(crate) fn spawn_telemetry<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.support_stop();
        self.spawn_support(name, async move {
            let mut alone = JoinSet::new();
            alone.spawn(task.in_current_span());
            let ended = alone.join_next().await;
            if !stop.is_cancelled() {
                let cause = ended.and_then(|ended| ended.joined().err());
                let cause = cause.as_ref().map(tracing::field::display);
                error!(cause, "telemetry has ended early, all else goes on");
                stop.cancelled().await;
            }
            Ok(())
        });
    }

    /// Runs until SIGTERM, SIGINT, the stop token or a failure, then stops everything in order.
    ///
    /// In-flight work has `grace` to finish; a second signal ends it at once. A failing task's
    /// error is returned with its name and its chain of causes, after the others were stopped.
    pub async fn run_until_stopped(self, grace: Duration) -> anyhow::Result<()> {
        let signals = Signals::install()?;
        Ok(self.supervise(signals, grace).await?)
    }

    /// Like [`Context::run_until_stopped`], without listening for signals: only the token stops it.
    ///
    /// # Errors
    ///
    /// The first failure of a task.
    pub async fn run_until_cancelled(self, grace: Duration) -> Result<(), Failure> {
        self.supervise(NoSignals, grace).await
    }

    /// Stops everything in order, at once: for when a service could not be started.
    ///
    /// # Errors
    ///
    /// The first failure of a task, as for [`Context::run_until_cancelled`].
    pub async fn shut_down(mut self, grace: Duration) -> Result<(), Failure> {
        let mut failure = None;
        self.health.enter(Phase::Stopping);
        self.drain(grace, &mut failure).await;
        failure.map_or(Ok(()), Err)
    }

    async fn supervise(
        mut self,
        mut requests: impl StopRequests,
        grace: Duration,
    ) -> Result<(), Failure> {
        if self.tasks.set.is_empty() && self.support.set.is_empty() {
            return Err(Failure::NothingToDo);
        }
        let mut failure = match self.run(&mut requests).await {
            Cause::Requested => None,
            Cause::TaskEnded(failure) => Some(failure),
        };
        self.health.enter(Phase::Stopping);
        info!(?grace, "stopping");
        let drained = tokio::select! {
            () = self.drain(grace, &mut failure) => true,
            () = requests.next() => false,
        };
        if !drained {
            warn!("stopping at once");
            self.tasks.abort().await;
            self.support.abort().await;
            return Err(failure.unwrap_or(Failure::Interrupted));
        }
        failure.map_or(Ok(()), Err)
    }

    /// Waits until there is a reason to stop.
    async fn run(&mut self, requests: &mut impl StopRequests) -> Cause {
        self.health.enter(Phase::Running);
        info!(tasks = self.tasks.set.len() + self.support.set.len(), "running");
        let (task, ended) = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Cause::Requested,
            () = requests.next() => return Cause::Requested,
            Some(ended) = self.tasks.next() => ended,
            Some(ended) = self.support.next() => ended,
        };
        let early = || Failure::EndedEarly { task: task.clone() };
        let failure = Failure::of(task.clone(), ended).unwrap_or_else(early);
        self.health.fail();
        error!(error = chain(&failure), "a task ended, so everything stops");
        Cause::TaskEnded(failure)
    }

    /// Ends intake, then lets tasks finish within `grace`, then does the same with support tasks.
    async fn drain(&mut self, grace: Duration, failure: &mut Option<Failure>) {
        self.stop.cancel();
        if tokio::time::timeout(grace, self.tasks.join_all(failure)).await.is_err() {
            self.tasks.abort().await;
        }
        self.support_stop.cancel();
        if tokio::time::timeout(SUPPORT_GRACE, self.support.join_all(failure)).await.is_err() {
            self.support.abort().await;
        }
    }

    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.service)
    }
}

impl Tasks {
    fn spawn<F>(&mut self, service: &str, name: &str, task: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let span = info_span!("task", service, task = name);
        let handle = self.set.spawn(task.instrument(span));
        self.names.insert(handle.id(), format!("{service}/{name}"));
    }

    /// Waits for a task to end; `None` if there is none. Cancel safe.
    async fn next(&mut self) -> Option<(String, Result<anyhow::Result<()>, JoinError>)> {
        let (id, ended) = match self.set.join_next_with_id().await? {
            Ok((id, result)) => (id, Ok(result)),
            Err(gone) => (gone.id(), Err(gone)),
        };
        Some((self.names.remove(&id).unwrap_or_default(), ended))
    }

    /// Waits for all tasks, keeping the first failure and reporting the others. Cancel safe.
    async fn join_all(&mut self, first: &mut Option<Failure>) {
        while let Some((task, ended)) = self.next().await {
            let Some(failure) = Failure::of(task, ended) else { continue };
            if first.is_none() {
                *first = Some(failure);
            } else {
                warn!(error = chain(&failure), "another task failed while stopping");
            }
        }
    }

    /// Aborts what is left and waits briefly until it has dropped what it held.
    async fn abort(&mut self) {
        let left: Vec<_> = self.names.values().map(String::as_str).collect();
        if left.is_empty() {
            return;
        }
        warn!(tasks = left.join(", "), "aborting tasks whose work is still in flight");
        self.set.abort_all();
        let gone = async { while self.next().await.is_some() {} };
        if tokio::time::timeout(ABORT_GRACE, gone).await.is_err() {
            warn!("some aborted tasks are still blocking");
        }
    }
}
