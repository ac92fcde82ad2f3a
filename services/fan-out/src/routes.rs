//! Which endpoints want an event: a fold over CONFIG that remembers.
//!
//! Whether an endpoint was active, paused or deleted for an event is decided by the event's accept
//! time against the times at which CONFIG stored the changes, never by when the event is routed.
//! So each endpoint keeps its past versions, back to a day before the oldest event that is still
//! being routed. An endpoint's creation counts from two seconds before its time: see
//! [`fanfare_domain::history`] for what that is about.

mod patterns;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fanfare_domain::{
    Change, Condition, Endpoint, EndpointId, Entity, EventType, History, TenantId, Timestamp,
    endpoint::RateLimit,
    history::{Choice, Standing, Version, WIDENED_EARLIER},
};
use fanfare_event_log::ConfigFold;

pub(crate) use patterns::Patterns;

/// How much longer than the oldest event in hand asks for it a version is kept: events arrive
/// roughly in the order of their accept times, not exactly.
const MEMORY: Duration = Duration::from_hours(24);

/// The endpoints of all tenants, by what they want and wanted.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    tenants: BTreeMap<TenantId, TenantRoutes>,
    /// Versions that a later one replaced, by the time at which it did.
    replaced: VecDeque<(Timestamp, TenantId, EndpointId)>,
    /// The accept time of the oldest event in hand, in nanoseconds: whoever routes sets it, without
    /// a lock. Nothing is forgotten before it is set.
    oldest_in_hand: AtomicU64,
    /// How much earlier than its stamp a change counts that makes an endpoint want more, in
    /// nanoseconds: nothing, unless [`Self::expect_two_clocks`] was called.
    margin: AtomicU64,
    /// The limits of tenants that have one.
    limits: BTreeMap<TenantId, Limit>,
    /// The endpoints that are there, whatever their state.
    there: BTreeSet<EndpointId>,
    /// The tenants that were deleted.
    deleted: BTreeSet<TenantId>,
    revision: u64,
}

#[derive(Debug, Default)]
struct TenantRoutes {
    endpoints: BTreeMap<EndpointId, History>,
    /// The patterns of every version in `endpoints`.
    patterns: Patterns,
}

/// A tenant's rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// How much it allows.
    pub(crate) rate: RateLimit,
    /// The revision of CONFIG that set it: a limit that is set again begins anew.
    pub(crate) revision: u64,
}

/// The endpoints that want an event, each list in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matches {
    /// Those that get a task.
    pub(crate) targets: Vec<EndpointId>,
    /// Those that were paused with `skip` when the event was accepted.
    pub(crate) skipped: Vec<EndpointId>,
    /// Those whose owner reads the event by itself.
    pub(crate) fed: Vec<EndpointId>,
    /// Those about which the event's content decides, and which are in no other list until it has.
    pub(crate) asking: Vec<Asking>,
}

/// An endpoint that wants to know an event's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    endpoint: EndpointId,
    choice: Choice,
    is_fed: bool,
}

impl Matches {
    fn add(&mut self, endpoint: EndpointId, choice: Choice) {
        match choice.decided() {
            Some(Standing::Served) => self.targets.push(endpoint),
            Some(Standing::Skipped) => self.skipped.push(endpoint),
            Some(Standing::Absent) => {}
            None => self.asking.push(Asking { endpoint, choice, is_fed: false }),
        }
    }

    /// Keeps the endpoints that are meant.
    pub(crate) fn keep(&mut self, is_meant: impl Fn(EndpointId) -> bool) {
        self.targets.retain(|endpoint| is_meant(*endpoint));
        self.skipped.retain(|endpoint| is_meant(*endpoint));
        self.asking.retain(|asking| is_meant(asking.endpoint));
    }

    /// Leaves the event to the feeds that cover it.
    pub(crate) fn leave_to(&mut self, is_fed: impl Fn(EndpointId) -> bool) {
        self.fed.extend(self.targets.extract_if(.., |endpoint| is_fed(*endpoint)));
        for asking in &mut self.asking {
            asking.is_fed = is_fed(asking.endpoint);
        }
    }

    /// Decides about those that ask for the content, unless an answer is missing: then nothing is
    /// decided. `None` leaves it to the owner who reads the event by itself, if there is one;
    /// otherwise the condition does not hold.
    pub(crate) fn answer<E>(
        &mut self,
        mut holds: impl FnMut(EndpointId, &Condition) -> Result<Option<bool>, E>,
    ) -> Result<(), E> {
        let mut standings = Vec::with_capacity(self.asking.len());
        for Asking { endpoint, choice, is_fed } in &self.asking {
            let mut missing = None;
            let standing = choice.decide(|condition| match holds(*endpoint, condition) {
                Ok(holds) => holds.unwrap_or(*is_fed),
                // Nothing more is asked.
                Err(error) => missing.replace(error).is_none(),
            });
            match missing {
                Some(error) => return Err(error),
                None => standings.push((*endpoint, *is_fed, standing)),
            }
        }
        self.asking.clear();
        for (endpoint, is_fed, standing) in standings {
            match standing {
                Standing::Served if is_fed => self.fed.push(endpoint),
                Standing::Served => self.targets.push(endpoint),
                Standing::Skipped => self.skipped.push(endpoint),
                Standing::Absent => {}
            }
        }
        for list in [&mut self.targets, &mut self.skipped, &mut self.fed] {
            list.sort_unstable();
        }
        Ok(())
    }
}

impl Routes {
    /// Returns the endpoints that wanted an event of this type when it was accepted. The cost
    /// grows with the endpoints that do, or did in the last day, not with those that there are.
    pub(crate) fn of(
        &self,
        tenant: &TenantId,
        event_type: &EventType,
        accepted_at: Timestamp,
    ) -> Matches {
        let mut matches = Matches::default();
        let Some(routes) = self.tenants.get(tenant) else { return matches };
        let margin = Duration::from_nanos(self.margin.load(Ordering::Relaxed));
        for endpoint in routes.patterns.choose(event_type) {
            if let Some(history) = routes.endpoints.get(&endpoint) {
                matches.add(endpoint, history.choose(event_type, accepted_at, margin));
            }
        }
        matches
    }

    /// Returns the rate limit of a tenant, if it has one.
    pub(crate) fn limit(&self, tenant: &TenantId) -> Option<Limit> {
        self.limits.get(tenant).copied()
    }

    /// Tells whether an endpoint is there, whatever its state.
    pub(crate) fn has(&self, endpoint: EndpointId) -> bool {
        self.there.contains(&endpoint)
    }

    /// Tells whether a tenant was deleted.
    pub(crate) fn is_deleted(&self, tenant: &TenantId) -> bool {
        self.deleted.contains(tenant)
    }

    /// Returns the revision of CONFIG that the routes have reached.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Says that events and changes are stamped by different servers.
    pub(crate) fn expect_two_clocks(&self) {
        let margin = u64::try_from(WIDENED_EARLIER.as_nanos()).unwrap_or(u64::MAX);
        self.margin.store(margin, Ordering::Relaxed);
    }

    /// Says how old the oldest event is that is being routed. What was replaced long before may
    /// then be forgotten, with the next change.
    pub(crate) fn set_oldest_in_hand(&self, accepted_at: Timestamp) {
        self.oldest_in_hand.store(accepted_at.as_nanos(), Ordering::Relaxed);
    }

    fn set_limit(&mut self, tenant: &TenantId, rate: Option<RateLimit>, revision: u64) {
        match (rate, self.limits.get(tenant)) {
            // Something else of the tenant has changed.
            (Some(rate), Some(limit)) if limit.rate == rate => {}
            (Some(rate), _) => drop(self.limits.insert(tenant.clone(), Limit { rate, revision })),
            (None, _) => drop(self.limits.remove(tenant)),
        }
    }

    fn change(&mut self, endpoint: &Endpoint, version: Version, stored_at: Timestamp) {
        if self.update(&endpoint.tenant, endpoint.id, |history| history.push(version)) {
            self.replaced.push_back((stored_at, endpoint.tenant.clone(), endpoint.id));
        }
    }

    fn forget(&mut self) {
        let oldest = Timestamp::from_nanos(self.oldest_in_hand.load(Ordering::Relaxed));
        let end = oldest.saturating_sub(MEMORY);
        while self.replaced.front().is_some_and(|(replaced_at, ..)| *replaced_at <= end) {
            let Some((_, tenant, endpoint)) = self.replaced.pop_front() else { return };
            self.update(&tenant, endpoint, |history| history.forget_ended_by(end));
        }
    }

    /// Changes an endpoint's history, keeping nothing that is empty; returns what `change` does.
    fn update(
        &mut self,
        tenant: &TenantId,
        endpoint: EndpointId,
        change: impl FnOnce(&mut History) -> bool,
    ) -> bool {
        let routes = self.tenants.entry(tenant.clone()).or_default();
        let changed = routes.update(endpoint, change);
        if routes.endpoints.is_empty() {
            self.tenants.remove(tenant);
        }
        changed
    }
}

impl ConfigFold for Routes {
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change) {
        match &change.entity {
            Entity::Endpoint(endpoint) => {
                if change.deleted {
                    self.there.remove(&endpoint.id);
                } else {
                    self.there.insert(endpoint.id);
                }
                let version = Version::of(endpoint, change.deleted, stored_at);
                self.change(endpoint, version, stored_at);
            }
            Entity::Tenant(tenant) => {
                if change.deleted {
                    self.deleted.insert(tenant.id.clone());
                } else {
                    self.deleted.remove(&tenant.id);
                }
                let rate = tenant.rate_limit.filter(|_| !change.deleted);
                self.set_limit(&tenant.id, rate, revision);
            }
            Entity::EventType(_) | Entity::Profile(_) | Entity::ApiKey(_) => {}
        }
        self.revision = revision;
        self.forget();
    }
}

impl TenantRoutes {
    /// Changes an endpoint's history and keeps the patterns in step; returns what `change` does.
    fn update(&mut self, id: EndpointId, change: impl FnOnce(&mut History) -> bool) -> bool {
        let history = self.endpoints.entry(id).or_default();
        let before = history.patterns();
        let changed = change(history);
        let after = history.patterns();
        if history.is_empty() {
            self.endpoints.remove(&id);
        }
        for gone in before.difference(&after) {
            self.patterns.remove(gone, id);
        }
        for new in after.difference(&before) {
            self.patterns.insert(new, id);
        }
        debug_assert!(!self.endpoints.is_empty() || self.patterns.is_empty());
        changed
    }
}
