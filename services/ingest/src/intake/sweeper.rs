//! Puts messages aside that no reader will ever see, because they break its connection.

use std::{sync::Arc, time::Duration};

use fanfare_event_log::{EventLog, ReadError};
use tokio::time::timeout;
use tracing::warn;

use crate::{admit::Reason, counters::Counters, outlet::Outlet};

/// How long keeping one may take.
const ASIDE: Duration = Duration::from_secs(5);

/// Looks for such messages. Goes by a connection that they do not come by.
pub(crate) struct Sweeper {
    /// Where to look.
    pub(crate) log: EventLog,
    /// Keeps them.
    pub(crate) outlet: Outlet,
    /// Counts them.
    pub(crate) counters: Arc<Counters>,
}

impl Sweeper {
    /// Puts aside what it finds among messages that were handed out and are not settled.
    pub(crate) async fn sweep(&self, redelivered_only: bool) -> Result<(), ReadError> {
        for unreadable in self.log.unreadable_inbox(redelivered_only).await? {
            let sequence = unreadable.sequence;
            warn!(sequence, detail = unreadable.detail, "a message breaks connections");
            self.counters.count_rejected(Reason::MalformedHeader);
            let rejection = Reason::MalformedHeader.because(unreadable.detail);
            let keeping = self.outlet.clone().reject(unreadable.message.clone(), rejection);
            if timeout(ASIDE, keeping).await.is_err() {
                warn!(sequence, "a refused message was not kept in time");
            }
            self.log.remove_unreadable(&unreadable).await?;
        }
        Ok(())
    }
}
