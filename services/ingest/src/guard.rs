//! Whether what came from INBOX may be written at this moment.
//!
//! A process that was stopped for a while may have been taken for dead: another one reads INBOX,
//! and has written on from where we stood. So our membership must have been confirmed by the
//! server a short while ago, on the monotonic clock. And there must be a connection: without one,
//! the client would keep what it is given, and send it whenever it has one again.

use std::time::Duration;

use fanfare_event_log::{EventLog, membership::Lease};
use tokio::time::{Instant, sleep};

/// How long a confirmation counts: several heartbeats, and far less than it takes to be evicted.
const CONFIRMED_FOR: Duration = Duration::from_millis(700);

/// How often who may not write looks again.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Tells whether to write. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guard(Option<(Lease, EventLog)>);

impl Guard {
    /// Lets everything be written: what is a process's own, and comes to no other.
    pub(crate) const OPEN: Self = Self(None);

    /// Guards what is written to a log, by a membership.
    pub(crate) fn new(lease: Lease, log: EventLog) -> Self {
        Self(Some((lease, log)))
    }

    /// Waits until something may be written. Cancel safe.
    pub(crate) async fn held(&self) {
        let Some((lease, log)) = &self.0 else { return };
        let fresh = |at: Instant| at.elapsed() < CONFIRMED_FOR;
        while !(lease.confirmed_at().is_some_and(fresh) && log.is_connected()) {
            sleep(LOOK_EVERY).await;
        }
    }
}
