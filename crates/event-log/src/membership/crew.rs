//! Works on what is granted: one worker for each shard, from the grant to the release.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::Shard;
use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Grant, Membership, Share};
use crate::{AppendError, ReadError};

/// How long a shard rests whose worker ended by itself: somebody else may have claimed it.
const REST: Duration = Duration::from_secs(1);

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Duty {
    /// The shard to work on.
    pub shard: Shard,
    /// Under which name: the member's id, unique to this membership of this process.
    pub owner: Arc<str>,
    /// Cancelled when the shard is to be handed over: what is in hand is to be finished, and
    /// nothing new to be begun. The shard is another's as soon as the worker has ended.
    pub stop: CancellationToken,
}

impl Membership {
    /// Has a worker for each shard that is granted, until the membership has ended.
    ///
    /// A worker that ends after it was told to stop hands its shard over. One that ends before
    /// that gives it up, and a moment later the members decide anew whose it is. When the
    /// membership is lost, workers are dropped where they stand: nothing that they could still do
    /// would count. A worker's error ends everything, and so does its panic.
    pub async fn work<W, E>(mut self, mut worker: impl FnMut(Duty) -> W) -> Result<(), E>
    where
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        let mut posts: BTreeMap<Grant, CancellationToken> = BTreeMap::new();
        // Released, and still in the share: the driver has not heard of it yet.
        let mut over: BTreeSet<Grant> = BTreeSet::new();
        let mut crew = JoinSet::new();
        let mut ended = false;
        loop {
            let share = if ended { Share::default() } else { self.share() };
            for (_, stop) in posts.iter().filter(|(grant, _)| !share.grants.contains(grant)) {
                stop.cancel();
            }
            over.retain(|it| share.grants.contains(it) || share.withdrawn.contains(it));
            // Given and taken back before we looked: nobody works on it.
            for grant in share.withdrawn.iter().filter(|grant| !posts.contains_key(grant)) {
                if over.insert(*grant) {
                    self.release(*grant);
                }
            }
            for grant in share.grants.difference(&over) {
                posts.entry(*grant).or_insert_with(|| {
                    let stop = CancellationToken::new();
                    let owner = Arc::clone(&share.member);
                    let duty = Duty { shard: grant.shard, owner, stop: stop.clone() };
                    crew.spawn(fill(*grant, worker(duty), (stop.clone(), share.lost.clone())));
                    stop
                });
            }
            tokio::select! {
                Some(done) = crew.join_next() => {
                    let (grant, result) = done.unwrap_or_else(resume);
                    if let Err(error) = result {
                        crew.shutdown().await;
                        self.release_everything();
                        return Err(error);
                    }
                    posts.remove(&grant);
                    over.insert(grant);
                    self.release(grant);
                }
                changed = self.changed(), if !ended => ended = changed.is_err(),
                else => return Ok(()),
            }
        }
    }
}

/// Has one worker work.
async fn fill<W, E>(
    grant: Grant,
    worker: W,
    (stop, lost): (CancellationToken, CancellationToken),
) -> (Grant, Result<(), E>)
where
    W: Future<Output = Result<(), E>>,
{
    let Some(result) = lost.run_until_cancelled(worker).await else { return (grant, Ok(())) };
    if result.is_ok() && !stop.is_cancelled() {
        debug!(shard = %grant.shard, "a shard was given up");
        let rest = stop.run_until_cancelled(sleep(REST));
        lost.run_until_cancelled(rest).await;
    }
    (grant, result)
}

fn resume<T>(error: JoinError) -> T {
    // Nobody aborts a worker's task but the runtime, when it is shut down and nobody waits.
    std::panic::resume_unwind(error.into_panic())
}

/// Tells whether an error, by one of its causes, says that another process works on our shard:
/// then there is nothing wrong, and nothing more to be done.
pub fn is_loss(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|cause| {
        let superseded = cause
            .downcast_ref()
            .is_some_and(|error| matches!(error, AppendError::Superseded { .. }));
        let taken_over =
            cause.downcast_ref().is_some_and(|error| matches!(error, ReadError::TakenOver { .. }));
        superseded || taken_over
    })
}

#[cfg(test)]
mod tests;
