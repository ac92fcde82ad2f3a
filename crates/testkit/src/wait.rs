//! Waiting for states instead of for time.

use std::{fmt::Debug, time::Duration};

use tokio::time::Instant;

/// How long a state is waited for: far longer than it takes, so that only a defect gets there.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often a state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `look` returns something.
///
/// # Panics
///
/// After a minute, saying what was waited for and what was last seen.
pub async fn wait_until<T, S: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    wait_at_most(PATIENCE, what, look).await
}

/// Waits until `look` returns something, for as long as the caller says.
///
/// # Panics
///
/// When the time is up, saying what was waited for and what was last seen.
pub async fn wait_at_most<T, S: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let begun = Instant::now();
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(begun.elapsed() <= patience, "waited {patience:?} for {what}; last seen: {seen:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
