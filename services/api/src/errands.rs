//! Requests that run to their end, whoever waits for them: a caller that hangs up must not leave
//! open what became of a request whose answer is kept for its repeat.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use fanfare_domain::chain;
use fanfare_service::Joined as _;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, error};

/// How many requests run at once; more wait.
const RUNNING_MAX: usize = 256;
/// How many requests wait, beside the connections that do.
const WAITING_MAX: usize = 16;

type Errand = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Errands {
    into: mpsc::Sender<Errand>,
    running: Arc<AtomicUsize>,
}

/// What was sent, and how many of it run.
pub(crate) struct Sent {
    from: mpsc::Receiver<Errand>,
    running: Arc<AtomicUsize>,
}

/// The service is stopping, and takes no more of them.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the service is stopping")]
pub(crate) struct Stopping;

impl Errands {
    /// How many may run or wait; who sends more waits.
    pub(crate) const MAX: usize = RUNNING_MAX + WAITING_MAX;

    /// Returns the way in, and what [`run`] takes from it.
    pub(crate) fn new() -> (Self, Sent) {
        let (into, from) = mpsc::channel(WAITING_MAX);
        let running = Arc::<AtomicUsize>::default();
        (Self { into, running: Arc::clone(&running) }, Sent { from, running })
    }

    /// What tells how many run or wait. It keeps nothing open.
    pub(crate) fn in_hand(&self) -> impl Fn() -> usize + Send + Sync + 'static + use<> {
        let (into, running) = (self.into.downgrade(), Arc::clone(&self.running));
        move || {
            let waiting = into.upgrade().map_or(0, |into| into.max_capacity() - into.capacity());
            running.load(Relaxed) + waiting
        }
    }

    /// Has something done. Once this returns, it is done even if the caller goes away.
    pub(crate) async fn send(
        &self,
        errand: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Stopping> {
        let errand = errand.instrument(Span::current());
        self.into.send(Box::pin(errand)).await.map_err(|_closed| Stopping)
    }
}

/// Runs what is sent until `stop`, then what was sent before.
pub(crate) async fn run(sent: Sent, stop: CancellationToken) -> anyhow::Result<()> {
    let (mut sent, count) = (sent.from, sent.running);
    let mut running = JoinSet::new();
    loop {
        count.store(running.len(), Relaxed);
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => note(ended),
            Some(errand) = sent.recv(), if running.len() < RUNNING_MAX => {
                running.spawn(errand);
            }
        }
    }
    sent.close();
    while let Some(errand) = sent.recv().await {
        running.spawn(errand);
    }
    while let Some(ended) = running.join_next().await {
        note(ended);
    }
    Ok(())
}

fn note(ended: Result<(), JoinError>) {
    if let Err(cause) = ended.joined() {
        error!(error = chain(&cause), "a request did not end well");
    }
}
