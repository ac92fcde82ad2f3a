//! Judging with the configuration at hand, so that no message can end the service.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fanfare_domain::schema::Violation;
use fanfare_event_log::{ConfigView, InboxMessage};
use fanfare_service::Clock;
use tracing::{debug, warn};

use crate::{
    admit::{Draft, Reason, Rejection, Rules, admit},
    counters::Counters,
    directory::Directory,
};

/// How often it is told in the log, at most, that data leaves its schema; all is counted.
const TELL_EVERY_MS: u64 = 10_000;

/// Judges messages by the rules and the configuration as it stands.
pub(crate) struct Judge {
    directory: ConfigView<Directory>,
    rules: Rules,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    /// When it may be told again that data leaves its schema, in milliseconds.
    tell_at: AtomicU64,
}

impl Judge {
    /// Puts the parts together.
    pub(crate) fn new(
        directory: ConfigView<Directory>,
        rules: Rules,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { directory, rules, clock, counters, tell_at: AtomicU64::new(0) }
    }

    /// Waits until the configuration is at least as new as this call. Cancel safe.
    pub(crate) async fn catch_up(&self) -> Result<(), fanfare_event_log::ReadError> {
        self.directory.confirm().await.map(drop)
    }

    /// Judges a message. A panic of ours is a reason to refuse it: the message would come again,
    /// and so would the panic.
    pub(crate) fn judge(&self, message: &InboxMessage) -> Result<Draft, Rejection> {
        let judging = || self.directory.read(|directory| admit(message, directory, &self.rules));
        let draft = catch_unwind(AssertUnwindSafe(judging))
            .unwrap_or_else(|_| Err(Reason::InternalError.because("judging the message failed")))?;
        if let Some(violation) = &draft.violation {
            self.report(&draft, violation);
        }
        Ok(draft)
    }

    /// A message that is handed out again is counted again.
    fn report(&self, draft: &Draft, violation: &Violation) {
        let events = self.counters.count_reported();
        let now = self.clock.now().as_nanos() / 1_000_000;
        let due = self.tell_at.load(Ordering::Relaxed);
        let next = now.saturating_add(TELL_EVERY_MS);
        let swap = |due| {
            self.tell_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let (tenant, event_type) = (&draft.tenant, draft.event_type.as_str());
        if now >= due && swap(due) {
            let path = violation.path.as_str();
            warn!(tenant_id = %tenant, event_type, path, events, "data does not follow its schema");
        } else {
            debug!(tenant_id = %tenant, event_type, %violation, "data does not follow its schema");
        }
    }
}
