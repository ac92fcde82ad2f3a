//! Which event an idempotency key stands for, and whether that event is stored.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_domain::{EventId, TenantId, Timestamp};
use fanfare_event_log::{
    EventLog, ReadError,
    idempotency::{IdempotencyKeys, KeyState},
};
use fanfare_service::Clock;
use tracing::debug;

/// How far clocks may disagree. Ids of requests have the time of the process that took them.
pub(crate) const SKEW: Duration = Duration::from_mins(1);

/// Looks keys and events up. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keys {
    log: EventLog,
    claims: IdempotencyKeys,
    clock: Arc<dyn Clock>,
    duplicate_window: Duration,
}

/// What is to be done for an event with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is to be written, under this id.
    Open {
        /// The id: its own, or that of whoever claimed the key first.
        event: EventId,
        /// Whether somebody else claimed the key first.
        duplicate: bool,
    },
    /// It is in EVENTS under this id.
    Written {
        /// The id.
        event: EventId,
    },
}

impl Keys {
    /// Opens the keys of an installation.
    pub(crate) async fn open(
        log: &EventLog,
        clock: Arc<dyn Clock>,
        duplicate_window: Duration,
    ) -> Result<Self, ReadError> {
        let claims = log.idempotency_keys().await?;
        Ok(Self { log: log.clone(), claims, clock, duplicate_window })
    }

    /// How long after a look an event may be written without another look: far less than the
    /// time for which the servers know an id again.
    pub(crate) fn fresh_for(&self) -> Duration {
        self.duplicate_window / 2
    }

    /// Claims a key for an event, and finds out what is left to do.
    pub(crate) async fn stand(
        &self,
        tenant: &TenantId,
        key: &str,
        own: EventId,
    ) -> Result<Standing, ReadError> {
        match self.claims.claim(tenant, key, own).await? {
            KeyState::Claimed => Ok(Standing::Open { event: own, duplicate: false }),
            KeyState::Done(event) => Ok(Standing::Written { event }),
            KeyState::Pending(event) => {
                // Its claimant may have written it so long ago that the servers have forgotten.
                let may_be_forgotten =
                    is_far_from(event.time(), self.clock.now(), self.fresh_for());
                if may_be_forgotten && self.is_stored(event).await? {
                    self.complete(tenant, key, event).await;
                    return Ok(Standing::Written { event });
                }
                Ok(Standing::Open { event, duplicate: true })
            }
        }
    }

    /// Returns the stored event that a key stands for; claims nothing.
    pub(crate) async fn written(
        &self,
        tenant: &TenantId,
        key: &str,
    ) -> Result<Option<EventId>, ReadError> {
        match self.claims.find(tenant, key).await? {
            Some(event) if self.is_stored(event).await? => Ok(Some(event)),
            Some(_) | None => Ok(None),
        }
    }

    /// Notes that a key's event is stored. That it fails is harmless: whoever finds the key then
    /// looks for the event.
    pub(crate) async fn complete(&self, tenant: &TenantId, key: &str, event: EventId) {
        if let Err(error) = self.claims.complete(tenant, key, event).await {
            debug!(%error, event_id = %event, "a key could not be completed");
        }
    }

    /// Looks for one event in EVENTS, from about its own time on.
    pub(crate) async fn is_stored(&self, event: EventId) -> Result<bool, ReadError> {
        let since = event.time().saturating_sub(SKEW);
        let wanted = BTreeSet::from([event]);
        let found = self.log.events_on_record(&wanted, since, None).await?;
        Ok(found.contains(&event))
    }
}

/// Whether two times are further apart than `far`, in either direction: clocks disagree.
fn is_far_from(one: Timestamp, other: Timestamp, far: Duration) -> bool {
    one.since(other).max(other.since(one)) > far
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_far_in_either_direction() {
        let at = Timestamp::from_millis;
        let far = Duration::from_millis(10);
        for (one, other, expected) in
            [(100, 100, false), (100, 110, false), (100, 111, true), (111, 100, true)]
        {
            assert_eq!(is_far_from(at(one), at(other), far), expected, "{one} {other}");
        }
    }
}
