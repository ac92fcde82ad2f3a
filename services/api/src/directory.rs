//! What is configured: a fold over CONFIG, with the revision of each thing.

mod catalogue;
mod expunges;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use fanfare_domain::{
    ApiKey, Change, Endpoint, EndpointId, EndpointState, Entity, EventType, KeyId, Role, Tenant,
    TenantId, Timestamp, config::EventTypeEntry,
};
use fanfare_event_log::{ConfigFold, PackedEndpoint};
use subtle::ConstantTimeEq as _;

pub(crate) use self::expunges::Expunging;
use self::{catalogue::Catalogues, expunges::Expunges};
use crate::portal::Link;

/// A thing as it is configured, and since which revision.
#[derive(Debug)]
pub(crate) struct Revised<T> {
    /// The thing.
    pub(crate) value: Arc<T>,
    /// The sequence in CONFIG of its last change.
    pub(crate) revision: u64,
}

impl<T> Clone for Revised<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), revision: self.revision }
    }
}

/// A thing that CONFIG holds.
pub(crate) trait Configured: Send + Sync + 'static {
    /// Returns it as what a change is about.
    fn entity(this: Arc<Self>) -> Entity;

    /// Returns what stays of it when all that its tenant said is removed.
    fn redacted(&self) -> Self;
}

impl Configured for Tenant {
    fn entity(this: Arc<Self>) -> Entity {
        Entity::Tenant(this)
    }

    fn redacted(&self) -> Self {
        self.redacted()
    }
}

impl Configured for Endpoint {
    fn entity(this: Arc<Self>) -> Entity {
        Entity::Endpoint(this)
    }

    fn redacted(&self) -> Self {
        self.redacted()
    }
}

impl Configured for EventTypeEntry {
    fn entity(this: Arc<Self>) -> Entity {
        Entity::EventType(this)
    }

    fn redacted(&self) -> Self {
        self.redacted()
    }
}

impl Configured for ApiKey {
    fn entity(this: Arc<Self>) -> Entity {
        Entity::ApiKey(this)
    }

    fn redacted(&self) -> Self {
        self.redacted()
    }
}

/// Tenants, endpoints, event types and keys.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<TenantId, Revised<Tenant>>,
    /// The revisions at which tenants were deleted: the id can be used again.
    tenants_deleted: BTreeMap<TenantId, u64>,
    expunges: Expunges,
    endpoints: BTreeMap<TenantId, Endpoints>,
    /// Of each deleted endpoint, its tenant as it was then: what becomes of the history is up to the
    /// tenant's profile.
    endpoints_deleted: BTreeMap<EndpointId, Option<Arc<Tenant>>>,
    catalogues: Catalogues,
    keys: BTreeMap<KeyId, Revised<ApiKey>>,
    keys_by_hash: BTreeMap<[u8; 32], KeyId>,
    /// The hashes of keys that were deleted: they are not admitted again.
    revoked: BTreeSet<[u8; 32]>,
}

#[derive(Debug, Default)]
struct Endpoints {
    by_id: BTreeMap<EndpointId, Kept>,
    /// How many of them are active.
    active: u32,
}

/// An endpoint as it is kept: there are very many.
#[derive(Debug)]
struct Kept {
    packed: PackedEndpoint,
    revision: u64,
    is_active: bool,
}

impl Endpoints {
    fn count(&self) -> u32 {
        u32::try_from(self.by_id.len()).unwrap_or(u32::MAX)
    }
}

impl Kept {
    fn revised(&self) -> Revised<Endpoint> {
        Revised { value: Arc::new(self.packed.unpack()), revision: self.revision }
    }
}

impl Directory {
    /// Returns a tenant.
    pub(crate) fn tenant(&self, id: &TenantId) -> Option<Revised<Tenant>> {
        self.tenants.get(id).cloned()
    }

    /// Returns the revision that a tenant of this id is created from: 0, or that of its deletion.
    pub(crate) fn tenant_vacancy(&self, id: &TenantId) -> u64 {
        self.tenants_deleted.get(id).copied().unwrap_or(0)
    }

    /// Tells whether a tenant is there that was created at that time: not a later one of the id.
    pub(crate) fn has_tenant_since(&self, id: &TenantId, created_at: Timestamp) -> bool {
        self.tenants.get(id).is_some_and(|tenant| tenant.value.created_at == created_at)
    }

    /// Returns the removals of everything that was kept for tenants.
    pub(crate) fn expunges(&self) -> &Expunges {
        &self.expunges
    }

    /// Returns up to `limit` tenants in the order of their ids.
    pub(crate) fn tenants(&self, after: Option<&TenantId>, limit: usize) -> Vec<Revised<Tenant>> {
        page(&self.tenants, after).take(limit).cloned().collect()
    }

    /// Returns an endpoint.
    pub(crate) fn endpoint(&self, tenant: &TenantId, id: EndpointId) -> Option<Revised<Endpoint>> {
        self.endpoints.get(tenant)?.by_id.get(&id).map(Kept::revised)
    }

    /// Tells whether an endpoint was deleted.
    pub(crate) fn is_deleted(&self, id: EndpointId) -> bool {
        self.endpoints_deleted.contains_key(&id)
    }

    /// Returns the name of the profile that a deleted endpoint's tenant had then.
    pub(crate) fn profile_of_deleted(&self, id: EndpointId) -> Option<&str> {
        let tenant = self.endpoints_deleted.get(&id)?.as_ref()?;
        Some(tenant.profile.as_str())
    }

    /// Returns up to `limit` endpoints of a tenant in the order of their ids: oldest first.
    pub(crate) fn endpoints(
        &self,
        tenant: &TenantId,
        after: Option<&EndpointId>,
        limit: usize,
    ) -> Vec<Revised<Endpoint>> {
        let Some(endpoints) = self.endpoints.get(tenant) else { return Vec::new() };
        page(&endpoints.by_id, after).take(limit).map(Kept::revised).collect()
    }

    /// Tells how many endpoints a tenant has.
    pub(crate) fn endpoints_count(&self, tenant: &TenantId) -> u32 {
        self.endpoints.get(tenant).map_or(0, Endpoints::count)
    }

    /// Tells whether a tenant has endpoints.
    pub(crate) fn has_endpoints(&self, tenant: &TenantId) -> bool {
        self.endpoints.contains_key(tenant)
    }

    /// Tells how many endpoints of a tenant are active.
    pub(crate) fn active_count(&self, tenant: &TenantId) -> u32 {
        self.endpoints.get(tenant).map_or(0, |endpoints| endpoints.active)
    }

    /// Returns an event type of a tenant's catalogue, or of the installation's.
    pub(crate) fn event_type(
        &self,
        tenant: Option<&TenantId>,
        event_type: &EventType,
    ) -> Option<Revised<EventTypeEntry>> {
        self.catalogues.entry(tenant, event_type)
    }

    /// Returns up to `limit` event types of a catalogue, in alphabetic order.
    pub(crate) fn event_types(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&EventType>,
        limit: usize,
    ) -> Vec<Revised<EventTypeEntry>> {
        self.catalogues.entries(tenant, after, limit)
    }

    /// Tells how many event types a catalogue has.
    pub(crate) fn event_types_count(&self, tenant: Option<&TenantId>) -> usize {
        self.catalogues.count(tenant)
    }

    /// Returns the revision that an event type is created from: 0, or that of its deletion.
    pub(crate) fn event_type_vacancy(
        &self,
        tenant: Option<&TenantId>,
        event_type: &EventType,
    ) -> u64 {
        self.catalogues.vacancy(tenant, event_type)
    }

    /// Returns a key.
    pub(crate) fn key(&self, id: KeyId) -> Option<Revised<ApiKey>> {
        self.keys.get(&id).cloned()
    }

    /// Returns up to `limit` keys of a tenant, or the operator's, in the order of their ids.
    pub(crate) fn keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&KeyId>,
        limit: usize,
    ) -> Vec<Revised<ApiKey>> {
        let own = |key: &&Revised<ApiKey>| key.value.tenant.as_ref() == tenant;
        page(&self.keys, after).filter(own).take(limit).cloned().collect()
    }

    /// Returns the key with this hash, unless it has expired.
    pub(crate) fn key_with(&self, hash: &[u8; 32], now: Timestamp) -> Option<Arc<ApiKey>> {
        // How long the look-up takes tells of hashes, which tell nothing of keys.
        let key = self.keys.get(self.keys_by_hash.get(hash)?)?;
        let same = bool::from(key.value.sha256.ct_eq(hash));
        let live = key.value.expires_at.is_none_or(|end| now < end);
        (same && live).then(|| Arc::clone(&key.value))
    }

    /// Tells whether a key is there and has not expired.
    pub(crate) fn key_stands(&self, id: KeyId, now: Timestamp) -> bool {
        let key = self.keys.get(&id);
        key.is_some_and(|key| key.value.expires_at.is_none_or(|end| now < end))
    }

    /// Tells whether a portal link is in force: its tenant is the one that it was made for, and the
    /// key that made it may still do so.
    pub(crate) fn link_stands(&self, link: &Link, now: Timestamp) -> bool {
        let Some(key) = self.keys.get(&link.key).map(|key| &key.value) else { return false };
        let covers = key.tenant.as_ref().is_none_or(|own| *own == link.tenant);
        let live = key.expires_at.is_none_or(|end| now < end) && now < link.expires_at;
        let same_tenant = self.has_tenant_since(&link.tenant, link.tenant_since);
        covers && live && key.role == Role::Admin && same_tenant
    }

    /// Tells whether a key with this hash is there, expired or not.
    pub(crate) fn has_key(&self, hash: &[u8; 32]) -> bool {
        self.keys_by_hash.contains_key(hash)
    }

    /// Tells whether a key with this hash was deleted.
    pub(crate) fn is_revoked(&self, hash: &[u8; 32]) -> bool {
        self.revoked.contains(hash)
    }

    fn apply_tenant(&mut self, tenant: &Arc<Tenant>, revision: u64, deleted: bool) {
        if deleted {
            self.tenants.remove(&tenant.id);
            self.tenants_deleted.insert(tenant.id.clone(), revision);
        } else {
            self.tenants_deleted.remove(&tenant.id);
            let revised = Revised { value: Arc::clone(tenant), revision };
            self.tenants.insert(tenant.id.clone(), revised);
        }
    }

    fn apply_endpoint(&mut self, endpoint: &Arc<Endpoint>, revision: u64, deleted: bool) {
        let endpoints = self.endpoints.entry(endpoint.tenant.clone()).or_default();
        let was_active = endpoints.by_id.remove(&endpoint.id).is_some_and(|kept| kept.is_active);
        endpoints.active -= u32::from(was_active);
        if deleted {
            let tenant = self.tenants.get(&endpoint.tenant);
            let tenant = tenant.map(|tenant| Arc::clone(&tenant.value));
            self.endpoints_deleted.insert(endpoint.id, tenant);
            if endpoints.by_id.is_empty() {
                self.endpoints.remove(&endpoint.tenant);
            }
            return;
        }
        self.endpoints_deleted.remove(&endpoint.id);
        let is_active = endpoint.state == EndpointState::Active;
        endpoints.active += u32::from(is_active);
        let packed = PackedEndpoint::pack(endpoint);
        endpoints.by_id.insert(endpoint.id, Kept { packed, revision, is_active });
    }

    fn apply_key(&mut self, key: &Arc<ApiKey>, revision: u64, deleted: bool) {
        if deleted {
            self.keys.remove(&key.id);
            self.keys_by_hash.remove(&key.sha256);
            self.revoked.insert(key.sha256);
        } else {
            self.keys_by_hash.insert(key.sha256, key.id);
            self.keys.insert(key.id, Revised { value: Arc::clone(key), revision });
        }
    }
}

impl ConfigFold for Directory {
    fn apply(&mut self, revision: u64, _stored_at: Timestamp, change: &Change) {
        match &change.entity {
            Entity::Tenant(tenant) => {
                self.apply_tenant(tenant, revision, change.deleted);
                self.expunges.apply(tenant, revision, change);
            }
            Entity::Endpoint(endpoint) => self.apply_endpoint(endpoint, revision, change.deleted),
            Entity::ApiKey(key) => self.apply_key(key, revision, change.deleted),
            Entity::EventType(entry) => self.catalogues.apply(entry, revision, change.deleted),
            Entity::Profile(_) => {}
        }
    }
}

fn page<'a, K: Ord, V>(map: &'a BTreeMap<K, V>, after: Option<&K>) -> impl Iterator<Item = &'a V> {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    map.range((start, Bound::Unbounded)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{PauseMode, TraceContext};

    use super::*;

    fn apply(directory: &mut Directory, revision: u64, entity: Entity, deleted: bool) {
        let (actor, reason) = (String::new(), String::new());
        let change = Change { entity, deleted, actor, reason, trace: TraceContext::default() };
        directory.apply(revision, Timestamp::EPOCH, &change);
    }

    fn endpoint(number: u8, state: EndpointState) -> Entity {
        Entity::Endpoint(Arc::new(Endpoint {
            id: EndpointId::new(Timestamp::EPOCH, [number; 10]),
            tenant: "acme".parse().unwrap(),
            url: String::from("https://example.com/"),
            name: String::new(),
            description: String::new(),
            filters: Vec::new(),
            condition: None,
            secrets: Vec::new(),
            headers: BTreeMap::new(),
            state,
            retry: None,
            timeout: None,
            concurrency: None,
            rate_limit: None,
            ordering: fanfare_domain::endpoint::Ordering::None,
            batch: None,
            cancelled_before: None,
            trace_context: None,
            security: fanfare_domain::endpoint::Security::default(),
            metadata: BTreeMap::new(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
        }))
    }

    #[test]
    fn endpoints_and_those_that_are_active_are_counted() {
        let mut directory = Directory::default();
        let tenant = "acme".parse().unwrap();
        let held = EndpointState::Paused(PauseMode::Hold);
        for (revision, number, state, deleted, counts) in [
            (1, 2, EndpointState::Active, false, (1, 1)),
            (2, 1, EndpointState::Active, false, (2, 2)),
            (3, 2, EndpointState::Active, false, (2, 2)),
            (4, 2, held, false, (2, 1)),
            (5, 2, EndpointState::Active, false, (2, 2)),
            (6, 1, EndpointState::Active, true, (1, 1)),
            (7, 2, EndpointState::Active, true, (0, 0)),
        ] {
            apply(&mut directory, revision, endpoint(number, state), deleted);
            let counted = (directory.endpoints_count(&tenant), directory.active_count(&tenant));
            assert_eq!(counted, counts, "at {revision}");
        }
        assert!(directory.endpoints.is_empty());
    }

    #[test]
    fn a_key_works_until_it_expires_or_is_deleted() {
        let mut directory = Directory::default();
        let key = |number: u8, expires_at| {
            Entity::ApiKey(Arc::new(ApiKey {
                id: KeyId::new(Timestamp::EPOCH, [number; 10]),
                name: String::new(),
                tenant: None,
                role: Role::Admin,
                sha256: [number; 32],
                created_at: Timestamp::EPOCH,
                expires_at,
                reveals_secrets: false,
                rate_limit: None,
            }))
        };
        let second = |second: u64| Timestamp::from_millis(second * 1_000);
        apply(&mut directory, 1, key(1, None), false);
        apply(&mut directory, 2, key(2, Some(second(5))), false);
        assert!(directory.key_with(&[1; 32], second(9)).is_some());
        assert!(directory.key_with(&[2; 32], second(4)).is_some());
        assert!(directory.key_with(&[2; 32], second(5)).is_none());
        assert!(directory.key_with(&[3; 32], second(0)).is_none());
        apply(&mut directory, 3, key(1, None), true);
        assert!(directory.key_with(&[1; 32], second(9)).is_none());
        assert!(directory.is_revoked(&[1; 32]));
    }

    #[test]
    fn a_deleted_tenant_leaves_the_revision_to_begin_again_from() {
        let mut directory = Directory::default();
        let id: TenantId = "acme".parse().unwrap();
        let tenant = || {
            Entity::Tenant(Arc::new(Tenant {
                id: "acme".parse().unwrap(),
                name: String::new(),
                profile: String::from("kryptos"),
                unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
                plan: None,
                endpoints_max: None,
                created_at: Timestamp::EPOCH,
                rate_limit: None,
                expunge: None,
            }))
        };
        assert_eq!(directory.tenant_vacancy(&id), 0);
        apply(&mut directory, 5, tenant(), false);
        apply(&mut directory, 8, tenant(), true);
        assert_eq!(directory.tenant_vacancy(&id), 8);
        assert!(directory.tenant(&id).is_none());
        apply(&mut directory, 9, tenant(), false);
        assert_eq!(directory.tenant(&id).unwrap().revision, 9);
    }
}
