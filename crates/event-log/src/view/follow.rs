//! The task behind a view: reads the stream, and asks how far it has come.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use fanfare_domain::chain;
use fanfare_proto::DecodeError;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Fold, Progress, Shared};
use crate::{
    EventLog, ReadError,
    log::Which,
    read::{Numbered, Ordered, Start},
};

/// How long to wait after the servers did not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// After how long without questions a stopped view ends, and after how long in any case.
const QUIET: Duration = Duration::from_millis(300);
const LINGER_MAX: Duration = Duration::from_secs(10);
/// How long a change that is known to be there may take to come before it is fetched anew.
const STALL: Duration = Duration::from_millis(300);
/// The most that is waited between two fetches.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Follows the stream until `stop`, and then for as long as others, who finish what they have in hand,
/// ask for confirmations.
pub(super) async fn run<F: Fold>(
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
    let stopped = async {
        stop.cancelled().await;
        let mut asked = shared.asked.subscribe();
        let quiet = async { while let Ok(Ok(())) = timeout(QUIET, asked.changed()).await {} };
        timeout(LINGER_MAX, quiet).await
    };
    let ended = tokio::select! {
        ended = working => ended,
        _ = stopped => Ok(()),
    };
    match ended {
        // Whoever else stops may have closed the log before.
        Err(ReadError::Closed) if stop.is_cancelled() => Ok(()),
        ended => ended,
    }
}

/// Tells those who wait that nobody follows any more, also when the task is aborted.
struct Ended<'a, F>(&'a Shared<F>);

impl<F> Drop for Ended<'_, F> {
    fn drop(&mut self) {
        self.0.progress.send_modify(|progress| progress.ended = true);
    }
}

/// Reads from where the view is, again and again.
async fn follow<F: Fold>(log: &EventLog, shared: &Shared<F>) -> Result<(), ReadError> {
    loop {
        let start = Start::Sequence(shared.progress.borrow().revision + 1);
        let (stream, subjects) = (shared.stream.clone(), shared.subjects.clone());
        let mut changes = Ordered::of(log, stream, subjects, start);
        match drain(&mut changes, shared).await {
            Ok(()) => debug!(stream = shared.stream, "fetching anew"),
            Err(error @ (ReadError::Unreadable { .. } | ReadError::Closed)) => return Err(error),
            Err(error) => {
                let (error, stream) = (chain(&error), &shared.stream);
                warn!(error, stream, "what a view is of cannot be read yet");
                sleep(PAUSE).await;
            }
        }
        changes.close().await;
    }
}

/// Applies changes until they have to be fetched anew.
async fn drain<F: Fold>(changes: &mut Ordered, shared: &Shared<F>) -> Result<(), ReadError> {
    loop {
        tokio::select! {
            change = changes.next() => take(&change?, shared)?,
            () = shared.stalled.notified() => return Ok(()),
        }
    }
}

/// Applies one message and notes how far the view has come.
fn take<F: Fold>(numbered: &Numbered, shared: &Shared<F>) -> Result<(), ReadError> {
    let revision = numbered.sequence;
    if revision <= shared.progress.borrow().revision {
        return Ok(());
    }
    let taken = shared.state.write().unwrap_or_else(PoisonError::into_inner).take(numbered);
    match taken {
        Ok(()) => {}
        Err(source @ DecodeError::UnknownValue { .. }) => {
            let stream = shared.stream.clone();
            return Err(ReadError::Unreadable { stream, sequence: revision, source });
        }
        Err(unreadable) => {
            let (error, stream) = (chain(&unreadable), &shared.stream);
            error!(error, stream, revision, "a record cannot be read and is passed over");
        }
    }
    shared.progress.send_modify(|progress| progress.revision = revision);
    Ok(())
}

/// Gives confirmations: one question for all that were asked for before it was sent.
async fn confirm<F: Fold>(log: &EventLog, shared: &Shared<F>) -> Result<(), ReadError> {
    let mut asked = shared.asked.subscribe();
    let mut given = 0;
    let mut stall = STALL;
    loop {
        // The sender is in `shared`, so this cannot fail.
        let Ok(ours) = asked.wait_for(|&asked| asked > given).await.map(|asked| *asked) else {
            return Ok(());
        };
        let sent_at = Instant::now();
        match timeout(log.inner.patience, last(log, shared)).await {
            Ok(Ok(last)) => {
                if !reach(shared, last, &mut stall).await {
                    continue;
                }
                shared.progress.send_modify(|progress| {
                    *progress =
                        Progress { confirmed_at: Some(sent_at), confirmed: ours, ..*progress };
                });
                given = ours;
                continue;
            }
            Ok(Err(error)) => {
                let error = chain(error.as_ref());
                debug!(error, stream = shared.stream, "cannot tell yet how far it has come");
            }
            Err(_) => debug!(stream = shared.stream, "nobody said in time how far it has come"),
        }
        sleep(PAUSE).await;
        log.inner.link.up(&log.inner.client).await;
    }
}

/// The last revision that is there to be read, by the stream's leader, or the one that the view has
/// come to, if that is later. Not the stream's last sequence: what has that may have been removed,
/// or be none of the view's.
///
/// The leader is whoever takes itself for it. On one server it is. A cluster's server that was cut
/// off from the others goes on answering those that reach it until it gives up, 10 s or so later,
/// though the others may have another leader, and newer revisions, by then.
async fn last<F>(log: &EventLog, shared: &Shared<F>) -> Result<u64, async_nats::Error> {
    let mut last = shared.progress.borrow().revision;
    for subject in &shared.subjects {
        // Nearly always there is nothing new. To be told so is cheap, however many subjects there
        // are; to be told the last one of them is not.
        if log.try_get_from(&shared.stream, Which::From(subject, last + 1)).await?.is_none() {
            continue;
        }
        let found = log.try_get_from(&shared.stream, Which::Last(subject)).await?;
        last = last.max(found.map_or(0, |message| message.sequence));
    }
    Ok(last)
}

/// Waits until the view has come to a revision that was there. Returns `false` if nothing comes:
/// the revision may have been removed meanwhile.
async fn reach<F: Fold>(shared: &Shared<F>, last: u64, stall: &mut Duration) -> bool {
    let mut progress = shared.progress.subscribe();
    loop {
        let before = progress.borrow().revision;
        let reached = progress.wait_for(|progress| progress.revision >= last);
        if timeout(*stall, reached).await.is_ok() {
            *stall = STALL;
            return true;
        }
        if shared.progress.borrow().revision == before {
            // The consumer may be gone with the server that held it, and the client finds that
            // out much later than we know it.
            shared.stalled.notify_waiters();
            *stall = (*stall * 2).min(STALL_MAX);
            return false;
        }
        *stall = STALL;
    }
}
