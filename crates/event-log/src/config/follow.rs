//! The task behind a view: reads CONFIG, and asks how far it has come.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{
    Message,
    consumer::{
        DeliverPolicy,
        pull::{Ordered, OrderedConfig},
    },
};
use fanfare_domain::Timestamp;
use fanfare_proto::{DecodeError, decode_change};
use futures_util::StreamExt as _;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{ConfigFold, Progress, Shared};
use crate::{EventLog, ReadError, cas};

/// How long an answer is waited for before the question is asked again.
const QUESTION: Duration = Duration::from_secs(2);
/// How long to wait after the servers did not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a change that is known to be there may take to come before it is fetched anew.
const STALL: Duration = Duration::from_millis(300);
/// The most that is waited between two fetches.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Follows CONFIG until `stop`.
pub(super) async fn run<F: ConfigFold>(
    log: EventLog,
    shared: Arc<Shared<F>>,
    stop: CancellationToken,
) -> Result<(), ReadError> {
    let _ended = Ended(&shared);
    let working = async {
        tokio::select! {
            ended = follow(&log, &shared) => ended,
            never = confirm(&log, &shared) => never,
        }
    };
    stop.run_until_cancelled(working).await.unwrap_or(Ok(()))
}

/// Tells those who wait that nobody follows any more, also when the task is aborted.
struct Ended<'a, F>(&'a Shared<F>);

impl<F> Drop for Ended<'_, F> {
    fn drop(&mut self) {
        self.0.progress.send_modify(|progress| progress.ended = true);
    }
}

/// Reads from where the view is, again and again.
async fn follow<F: ConfigFold>(log: &EventLog, shared: &Shared<F>) -> Result<(), ReadError> {
    loop {
        let from = shared.progress.borrow().revision + 1;
        match timeout(QUESTION, open(log, &shared.stream, from)).await {
            Ok(Ok(messages)) => drain(messages, shared).await?,
            Ok(Err(error)) => warn!(error, "cannot read the configuration yet"),
            Err(_) => debug!("the configuration was not opened in time"),
        }
        sleep(PAUSE).await;
    }
}

async fn open(log: &EventLog, stream: &str, from: u64) -> Result<Ordered, async_nats::Error> {
    let stream = log.inner.jetstream.get_stream_no_info(stream).await?;
    let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: from };
    let consumer =
        stream.create_consumer(OrderedConfig { deliver_policy, ..OrderedConfig::default() });
    Ok(consumer.await?.messages().await?)
}

/// Applies messages until reading has to begin anew.
async fn drain<F: ConfigFold>(mut messages: Ordered, shared: &Shared<F>) -> Result<(), ReadError> {
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = shared.stalled.notified() => return Ok(()),
        };
        match message {
            Some(Ok(message)) => take(&message, shared)?,
            Some(Err(error)) => {
                debug!(%error, "reading the configuration begins anew");
                return Ok(());
            }
            None => return Ok(()),
        }
    }
}

/// Applies one message and notes how far the view has come.
fn take<F: ConfigFold>(message: &Message, shared: &Shared<F>) -> Result<(), ReadError> {
    let place = message.info().map_err(|error| cas::refused(&shared.stream, error))?;
    let revision = place.stream_sequence;
    if revision <= shared.progress.borrow().revision {
        return Ok(());
    }
    let stored_at = u64::try_from(place.published.unix_timestamp_nanos());
    let stored_at = stored_at.map_or(Timestamp::EPOCH, Timestamp::from_nanos);
    match decode_change(message.payload.clone()) {
        Ok(change) => {
            let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
            state.apply(revision, stored_at, &change);
        }
        Err(unknown @ DecodeError::UnknownValue { .. }) => {
            error!(error = %unknown, revision, "a newer version wrote this change: upgrade this one");
            return Err(cas::refused(&shared.stream, unknown));
        }
        Err(unreadable) => {
            error!(error = %unreadable, revision, "a change of configuration cannot be read and is passed over");
        }
    }
    shared.progress.send_modify(|progress| progress.revision = revision);
    Ok(())
}

/// Gives confirmations: one question for all that were asked for before it was sent.
async fn confirm<F: ConfigFold>(
    log: &EventLog,
    shared: &Shared<F>,
) -> Result<(), ReadError> {
    let mut asked = shared.asked.subscribe();
    let mut given = 0;
    loop {
        // The sender is in `shared`, so this cannot fail.
        let Ok(ours) = asked.wait_for(|&asked| asked > given).await.map(|asked| *asked) else {
            return Ok(());
        };
        let sent_at = Instant::now();
        match timeout(QUESTION, last(log, &shared.stream)).await {
            Ok(Ok(last)) => {
                reach(shared, last).await;
                shared.progress.send_modify(|progress| {
                    *progress =
                        Progress { confirmed_at: Some(sent_at), confirmed: ours, ..*progress };
                });
                given = ours;
            }
            Ok(Err(error)) => {
                debug!(error, "cannot tell yet how far the configuration has come");
                sleep(PAUSE).await;
            }
            Err(_) => debug!("nobody said in time how far the configuration has come"),
        }
    }
}

/// Asks the stream's leader for its last sequence.
async fn last(log: &EventLog, stream: &str) -> Result<u64, async_nats::Error> {
    let stream = log.inner.jetstream.get_stream_no_info(stream).await?;
    Ok(stream.get_info().await?.state.last_sequence)
}

/// Waits until the view has come to a revision that is known to exist.
async fn reach<F: ConfigFold>(shared: &Shared<F>, last: u64) {
    let mut progress = shared.progress.subscribe();
    let mut before = progress.borrow().revision;
    let mut patience = STALL;
    loop {
        let reached = progress.wait_for(|progress| progress.revision >= last);
        if timeout(patience, reached).await.is_ok() {
            return;
        }
        let now = shared.progress.borrow().revision;
        if now == before {
            // The consumer may be gone with the server that held it, and the client finds that
            // out much later than we know it.
            shared.stalled.notify_waiters();
            patience = (patience * 2).min(STALL_MAX);
        } else {
            patience = STALL;
        }
        before = now;
    }
}
