//! Whether a replay can never be done: then it ends, and says why.

use std::time::Duration;

use fanfare_domain::{
    EndpointId, Replay, Timestamp,
    job::{Failure, Scope},
};

use super::Desk;
use crate::routes::Routes;

/// How much later than its acceptance an event can be stored: it is kept from then on.
const LATE: Duration = Duration::from_mins(1);

impl Desk {
    /// Tells why a replay can never be done, if so. What was deleted stays so; only what is not known
    /// yet may look like it, so that is asked for before.
    pub(super) async fn failure(&self, replay: &Replay) -> anyhow::Result<Option<Failure>> {
        let oldest = self.clock.now().saturating_sub(self.log.retention());
        let look = || self.routes.read(|routes: &Routes| failure(replay, routes, oldest));
        if look().is_none() {
            return Ok(None);
        }
        self.routes.confirm().await?;
        Ok(look())
    }
}

fn failure(replay: &Replay, routes: &Routes, oldest: Timestamp) -> Option<Failure> {
    if routes.is_deleted(&replay.tenant) {
        return Some(Failure::TenantDeleted);
    }
    let is_there = |endpoint: EndpointId| routes.has(endpoint);
    match &replay.scope {
        Scope::Only(past) => {
            let is_deleted = !past.is_empty() && !past.iter().any(|it| is_there(it.endpoint));
            is_deleted.then_some(Failure::EndpointDeleted)
        }
        Scope::Range(range) if range.endpoint.is_some_and(|only| !is_there(only)) => {
            Some(Failure::EndpointDeleted)
        }
        Scope::Range(range) => {
            (range.until.saturating_add(LATE) < oldest).then_some(Failure::EventsGone)
        }
    }
}
