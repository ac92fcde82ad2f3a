//! Requests that run to their end, whoever waits for them: a caller that hangs up must not leave
//! open what became of a request whose answer is kept for its repeat.

use std::pin::Pin;

use fanfare_domain::chain;
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
pub(crate) struct Errands(mpsc::Sender<Errand>);

/// The service is stopping, and takes no more of them.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the service is stopping")]
pub(crate) struct Stopping;

impl Errands {
    /// Returns the way in, and what [`run`] takes from it.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Errand>) {
        let (into, from) = mpsc::channel(WAITING_MAX);
        (Self(into), from)
    }

    /// Has something done. Once this returns, it is done even if the caller goes away.
    pub(crate) async fn send(
        &self,
        errand: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Stopping> {
        let errand = errand.instrument(Span::current());
        self.0.send(Box::pin(errand)).await.map_err(|_closed| Stopping)
    }
}

/// Runs what is sent until `stop`, then what was sent before.
pub(crate) async fn run(
    mut sent: mpsc::Receiver<Errand>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    loop {
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
    if let Err(cause) = ended {
        error!(error = chain(&cause), "a request did not end well");
    }
}
