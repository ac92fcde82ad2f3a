//! The catalogues of event types: the tenants', and the installation's.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::{ApiKey, EventType, TenantId, config::EventTypeEntry};

use super::{Revised, page};

/// The catalogues; that of no tenant is the installation's.
#[derive(Debug, Default)]
pub(super) struct Catalogues {
    entries: BTreeMap<Option<TenantId>, BTreeMap<EventType, Revised<EventTypeEntry>>>,
    /// The revisions at which entries were deleted: the type can be used again.
    deleted: BTreeMap<(Option<TenantId>, EventType), u64>,
}

impl Catalogues {
    pub(super) fn entry(
        &self,
        tenant: Option<&TenantId>,
        event_type: &EventType,
    ) -> Option<Revised<EventTypeEntry>> {
        self.entries.get(&tenant.cloned())?.get(event_type).cloned()
    }

    pub(super) fn entries(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&EventType>,
        limit: usize,
    ) -> Vec<Revised<EventTypeEntry>> {
        let Some(entries) = self.entries.get(&tenant.cloned()) else { return Vec::new() };
        page(entries, after).take(limit).cloned().collect()
    }

    pub(super) fn count(&self, tenant: Option<&TenantId>) -> usize {
        self.entries.get(&tenant.cloned()).map_or(0, BTreeMap::len)
    }

    pub(super) fn vacancy(&self, tenant: Option<&TenantId>, event_type: &EventType) -> u64 {
        self.deleted.get(&(tenant.cloned(), event_type.clone())).copied().unwrap_or(0)
    }

    pub(super) fn apply(&mut self, entry: &Arc<EventTypeEntry>, revision: u64, deleted: bool) {
        let key = (entry.tenant.clone(), entry.event_type.clone());
        let entries = self.entries.entry(entry.tenant.clone()).or_default();
        if deleted {
            entries.remove(&entry.event_type);
            self.deleted.insert(key, revision);
        } else {
            self.deleted.remove(&key);
            let revised = Revised { value: Arc::clone(entry), revision };
            entries.insert(entry.event_type.clone(), revised);
        }
        if entries.is_empty() {
            self.entries.remove(&entry.tenant);
        }
    }
}

impl super::Directory {
    /// Tells how many keys a tenant, or the operator, has.
    pub(crate) fn keys_count(&self, tenant: Option<&TenantId>) -> usize {
        let own = |key: &&Revised<ApiKey>| key.value.tenant.as_ref() == tenant;
        self.keys.values().filter(own).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tenant: Option<&str>, event_type: &str) -> Arc<EventTypeEntry> {
        Arc::new(EventTypeEntry {
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            event_type: event_type.parse().unwrap(),
            description: String::new(),
            schema: String::new(),
            example: String::new(),
            validation: fanfare_domain::config::Validation::Off,
        })
    }

    #[test]
    fn a_deleted_type_leaves_the_revision_to_begin_again_from() {
        let mut catalogues = Catalogues::default();
        let (own, everybodys) = (entry(Some("acme"), "a"), entry(None, "a"));
        let tenant = own.tenant.as_ref();
        catalogues.apply(&own, 5, false);
        catalogues.apply(&everybodys, 6, false);
        assert_eq!(catalogues.entry(tenant, &own.event_type).unwrap().revision, 5);
        catalogues.apply(&own, 7, true);
        assert!(catalogues.entry(tenant, &own.event_type).is_none());
        assert_eq!(catalogues.vacancy(tenant, &own.event_type), 7);
        assert_eq!(catalogues.vacancy(None, &own.event_type), 0);
        assert_eq!((catalogues.count(tenant), catalogues.count(None)), (0, 1));
        catalogues.apply(&own, 8, false);
        assert_eq!(catalogues.vacancy(tenant, &own.event_type), 0);
    }
}
