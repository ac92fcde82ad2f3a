//! How often what failed is tried again.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    stream::{
        ConsumerCreateStrictError, ConsumerCreateStrictErrorKind, ConsumerError, ConsumerErrorKind,
        RawMessageError, RawMessageErrorKind,
    },
};
use fanfare_domain::chain;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::{EventLog, ReadError, log::ApiError};

/// How long a refusal is borne: servers that start say many things that are not so a moment
/// later. Silence is borne for ever.
const BEARABLE: Duration = Duration::from_secs(20);
/// After how long a person should look into it.
const WORRY: Duration = Duration::from_secs(15);
/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Waits between tries, and decides whether there is use in another one.
pub(crate) struct Patience {
    log: EventLog,
    stream: String,
    begun: Instant,
    /// Since when the servers have said no each time.
    refused: Option<Instant>,
    pause: Duration,
    worried: bool,
}

impl Patience {
    pub(crate) fn new(log: &EventLog, stream: String) -> Self {
        let (log, begun) = (log.clone(), Instant::now());
        Self { log, stream, begun, refused: None, pause: PAUSE_MIN, worried: false }
    }

    /// Waits before the next try; an error if there is no use in it.
    pub(crate) fn bear(
        &mut self,
        error: async_nats::Error,
    ) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move {
            let closed = self.log.inner.closed.clone();
            if closed.is_cancelled() {
                return Err(ReadError::Closed);
            }
            let cause = chain(error.as_ref());
            debug!(cause, stream = self.stream, "trying to read again");
            if is_refusal(&error) {
                let since = *self.refused.get_or_insert_with(Instant::now);
                if since.elapsed() > BEARABLE {
                    return Err(ReadError::Refused { stream: self.stream.clone(), source: error });
                }
            } else {
                self.refused = None;
            }
            if !self.worried && self.begun.elapsed() > WORRY {
                self.worried = true;
                warn!(cause, stream = self.stream, "nothing can be read, and it is tried again");
            }
            let waiting = async {
                sleep(self.pause).await;
                self.log.inner.link.up(&self.log.inner.client).await;
            };
            closed.run_until_cancelled(waiting).await.ok_or(ReadError::Closed)?;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            Ok(())
        })
    }
}

/// Whether a server said no, in a way that is not about this moment.
fn is_refusal(error: &async_nats::Error) -> bool {
    if let Some(error) = error.downcast_ref::<ApiError>() {
        return !error.is_temporary();
    }
    said(error).is_some_and(|said| said.code() < 500)
}

fn said(error: &async_nats::Error) -> Option<jetstream::Error> {
    if let Some(error) = error.downcast_ref::<ConsumerError>()
        && let ConsumerErrorKind::JetStream(said) = error.kind()
    {
        return Some(said);
    }
    if let Some(error) = error.downcast_ref::<ConsumerCreateStrictError>()
        && let ConsumerCreateStrictErrorKind::JetStream(said) = error.kind()
    {
        return Some(said);
    }
    if let Some(error) = error.downcast_ref::<RawMessageError>()
        && let RawMessageErrorKind::JetStream(said) = error.kind()
    {
        return Some(said);
    }
    None
}
