//! What the dispatcher knows of tenants and endpoints: a fold over CONFIG.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fanfare_domain::{
    Change, Endpoint, EndpointId, EndpointState, Entity, History, PauseMode, StoredEvent, TenantId,
    Timestamp, TypePattern,
    fact::ConclusionReason,
    history::{Choice, Version},
    profile::Profile,
    tenant::TenantIds,
};
use fanfare_event_log::{ConfigFold, PackedEndpoint};
use foldhash::HashMap;

/// Every endpoint with its state, and every tenant's profile.
#[derive(Debug)]
pub(crate) struct Registry {
    endpoints: HashMap<EndpointId, Entry>,
    profiles: HashMap<TenantId, Arc<str>>,
    tenants: TenantIds,
    /// What endpoints wanted that have changed, or were deleted, not too long ago, and of those with
    /// conditions, which are made ready once. The others have always wanted what they want.
    histories: HashMap<EndpointId, History>,
    /// When histories began to have something to be forgotten.
    changed: VecDeque<(Timestamp, EndpointId)>,
    /// For how long it is remembered what endpoints wanted.
    memory: Duration,
    /// How much earlier than its stamp a change counts that makes an endpoint want more.
    margin: Duration,
}

/// One endpoint as of the last change. There are very many: what is looked at only when it is to be
/// made ready stays packed.
#[derive(Clone, Debug)]
struct Entry {
    packed: PackedEndpoint,
    tenant: TenantId,
    revision: u64,
    state: EndpointState,
    /// Since when it has wanted what it wants, unless it has a history.
    since: Timestamp,
    /// Deliveries of events accepted before this are cancelled, for that reason: the endpoint
    /// was disabled, or paused to skip, and may be active again; or a person cancelled them.
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
            Entity::Endpoint(endpoint) => {
                let since = self.note(endpoint, change.deleted, stored_at);
                if change.deleted {
                    self.endpoints.remove(&endpoint.id);
                } else {
                    self.change(endpoint, revision, (stored_at, since));
                }
                self.forget(stored_at);
            }
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
    /// Knows nothing yet. `memory` is for how long events are kept, beyond which nobody asks what
    /// endpoints wanted; `margin` is how far apart the clocks are that stamp events and changes.
    pub(crate) fn new(memory: Duration, margin: Duration) -> Self {
        Self {
            endpoints: HashMap::default(),
            profiles: HashMap::default(),
            tenants: TenantIds::default(),
            histories: HashMap::default(),
            changed: VecDeque::new(),
            memory,
            margin,
        }
    }

    /// Notes what an endpoint wants from now on; returns since when it has, if that is all.
    fn note(&mut self, endpoint: &Endpoint, deleted: bool, stored_at: Timestamp) -> Timestamp {
        let known = self.histories.remove(&endpoint.id);
        let known = known.or_else(|| self.endpoints.get(&endpoint.id).map(Entry::history));
        let mut history = known.unwrap_or_default();
        let changed = history.push(Version::of(endpoint, deleted, stored_at));
        if changed {
            self.changed.push_back((stored_at, endpoint.id));
        }
        let since = history.born();
        if history.is_changed() || history.has_conditions() {
            self.histories.insert(endpoint.id, history);
        }
        since
    }

    /// Forgets what nobody asks for any more.
    fn forget(&mut self, now: Timestamp) {
        let end = now.saturating_sub(self.memory);
        while let Some((_, endpoint)) = self.changed.pop_front_if(|(at, _)| *at <= end) {
            let Some(history) = self.histories.get_mut(&endpoint) else { continue };
            history.forget_ended_by(end);
            if history.is_changed() || history.has_conditions() {
                continue;
            }
            let since = history.born();
            self.histories.remove(&endpoint);
            if let Some(entry) = self.endpoints.get_mut(&endpoint) {
                entry.since = since;
            }
        }
    }

    fn change(
        &mut self,
        endpoint: &Endpoint,
        revision: u64,
        (stored_at, since): (Timestamp, Timestamp),
    ) {
        let before = self.endpoints.remove(&endpoint.id).and_then(|it| it.cancelled_before);
        let by_state = cancels(endpoint.state).map(|reason| (stored_at, reason));
        let by_hand = endpoint.cancelled_before.map(|at| (at, ConclusionReason::ByHand));
        let cancelled = by_state.into_iter().chain(by_hand).chain(before.map(|it| *it));
        let cancelled = cancelled.max_by_key(|(at, _)| *at).map(Box::new);
        let entry = Entry {
            packed: PackedEndpoint::pack(endpoint),
            tenant: self.tenants.shared(&endpoint.tenant),
            revision,
            state: endpoint.state,
            since,
            cancelled_before: cancelled,
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
        self.go(entry)
    }

    /// Returns what it takes to ask an endpoint, in whatever state, whether it may be sent to.
    pub(crate) fn permit_question(&self, endpoint: EndpointId) -> Permission {
        let deleted = Permission::Cancelled(ConclusionReason::EndpointDeleted);
        self.endpoints.get(&endpoint).map_or(deleted, |entry| self.go(entry))
    }

    fn go(&self, entry: &Entry) -> Permission {
        let profile = self.profiles.get(&entry.tenant);
        let profile = profile.map_or_else(|| Arc::from(Profile::DEFAULT), Arc::clone);
        Permission::Go { endpoint: entry.packed.clone(), revision: entry.revision, profile }
    }

    /// Returns what decides on whether the endpoint wanted the event when it was accepted, as
    /// fan-out decides it.
    pub(crate) fn choose(&self, endpoint: EndpointId, stored: &StoredEvent) -> Choice {
        let choose = |history: &History| {
            history.choose(&stored.event.event_type, stored.accepted_at, self.margin)
        };
        self.with_history(endpoint, choose).unwrap_or_else(Choice::absent)
    }

    /// Returns every pattern by which the endpoint chooses events, or chose them.
    pub(crate) fn patterns(&self, endpoint: EndpointId) -> Vec<TypePattern> {
        let patterns = |history: &History| history.patterns().into_iter().collect();
        self.with_history(endpoint, patterns).unwrap_or_default()
    }

    /// Tells whether the endpoint is there, and neither disabled nor paused to skip.
    pub(crate) fn is_served(&self, endpoint: EndpointId) -> bool {
        self.endpoints.get(&endpoint).is_some_and(|entry| cancels(entry.state).is_none())
    }

    /// Tells whether a person has cancelled all deliveries of the endpoint of events that were
    /// accepted then.
    pub(crate) fn is_cancelled_by_hand(
        &self,
        endpoint: EndpointId,
        accepted_at: Timestamp,
    ) -> bool {
        let entry = self.endpoints.get(&endpoint);
        let cancelled = entry.and_then(|entry| entry.cancelled_before.as_deref());
        cancelled.is_some_and(|(before, reason)| {
            *reason == ConclusionReason::ByHand && accepted_at < *before
        })
    }

    /// Tells whether the endpoint is paused, and gets everything once it is resumed.
    pub(crate) fn is_on_hold(&self, endpoint: EndpointId) -> bool {
        let hold = EndpointState::Paused(PauseMode::Hold);
        self.endpoints.get(&endpoint).is_some_and(|entry| entry.state == hold)
    }

    /// Whose the endpoint is, unless it was deleted.
    pub(crate) fn tenant(&self, endpoint: EndpointId) -> Option<&TenantId> {
        self.endpoints.get(&endpoint).map(|entry| &entry.tenant)
    }

    /// Looks at what an endpoint wanted, also at that of one that was deleted.
    fn with_history<T>(&self, endpoint: EndpointId, look: impl FnOnce(&History) -> T) -> Option<T> {
        match self.histories.get(&endpoint) {
            Some(history) => Some(look(history)),
            None => self.endpoints.get(&endpoint).map(|entry| look(&entry.history())),
        }
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

impl Entry {
    /// What it wanted when, if it has always wanted the same.
    fn history(&self) -> History {
        let mut history = History::default();
        history.push(Version::of(&self.packed.unpack(), false, self.since));
        history
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use fanfare_domain::{
        Event, EventId, TraceContext, condition::Subject, endpoint::DisableReason,
        history::Standing,
    };

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn endpoint(state: EndpointState, filter: &str) -> Endpoint {
        Endpoint {
            id: EndpointId::from_bytes([1; 16]),
            tenant: "acme".parse().unwrap(),
            url: String::new(),
            name: String::new(),
            description: String::new(),
            filters: vec![filter.parse().unwrap()],
            condition: None,
            secrets: Vec::new(),
            headers: BTreeMap::new(),
            state,
            retry: None,
            timeout: None,
            concurrency: None,
            rate_limit: None,
            batch: None,
            cancelled_before: None,
            trace_context: None,
            security: fanfare_domain::endpoint::Security::default(),
            ordering: fanfare_domain::endpoint::Ordering::None,
            metadata: BTreeMap::new(),
            created_at: at(0),
            updated_at: at(0),
        }
    }

    fn apply(registry: &mut Registry, time: u64, endpoint: Endpoint, deleted: bool) {
        let change = Change {
            entity: Entity::Endpoint(Arc::new(endpoint)),
            deleted,
            actor: String::new(),
            reason: String::new(),
            trace: TraceContext::default(),
        };
        registry.apply(time, at(time), &change);
    }

    fn registry(changes: &[(u64, EndpointState, bool)]) -> Registry {
        let mut registry = Registry::new(Duration::from_hours(1), Duration::ZERO);
        for (time, state, deleted) in changes {
            apply(&mut registry, *time, endpoint(*state, ">"), *deleted);
        }
        registry
    }

    /// Whether the endpoint wanted an event of that type then.
    fn wants(registry: &Registry, event_type: &str, time: u64) -> bool {
        let event = Event {
            id: EventId::new(at(time), [1; 10]),
            tenant: "acme".parse().unwrap(),
            event_type: event_type.parse().unwrap(),
            occurred_at: at(time),
            accepted_at: None,
            config_revision: None,
            data: Bytes::from_static(b"{\"amount\":5}"),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let (event, accepted_at) = (Arc::new(event), at(time));
        let stored = StoredEvent { event, sequence: 1, accepted_at, envelope: Bytes::new() };
        let choice = registry.choose(EndpointId::from_bytes([1; 16]), &stored);
        let subject = Subject::of(&stored.event);
        choice.decide(|condition| condition.judge(&subject) == Ok(true)) == Standing::Served
    }

    const ACTIVE: EndpointState = EndpointState::Active;

    #[test]
    fn what_was_wanted_is_kept_of_those_that_changed() {
        let mut registry = Registry::new(Duration::from_hours(1), Duration::ZERO);
        apply(&mut registry, 10_000, endpoint(ACTIVE, "a"), false);
        let renamed = Endpoint { name: String::from("n"), ..endpoint(ACTIVE, "a") };
        apply(&mut registry, 20_000, renamed, false);
        assert!(registry.histories.is_empty(), "it has always wanted the same");
        assert_eq!(
            [7_000, 15_000, 25_000].map(|at| wants(&registry, "a", at)),
            [false, true, true]
        );

        apply(&mut registry, 30_000, endpoint(ACTIVE, "b"), false);
        assert_eq!([15_000, 35_000].map(|at| wants(&registry, "a", at)), [true, false]);
        assert_eq!([15_000, 35_000].map(|at| wants(&registry, "b", at)), [false, true]);

        apply(&mut registry, 40_000, endpoint(ACTIVE, "b"), true);
        assert_eq!([15_000, 35_000].map(|at| wants(&registry, "a", at)), [true, false]);
        assert_eq!([35_000, 45_000].map(|at| wants(&registry, "b", at)), [true, false]);
        assert_eq!(registry.patterns(EndpointId::from_bytes([1; 16])).len(), 2);
    }

    #[test]
    fn conditions_are_kept_ready_and_count_from_when_they_were_set() {
        let asking = |condition: Option<&str>| Endpoint {
            condition: condition.map(String::from),
            ..endpoint(ACTIVE, "a")
        };
        let mut registry = Registry::new(Duration::from_secs(100), Duration::ZERO);
        apply(&mut registry, 10_000, asking(Some("data.amount > 5")), false);
        assert_eq!(registry.histories.len(), 1);
        assert!(!wants(&registry, "a", 15_000));
        apply(&mut registry, 20_000, asking(Some("data.amount == 5")), false);
        assert!(!wants(&registry, "a", 15_000) && wants(&registry, "a", 25_000));
        apply(&mut registry, 125_000, asking(Some("data.amount == 5")), false);
        assert!(wants(&registry, "a", 130_000), "it is kept");
        apply(&mut registry, 130_000, asking(None), false);
        apply(&mut registry, 235_000, asking(None), false);
        assert!(registry.histories.is_empty() && registry.changed.is_empty());
        assert!(wants(&registry, "a", 240_000));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten() {
        let other =
            |filter| Endpoint { id: EndpointId::from_bytes([2; 16]), ..endpoint(ACTIVE, filter) };
        let mut registry = Registry::new(Duration::from_secs(100), Duration::ZERO);
        apply(&mut registry, 10_000, endpoint(ACTIVE, "a"), false);
        apply(&mut registry, 10_000, other("a"), false);
        apply(&mut registry, 20_000, endpoint(ACTIVE, "b"), false);
        apply(&mut registry, 30_000, other("a"), true);
        assert_eq!(registry.histories.len(), 2);
        apply(&mut registry, 125_000, endpoint(ACTIVE, "b"), false);
        assert_eq!((registry.histories.len(), registry.changed.len()), (1, 1));
        assert!(wants(&registry, "b", 26_000) && !wants(&registry, "a", 26_000));
        apply(&mut registry, 130_000, endpoint(ACTIVE, "b"), false);
        assert!(registry.histories.is_empty() && registry.changed.is_empty());
        assert!(registry.patterns(EndpointId::from_bytes([2; 16])).is_empty());
        assert!(wants(&registry, "b", 131_000));
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
        assert!(matches!(permit(&changes, 35), Permission::Go { revision: 30, .. }));
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

    #[test]
    fn what_a_person_cancelled_stays_so_and_what_came_after_goes() {
        let mut registry = registry(&[(10, EndpointState::Active, false)]);
        let cancelled_before = Some(at(20));
        let marked = Endpoint { cancelled_before, ..endpoint(EndpointState::Active, ">") };
        apply(&mut registry, 21, marked.clone(), false);
        let hold = EndpointState::Paused(PauseMode::Hold);
        apply(&mut registry, 30, Endpoint { state: hold, ..marked }, false);
        let id = EndpointId::from_bytes([1; 16]);
        assert!(registry.is_cancelled_by_hand(id, at(19)));
        assert!(!registry.is_cancelled_by_hand(id, at(20)));
        let before = registry.permit(id, at(19));
        assert!(matches!(before, Permission::Cancelled(ConclusionReason::ByHand)), "{before:?}");
        assert!(matches!(registry.permit(id, at(20)), Permission::Hold));
    }
}
