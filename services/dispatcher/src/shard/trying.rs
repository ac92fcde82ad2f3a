//! Trying endpoints: a few at once, beside everything else.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::TenantId;
use fanfare_event_log::Trial;
use tokio::task::JoinSet;

use super::ShardWorker;
use crate::attempt::trial;

/// How many endpoints of a shard are tried at once.
const AT_ONCE_MAX: usize = 8;
/// How many of one tenant: endpoints that never answer take up to a minute each.
const OF_TENANT_MAX: usize = 3;

/// What is being tried.
#[derive(Default)]
pub(super) struct Trying {
    running: JoinSet<()>,
    /// A clone of the tenant's goes with each of its trials.
    tenants: BTreeMap<TenantId, Arc<()>>,
}

impl Trying {
    /// Takes one of the places, if there is one for the tenant.
    fn place(&mut self, tenant: &TenantId) -> Option<Arc<()>> {
        while self.running.try_join_next().is_some() {}
        self.tenants.retain(|_, places| Arc::strong_count(places) > 1);
        let places = self.tenants.entry(tenant.clone()).or_default();
        let is_full =
            self.running.len() >= AT_ONCE_MAX || Arc::strong_count(places) > OF_TENANT_MAX;
        (!is_full).then(|| Arc::clone(places))
    }
}

impl ShardWorker {
    /// Tries an endpoint, unless others are being tried.
    pub(super) async fn try_endpoint(&mut self, asked: Trial) {
        let Some(place) = self.trying.place(&asked.event.event.tenant) else {
            return asked.refuse(trial::BUSY).await;
        };
        let trying = trial::make(Arc::clone(&self.desk), asked);
        self.trying.running.spawn(async move {
            trying.await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenants_trials_leave_places_for_others() {
        let mut trying = Trying::default();
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "o".parse().unwrap());
        let mut places: Vec<_> = (0..OF_TENANT_MAX).map(|_| trying.place(&acme).unwrap()).collect();
        assert!(trying.place(&acme).is_none());
        assert!(trying.place(&other).is_some());
        places.pop();
        assert!(trying.place(&acme).is_some());
    }
}
