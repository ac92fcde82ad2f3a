//! What the dispatcher knows of tenants and endpoints: a fold over CONFIG.

use std::sync::Arc;

use fanfare_domain::{
    Change, Endpoint, EndpointId, EndpointState, Entity, PauseMode, TenantId, Timestamp,
    fact::ConclusionReason, profile::Profile, tenant::TenantIds,
};
use fanfare_event_log::{ConfigFold, PackedEndpoint};
use foldhash::HashMap;

/// Every endpoint with its state, and every tenant's profile.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    endpoints: HashMap<EndpointId, Entry>,
    profiles: HashMap<TenantId, Arc<str>>,
    tenants: TenantIds,
}

/// One endpoint as of the last change. There are very many: what is looked at only when it is to be
/// made ready stays packed.
#[derive(Clone, Debug)]
struct Entry {
    packed: PackedEndpoint,
    tenant: TenantId,
    revision: u64,
    state: EndpointState,
    /// Deliveries of events accepted before this are cancelled, for that reason: the endpoint
    /// was disabled, or paused to skip, and may be active again.
    cancelled_before: Option<Box<(Timestamp, ConclusionReason)>>,
}

/// Whether an attempt may begin, by the endpoint's state at this moment.
#[derive(Clone, Debug)]
pub(crate) enum Permission {
    /// It may, with this configuration.
    Go {
        /// The endpoint.
        endpoint: PackedEndpoint,
        /// The revision of CONFIG that it is from.
        revision: u64,
        /// The name of its tenant's profile.
        profile: Arc<str>,
    },
    /// The endpoint is paused, and gets its deliveries when it is resumed.
    Hold,
    /// The delivery is cancelled.
    Cancelled(ConclusionReason),
}

impl ConfigFold for Registry {
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change) {
        match &change.entity {
            Entity::Tenant(tenant) => {
                self.profiles.insert(tenant.id.clone(), Arc::from(tenant.profile.as_str()));
            }
            Entity::Endpoint(endpoint) if change.deleted => {
                self.endpoints.remove(&endpoint.id);
            }
            Entity::Endpoint(endpoint) => self.change(endpoint, revision, stored_at),
            Entity::EventType(_) | Entity::Profile(_) | Entity::ApiKey(_) => {}
        }
    }
}

/// The reason for which a state ends the deliveries of events accepted before it.
fn cancels(state: EndpointState) -> Option<ConclusionReason> {
    match state {
        EndpointState::Active | EndpointState::Paused(PauseMode::Hold) => None,
        EndpointState::Paused(PauseMode::Skip) => Some(ConclusionReason::EndpointPaused),
        EndpointState::Disabled(_) => Some(ConclusionReason::EndpointDisabled),
    }
}

impl Registry {
    fn change(&mut self, endpoint: &Endpoint, revision: u64, stored_at: Timestamp) {
        let before = self.endpoints.remove(&endpoint.id).and_then(|it| it.cancelled_before);
        let cancelled = cancels(endpoint.state).map(|reason| Box::new((stored_at, reason)));
        let entry = Entry {
            packed: PackedEndpoint::pack(endpoint),
            tenant: self.tenants.shared(&endpoint.tenant),
            revision,
            state: endpoint.state,
            cancelled_before: cancelled.or(before),
        };
        self.endpoints.insert(endpoint.id, entry);
    }

    /// Judges whether an attempt may begin for a delivery of an event accepted at `accepted_at`.
    pub(crate) fn permit(&self, endpoint: EndpointId, accepted_at: Timestamp) -> Permission {
        let Some(entry) = self.endpoints.get(&endpoint) else {
            return Permission::Cancelled(ConclusionReason::EndpointDeleted);
        };
        if let Some(reason) = cancels(entry.state) {
            return Permission::Cancelled(reason);
        }
        if let Some((before, reason)) = entry.cancelled_before.as_deref()
            && accepted_at < *before
        {
            return Permission::Cancelled(*reason);
        }
        if entry.state == EndpointState::Paused(PauseMode::Hold) {
            return Permission::Hold;
        }
        let profile = self
            .profiles
            .get(&entry.tenant)
            .map_or_else(|| Arc::from(Profile::DEFAULT), Arc::clone);
        Permission::Go { endpoint: entry.packed.clone(), revision: entry.revision, profile }
    }

    /// Every endpoint that there is.
    #[expect(clippy::disallowed_methods, reason = "each is looked at, in whatever order")]
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.endpoints.values().map(|entry| entry.packed.unpack())
    }

    /// Tells whether the endpoint gets deliveries at present.
    pub(crate) fn is_active(&self, endpoint: EndpointId) -> bool {
        self.endpoints.get(&endpoint).is_some_and(|entry| entry.state == EndpointState::Active)
    }

    /// Returns the endpoint as of the last change, whatever its state, and the name of its tenant's
    /// profile if the tenant is known. None if it was deleted.
    pub(crate) fn endpoint(&self, endpoint: EndpointId) -> Option<(Endpoint, Option<&str>)> {
        let entry = self.endpoints.get(&endpoint)?;
        Some((entry.packed.unpack(), self.profiles.get(&entry.tenant).map(|name| &**name)))
    }

    /// Returns the name of the profile of an endpoint's tenant; none if either is not known.
    pub(crate) fn profile_of(&self, endpoint: EndpointId) -> Option<&str> {
        self.profiles.get(&self.endpoints.get(&endpoint)?.tenant).map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_domain::{TraceContext, endpoint::DisableReason};

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn registry(changes: &[(u64, EndpointState, bool)]) -> Registry {
        let mut registry = Registry::default();
        for (revision, (time, state, deleted)) in (1..).zip(changes) {
            let endpoint = Endpoint {
                id: EndpointId::from_bytes([1; 16]),
                tenant: "acme".parse().unwrap(),
                url: String::new(),
                name: String::new(),
                description: String::new(),
                filters: Vec::new(),
                secrets: Vec::new(),
                headers: BTreeMap::new(),
                state: *state,
                retry: None,
                timeout: None,
                concurrency: None,
                rate_limit: None,
                batch: None,
                metadata: BTreeMap::new(),
                created_at: at(0),
                updated_at: at(0),
            };
            let change = Change {
                entity: Entity::Endpoint(Arc::new(endpoint)),
                deleted: *deleted,
                actor: String::new(),
                reason: String::new(),
                trace: TraceContext::default(),
            };
            registry.apply(revision, at(*time), &change);
        }
        registry
    }

    fn permit(changes: &[(u64, EndpointState, bool)], accepted: u64) -> Permission {
        registry(changes).permit(EndpointId::from_bytes([1; 16]), at(accepted))
    }

    #[test]
    fn a_skipping_pause_cancels_what_came_before_it_for_ever() {
        let changes = [
            (10, EndpointState::Active, false),
            (20, EndpointState::Paused(PauseMode::Skip), false),
            (30, EndpointState::Active, false),
        ];
        let cancelled = permit(&changes, 15);
        assert!(matches!(cancelled, Permission::Cancelled(ConclusionReason::EndpointPaused)));
        assert!(matches!(permit(&changes, 35), Permission::Go { revision: 3, .. }));
        assert!(matches!(permit(&changes[..2], 35), Permission::Cancelled(_)));
    }

    #[test]
    fn only_an_endpoint_that_gets_deliveries_is_active() {
        let id = EndpointId::from_bytes([1; 16]);
        let hold = EndpointState::Paused(PauseMode::Hold);
        for (state, deleted, expected) in [
            (EndpointState::Active, false, true),
            (EndpointState::Active, true, false),
            (hold, false, false),
            (EndpointState::Disabled(DisableReason::ByHand), false, false),
        ] {
            assert_eq!(registry(&[(10, state, deleted)]).is_active(id), expected, "{state:?}");
        }
        assert!(!registry(&[]).is_active(id));
    }

    #[test]
    fn a_holding_pause_holds() {
        let changes = [(10, EndpointState::Paused(PauseMode::Hold), false)];
        assert!(matches!(permit(&changes, 15), Permission::Hold));
    }

    #[test]
    fn deleted_unknown_and_disabled_endpoints_get_nothing() {
        let gone = [(10, EndpointState::Active, true)];
        assert!(matches!(
            permit(&gone, 15),
            Permission::Cancelled(ConclusionReason::EndpointDeleted)
        ));
        assert!(matches!(
            permit(&[], 15),
            Permission::Cancelled(ConclusionReason::EndpointDeleted)
        ));
        let disabled = [(10, EndpointState::Disabled(DisableReason::Gone), false)];
        assert!(matches!(
            permit(&disabled, 15),
            Permission::Cancelled(ConclusionReason::EndpointDisabled)
        ));
    }
}
