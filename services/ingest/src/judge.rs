//! Judging with the configuration at hand, so that no message can end the service.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{EventType, TenantId, schema::Violation};
use fanfare_event_log::{ConfigView, InboxMessage};
use fanfare_service::{Clock, Quiet};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::{
    admit::{Asked, Draft, Reason, Rejection, Rules, admit},
    counters::Counters,
    directory::Directory,
};

/// How often it is told in the log, at most, that data of a type leaves its schema; all is counted.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Judges messages by the rules and the configuration as it stands.
pub(crate) struct Judge {
    directory: ConfigView<Directory>,
    rules: Rules,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    told: Quiet<(TenantId, EventType)>,
}

/// A message that can become an event.
pub(crate) struct Judged {
    /// The event.
    pub(crate) draft: Draft,
    /// What the catalogue has against it, as it stands now. It may have been otherwise when the
    /// message came the first time: what became an event then is one.
    pub(crate) objection: Option<Rejection>,
}

impl Judge {
    /// Puts the parts together.
    pub(crate) fn new(
        directory: ConfigView<Directory>,
        rules: Rules,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { directory, rules, clock, counters, told: Quiet::new(TELL_EVERY) }
    }

    /// Waits until the configuration is at least as new as this call. Cancel safe.
    pub(crate) async fn catch_up(&self) -> Result<(), fanfare_event_log::ReadError> {
        self.directory.confirm().await.map(drop)
    }

    /// The revision of CONFIG that is judged by: at least the one that was caught up with last.
    pub(crate) fn revision(&self) -> u64 {
        self.directory.revision()
    }

    /// Judges a message. A panic of ours is a reason to refuse it: the message would come again,
    /// and so would the panic. Cancel safe.
    pub(crate) async fn judge(&self, message: &InboxMessage) -> Result<Judged, Rejection> {
        let judging = || self.directory.read(|directory| admit(message, directory, &self.rules));
        let (draft, asked) = guarded(judging)?;
        let objection = match look(asked, &draft).await {
            Ok(None) => None,
            Ok(Some(violation)) => {
                self.report(&draft, &violation);
                None
            }
            Err(rejection) => Some(rejection),
        };
        Ok(Judged { draft, objection })
    }

    /// A message that is handed out again is counted again. Where in its data it leaves the schema
    /// is part of the data: that is for debugging.
    fn report(&self, draft: &Draft, violation: &Violation) {
        let events = self.counters.count_reported();
        let (tenant, event_type) = (&draft.tenant, draft.event_type.as_str());
        let key = (draft.tenant.clone(), draft.event_type.clone());
        if self.told.may_tell(key, self.clock.now()) {
            let keyword = violation.keyword.as_str();
            warn!(
                tenant_id = %tenant,
                event_type,
                keyword,
                events,
                "data does not follow its schema"
            );
        }
        debug!(tenant_id = %tenant, event_type, %violation, "data does not follow its schema");
    }
}

/// Asks the catalogue about an event, beside the runtime if that takes time.
async fn look(asked: Asked, draft: &Draft) -> Result<Option<Violation>, Rejection> {
    if !asked.is_heavy(draft.data.len()) {
        return guarded(|| asked.look(&draft.event_type, &draft.data));
    }
    let (event_type, data) = (draft.event_type.clone(), draft.data.clone());
    let looking = spawn_blocking(move || guarded(|| asked.look(&event_type, &data)));
    looking.await.unwrap_or_else(|_| Err(failed()))
}

fn guarded<T>(judge: impl FnOnce() -> Result<T, Rejection>) -> Result<T, Rejection> {
    catch_unwind(AssertUnwindSafe(judge)).unwrap_or_else(|_| Err(failed()))
}

fn failed() -> Rejection {
    Reason::InternalError.because("judging the message failed")
}
