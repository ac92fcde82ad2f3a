//! Who reads INBOX: one process at a time, so that there is an order. The others stand by.

use std::sync::Arc;

use anyhow::Context as _;
use fanfare_event_log::EventLog;
use fanfare_service::{Joined as _, random_bytes};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::intake::Intake;

/// The role that has one post.
const ROLE: &str = "ingest";

/// Reads INBOX whenever it is ours, until the stop: then finishes what is being written, and frees
/// the post.
pub(crate) async fn stand_for(
    log: EventLog,
    intake: Arc<Intake>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let owner = format!("{ROLE}-{:016x}", u64::from_be_bytes(random_bytes()));
    let end = stop.child_token();
    let (membership, driver) = log.stand_for(ROLE, &owner, end.clone());
    let lease = membership.lease();
    let mut driving = JoinSet::new();
    driving.spawn(driver);
    let worked = membership.work(|duty| Arc::clone(&intake).work(duty, lease.clone())).await;
    // Leaving in order lets the others begin at once, also after a failure.
    end.cancel();
    if let Some(left) = driving.join_next().await {
        left.joined().context("run the membership")?.context("take part")?;
    }
    worked
}
