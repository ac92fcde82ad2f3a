//! What the retry-scheduler knows of the configuration: a fold over CONFIG.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, OnceLock},
};

use fanfare_domain::{
    ApiKey, Change, DeliveryRef, EndpointId, EndpointState, Entity, KeyId, PauseMode, Profile,
    Profiles, Tenant, TenantId, Timestamp,
    endpoint::DisableReason,
    retry::Policy,
    tenant::{ExpungeStage, TenantIds},
};
use fanfare_event_log::ConfigFold;
use tokio::sync::watch;
use tracing::warn;

/// Tenants, endpoints and profiles, as of a revision of CONFIG.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    /// The tenants' ids that were expunged, and up to which event: without end while there was no later
    /// tenant of the id.
    expunged: BTreeMap<TenantId, u64>,
    tenant_ids: TenantIds,
    endpoints: BTreeMap<EndpointId, Known>,
    profiles: Profiles,
    /// Profiles that this machine has besides those of CONFIG.
    installed: OnceLock<Profiles>,
    /// The last time that each endpoint was disabled, by the revision that did it.
    disabled: BTreeMap<u64, EndpointId>,
    /// The API keys that there are, by the revision that made each.
    keys: BTreeMap<u64, KnownKey>,
    key_revisions: BTreeMap<KeyId, u64>,
    changed: watch::Sender<u64>,
}

/// What of an endpoint matters here, and which of its past still does. There are very many.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Which endpoint.
    pub(crate) id: EndpointId,
    /// Whose it is.
    pub(crate) tenant: TenantId,
    /// Whether it gets deliveries.
    pub(crate) state: EndpointState,
    /// The revision that it is at.
    pub(crate) revision: u64,
    /// The revision that made it active or gave it its URL, whichever was later: attempts made
    /// with an earlier one say nothing about it.
    pub(crate) fresh_since: u64,
    /// How it was disabled the last time, even if it is enabled again.
    pub(crate) disabled: Option<Box<Disabled>>,
    /// Its own policy.
    retry: Option<Box<Policy>>,
    /// Tells one URL from the next.
    url_hash: u64,
}

/// An API key, and how it came to be.
#[derive(Clone, Debug)]
pub(crate) struct KnownKey {
    /// The key. Keys are made and deleted, never changed.
    pub(crate) key: Arc<ApiKey>,
    /// The revision that made it.
    pub(crate) revision: u64,
    /// When CONFIG stored it.
    pub(crate) at: Timestamp,
    /// Who made it.
    pub(crate) actor: String,
    /// Why, in words; may be empty.
    pub(crate) words: String,
}

/// How an endpoint was disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disabled {
    /// The revision that did it.
    pub(crate) revision: u64,
    /// When CONFIG stored it.
    pub(crate) at: Timestamp,
    /// Why.
    pub(crate) reason: DisableReason,
    /// Why, in words; may be empty.
    pub(crate) words: String,
}

impl Directory {
    /// Adds the profiles that this machine has. Once: a second call changes nothing.
    pub(crate) fn install(&self, profiles: Profiles) {
        self.installed.get_or_init(|| profiles);
    }

    /// Returns what is known of an endpoint; `None` if it was deleted.
    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<&Known> {
        self.endpoints.get(&id)
    }

    /// Tells whether the tenant exists.
    pub(crate) fn has_tenant(&self, tenant: &TenantId) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// Tells whether deliveries to the endpoint wait for it to be resumed.
    pub(crate) fn holds(&self, id: EndpointId) -> bool {
        let state = self.endpoints.get(&id).map(|known| known.state);
        state == Some(EndpointState::Paused(PauseMode::Hold))
    }

    /// Tells whether a delivery is of a tenant that was expunged: nobody is told of it.
    pub(crate) fn is_expunged(&self, delivery: &DeliveryRef) -> bool {
        let through = self.expunged.get(&delivery.tenant);
        through.is_some_and(|through| delivery.event_sequence <= *through)
    }

    /// Returns the profile of a tenant; `None` if one of the two is gone.
    pub(crate) fn profile(&self, tenant: &TenantId) -> Option<&Profile> {
        let name = match self.tenants.get(tenant)?.profile.as_str() {
            "" => Profile::DEFAULT,
            name => name,
        };
        let installed = || self.installed.get()?.get(name);
        self.profiles.get(name).or_else(installed).map(AsRef::as_ref)
    }

    /// Returns the retry policy of an endpoint: its own, or its profile's.
    pub(crate) fn policy(&self, id: EndpointId) -> Option<&Policy> {
        let known = self.endpoints.get(&id)?;
        known.retry.as_deref().or_else(|| Some(&self.profile(&known.tenant)?.retry))
    }

    /// Returns the endpoints that were disabled after a revision, in the order in which they were.
    /// Each is there once, with the last time.
    pub(crate) fn disabled_after(&self, revision: u64) -> impl Iterator<Item = &Known> {
        let later = self.disabled.range(revision.saturating_add(1)..);
        later.filter_map(|(_, id)| self.endpoints.get(id))
    }

    /// Returns the last revision that disabled an endpoint; 0 if none did.
    pub(crate) fn disabled_last(&self) -> u64 {
        self.disabled.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// Returns the last revision that disabled an endpoint before an instant; 0 if none did.
    pub(crate) fn disabled_before(&self, instant: Timestamp) -> u64 {
        let old = |known: &&Known| known.disabled.as_ref().is_some_and(|how| how.at < instant);
        let last = self.disabled_after(0).filter(old).last();
        last.and_then(|known| known.disabled.as_ref()).map_or(0, |how| how.revision)
    }

    /// Returns the API keys that were made after a revision, in the order in which they were.
    pub(crate) fn keys_after(&self, revision: u64) -> impl Iterator<Item = &KnownKey> {
        self.keys.range(revision.saturating_add(1)..).map(|(_, key)| key)
    }

    /// Returns the last revision that made one of the keys that there are; 0 if there is none.
    pub(crate) fn keys_last(&self) -> u64 {
        self.keys.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// Returns the last revision that made a key before an instant; 0 if none did.
    pub(crate) fn keys_before(&self, instant: Timestamp) -> u64 {
        let old = |known: &&KnownKey| known.at < instant;
        self.keys_after(0).filter(old).last().map_or(0, |known| known.revision)
    }

    /// Returns what tells of changes: it holds the last revision that touched the directory.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change_tenant(&mut self, tenant: &Arc<Tenant>, deleted: bool) {
        if let Some(expunge) = &tenant.expunge {
            let through = match expunge.stage {
                ExpungeStage::Running | ExpungeStage::Finished(_) => u64::MAX,
                ExpungeStage::Earlier(_) => expunge.through,
            };
            self.expunged.insert(tenant.id.clone(), through);
        }
        if deleted {
            self.tenants.remove(&tenant.id);
        } else {
            self.tenants.insert(tenant.id.clone(), Arc::clone(tenant));
        }
    }

    fn change_endpoint(&mut self, revision: u64, stored_at: Timestamp, change: &Change) {
        let Entity::Endpoint(endpoint) = &change.entity else { return };
        let before = self.endpoints.remove(&endpoint.id);
        if let Some(how) = before.as_ref().and_then(|known| known.disabled.as_ref()) {
            self.disabled.remove(&how.revision);
        }
        if change.deleted {
            return;
        }
        let url_hash = hash(&endpoint.url);
        let known = Known {
            id: endpoint.id,
            tenant: self.tenant_ids.shared(&endpoint.tenant),
            state: endpoint.state,
            revision,
            fresh_since: fresh_since(before.as_ref(), (endpoint.state, url_hash), revision),
            disabled: disabled(before, revision, stored_at, change, endpoint.state),
            retry: endpoint.retry.clone().map(Box::new),
            url_hash,
        };
        if let Some(how) = &known.disabled {
            self.disabled.insert(how.revision, endpoint.id);
        }
        self.endpoints.insert(endpoint.id, known);
    }

    fn change_key(&mut self, revision: u64, at: Timestamp, change: &Change, key: &Arc<ApiKey>) {
        let made = self.key_revisions.get(&key.id).copied();
        if change.deleted {
            self.key_revisions.remove(&key.id);
            made.map(|revision| self.keys.remove(&revision));
            return;
        }
        // Written again, it is the same key.
        if made.is_some() {
            return;
        }
        self.key_revisions.insert(key.id, revision);
        let (actor, words) = (change.actor.clone(), change.reason.clone());
        let known = KnownKey { key: Arc::clone(key), revision, at, actor, words };
        self.keys.insert(revision, known);
    }

    fn change_profile(&mut self, name: &str, toml: &str, deleted: bool) {
        if deleted {
            self.profiles.remove(name);
            return;
        }
        match Profile::parse(toml) {
            Ok(profile) => {
                if let Err(cause) = self.profiles.insert(Arc::new(profile)) {
                    warn!(profile = name, %cause, "a profile is not used");
                }
            }
            Err(cause) => warn!(profile = name, %cause, "a profile cannot be read"),
        }
    }
}

fn fresh_since(
    before: Option<&Known>,
    (state, url_hash): (EndpointState, u64),
    revision: u64,
) -> u64 {
    let is_active = |state: EndpointState| state == EndpointState::Active;
    match before {
        Some(known) if known.url_hash != url_hash => revision,
        Some(known) if is_active(state) && !is_active(known.state) => revision,
        Some(known) => known.fresh_since,
        None => revision,
    }
}

fn hash(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    hasher.finish()
}

fn disabled(
    before: Option<Known>,
    revision: u64,
    at: Timestamp,
    change: &Change,
    state: EndpointState,
) -> Option<Box<Disabled>> {
    let was = |known: &Known| matches!(known.state, EndpointState::Disabled(_));
    match state {
        EndpointState::Disabled(reason) if !before.as_ref().is_some_and(was) => {
            Some(Box::new(Disabled { revision, at, reason, words: change.reason.clone() }))
        }
        EndpointState::Active | EndpointState::Paused(_) | EndpointState::Disabled(_) => {
            before.and_then(|known| known.disabled)
        }
    }
}

impl ConfigFold for Directory {
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change) {
        match &change.entity {
            Entity::Tenant(tenant) => self.change_tenant(tenant, change.deleted),
            Entity::Endpoint(_) => self.change_endpoint(revision, stored_at, change),
            Entity::Profile(profile) => {
                self.change_profile(&profile.name, &profile.toml, change.deleted);
            }
            Entity::ApiKey(key) => self.change_key(revision, stored_at, change, key),
            Entity::EventType(_) => return,
        }
        self.changed.send_replace(revision);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use fanfare_domain::{DeliveryId, Endpoint, EventId, TraceContext, tenant::Expunge};

    use super::*;

    pub(crate) fn endpoint_id(number: u8) -> EndpointId {
        EndpointId::new(Timestamp::EPOCH, [number; 10])
    }

    /// An active endpoint of the tenant `acme`.
    pub(crate) fn endpoint(number: u8) -> Endpoint {
        Endpoint {
            id: endpoint_id(number),
            tenant: "acme".parse().unwrap(),
            url: String::from("https://example.com/"),
            name: String::new(),
            description: String::new(),
            filters: vec![">".parse().unwrap()],
            condition: None,
            secrets: Vec::new(),
            headers: BTreeMap::new(),
            state: EndpointState::Active,
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
        }
    }

    pub(crate) fn changed(entity: Entity) -> Change {
        let (actor, reason) = (String::from("test"), String::from("because"));
        Change { entity, deleted: false, actor, reason, trace: TraceContext::default() }
    }

    /// A directory that learns of one thing after the other.
    impl Directory {
        pub(crate) fn learn(&mut self, revision: u64, entity: Entity) {
            self.apply(revision, Timestamp::from_millis(revision), &changed(entity));
        }

        pub(crate) fn learn_endpoint(&mut self, revision: u64, endpoint: Endpoint) {
            self.learn(revision, Entity::Endpoint(Arc::new(endpoint)));
        }

        pub(crate) fn learn_tenant(&mut self, revision: u64, id: &str, profile: &str) {
            let tenant = Tenant {
                id: id.parse().unwrap(),
                name: String::new(),
                profile: String::from(profile),
                unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
                plan: None,
                endpoints_max: None,
                created_at: Timestamp::EPOCH,
                rate_limit: None,
                expunge: None,
            };
            self.learn(revision, Entity::Tenant(Arc::new(tenant)));
        }
    }

    fn in_state(state: EndpointState) -> Endpoint {
        Endpoint { state, ..endpoint(1) }
    }

    const BY_HAND: EndpointState = EndpointState::Disabled(DisableReason::ByHand);

    fn fresh(directory: &Directory) -> u64 {
        directory.endpoint(endpoint_id(1)).unwrap().fresh_since
    }

    #[test]
    fn an_endpoint_is_fresh_when_made_active_or_given_another_url() {
        let mut directory = Directory::default();
        directory.learn_endpoint(3, endpoint(1));
        directory.learn_endpoint(4, Endpoint { name: String::from("renamed"), ..endpoint(1) });
        assert_eq!(fresh(&directory), 3);
        directory.learn_endpoint(5, in_state(BY_HAND));
        assert_eq!(fresh(&directory), 3);
        directory.learn_endpoint(6, endpoint(1));
        assert_eq!(fresh(&directory), 6);
        directory.learn_endpoint(7, Endpoint { url: String::from("https://b/"), ..endpoint(1) });
        assert_eq!(fresh(&directory), 7);
    }

    #[test]
    fn only_becoming_disabled_counts_and_only_the_last_time_is_kept() {
        let mut directory = Directory::default();
        directory.learn_endpoint(3, in_state(BY_HAND));
        directory.learn_endpoint(4, Endpoint { name: String::from("edited"), ..in_state(BY_HAND) });
        let revisions = |directory: &Directory, after| -> Vec<u64> {
            let how = |known: &Known| known.disabled.as_ref().unwrap().revision;
            directory.disabled_after(after).map(how).collect()
        };
        assert_eq!(revisions(&directory, 0), [3]);
        directory.learn_endpoint(5, endpoint(1));
        assert_eq!(revisions(&directory, 2), [3]);
        directory.learn_endpoint(6, in_state(BY_HAND));
        assert_eq!((revisions(&directory, 0), revisions(&directory, 6)), (vec![6], vec![]));
        assert_eq!(directory.disabled_before(Timestamp::from_millis(6)), 0);
        assert_eq!(directory.disabled_before(Timestamp::from_millis(7)), 6);
    }

    #[test]
    fn a_deleted_endpoint_is_forgotten() {
        let mut directory = Directory::default();
        directory.learn_endpoint(3, in_state(EndpointState::Paused(PauseMode::Hold)));
        assert!(directory.holds(endpoint_id(1)));
        let mut deletion = changed(Entity::Endpoint(Arc::new(endpoint(1))));
        deletion.deleted = true;
        directory.apply(4, Timestamp::EPOCH, &deletion);
        assert!(directory.endpoint(endpoint_id(1)).is_none());
        assert!(!directory.holds(endpoint_id(1)));
    }

    #[test]
    fn an_endpoints_own_policy_comes_before_its_profiles() {
        let mut directory = Directory::default();
        directory.learn_tenant(1, "acme", "kryptos");
        directory.learn_endpoint(2, endpoint(1));
        let kryptos = directory.profile(&"acme".parse().unwrap()).unwrap().retry.clone();
        assert_eq!(directory.policy(endpoint_id(1)), Some(&kryptos));
        let own = Policy::from_delays(Vec::new());
        directory.learn_endpoint(3, Endpoint { retry: Some(own.clone()), ..endpoint(1) });
        assert_eq!(directory.policy(endpoint_id(1)), Some(&own));
    }

    #[test]
    fn a_profile_may_come_from_this_machine() {
        let own = include_str!("../../../deploy/profiles/kryptos.toml");
        let own = Profile::parse(&own.replacen("\"kryptos\"", "\"our-own\"", 1)).unwrap();
        let mut profiles = Profiles::built_in();
        profiles.insert(Arc::new(own)).unwrap();
        let mut directory = Directory::default();
        directory.learn_tenant(1, "acme", "our-own");
        let acme = "acme".parse().unwrap();
        assert!(directory.profile(&acme).is_none());
        directory.install(profiles);
        assert_eq!(directory.profile(&acme).unwrap().name, "our-own");
        directory.learn_tenant(2, "acme", "");
        assert_eq!(directory.profile(&acme).unwrap().name, Profile::DEFAULT);
    }

    #[test]
    fn deliveries_of_an_expunged_tenant_are_told_from_those_of_a_later_one() {
        let acme: TenantId = "acme".parse().unwrap();
        let delivery = |event_sequence| DeliveryRef {
            id: DeliveryId::of(EventId::new(Timestamp::EPOCH, [1; 10]), endpoint_id(1), 0),
            tenant: "acme".parse().unwrap(),
            event: EventId::new(Timestamp::EPOCH, [1; 10]),
            event_sequence,
            event_type: "a".parse().unwrap(),
            endpoint: endpoint_id(1),
            generation: 0,
            accepted_at: Timestamp::EPOCH,
        };
        let mut directory = Directory::default();
        directory.learn_tenant(1, "acme", "kryptos");
        let tenant = directory.tenants.get(&acme).map(|tenant| Tenant::clone(tenant)).unwrap();
        assert!(!directory.is_expunged(&delivery(5)));
        let expunged = |stage| {
            let begun_at = Timestamp::EPOCH;
            let expunge = Expunge { stage, through: 7, begun_at, removed: BTreeMap::new() };
            Arc::new(Tenant { expunge: Some(expunge), ..tenant.clone() })
        };
        let mut gone = changed(Entity::Tenant(expunged(ExpungeStage::Running)));
        gone.deleted = true;
        directory.apply(2, Timestamp::EPOCH, &gone);
        assert!(!directory.has_tenant(&acme));
        assert!(directory.is_expunged(&delivery(5)) && directory.is_expunged(&delivery(9)));
        directory.learn(3, Entity::Tenant(expunged(ExpungeStage::Earlier(Timestamp::EPOCH))));
        assert!(directory.is_expunged(&delivery(7)) && !directory.is_expunged(&delivery(8)));
    }

    #[test]
    fn whoever_watches_hears_of_changes() {
        let mut directory = Directory::default();
        let changes = directory.changes();
        directory.learn_endpoint(9, endpoint(1));
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow(), 9);
    }
}
