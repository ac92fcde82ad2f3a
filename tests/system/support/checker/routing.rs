//! I1 and I2: every acknowledged event is there once, and goes to exactly who wants it.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{DeliveryId, EndpointId, EventId, Fact, StoredEvent, fact::EventRouted};

use super::{Evidence, History, Violation};

/// I1: by the idempotency key, each acknowledged event is in EVENTS once, byte for byte.
pub(super) fn check_events(evidence: &Evidence, violations: &mut Vec<Violation>) {
    let mut by_key: BTreeMap<&str, Vec<&StoredEvent>> = BTreeMap::new();
    for stored in &evidence.events {
        if let Some(key) = &stored.event.idempotency_key {
            by_key.entry(key).or_default().push(stored);
        }
    }
    for acknowledged in &evidence.acknowledged {
        let key = &acknowledged.key;
        let found = by_key.get(key.as_str()).map(Vec::as_slice).unwrap_or_default();
        let [only] = found else {
            violations.push(if found.is_empty() {
                Violation::EventLost(key.clone())
            } else {
                let ids = found.iter().map(|stored| stored.event.id).collect();
                Violation::EventTwice(key.clone(), ids)
            });
            continue;
        };
        let event = &only.event;
        let same = event.data == acknowledged.data
            && event.tenant == acknowledged.tenant
            && event.event_type == acknowledged.event_type;
        if !same {
            violations.push(Violation::EventAltered(key.clone(), event.id));
        }
        if acknowledged.event.is_some_and(|told| told != event.id) {
            violations.push(Violation::EventRenamed(key.clone(), event.id));
        }
    }
}

/// I2: every event's targets are the endpoints that want it, and every delivery has a target.
pub(super) fn check_targets(
    evidence: &Evidence,
    histories: &BTreeMap<DeliveryId, History>,
    violations: &mut Vec<Violation>,
) {
    let routed = merge(evidence, violations);
    let mut expected = BTreeMap::new();
    for stored in &evidence.events {
        let event = &stored.event;
        let wants = evidence.subscribers.iter().filter(|subscriber| {
            subscriber.tenant == event.tenant
                && subscriber.filters.iter().any(|filter| filter.matches(&event.event_type))
        });
        let wanted: BTreeSet<EndpointId> = wants.map(|subscriber| subscriber.id).collect();
        let Some(targets) = routed.get(&event.id) else {
            violations.push(Violation::NotRouted(event.id));
            continue;
        };
        let missing = wanted.difference(targets);
        violations.extend(missing.map(|id| Violation::TargetMissing(event.id, *id)));
        let unexpected = targets.difference(&wanted);
        violations.extend(unexpected.map(|id| Violation::TargetUnexpected(event.id, *id)));
        for endpoint in wanted {
            expected.insert(DeliveryId::of(event.id, endpoint, 0), (event.id, endpoint));
        }
    }
    for (id, history) in histories {
        match expected.get(id) {
            None => violations.push(Violation::DeliveryUnexpected(*id)),
            Some(of) if *of != (history.delivery.event, history.delivery.endpoint) => {
                violations.push(Violation::DeliveryMisnamed(*id));
            }
            Some(_) => {}
        }
    }
    let silent = expected.keys().filter(|id| !histories.contains_key(*id));
    violations.extend(silent.map(|id| Violation::NotConcluded(*id)));
}

/// The targets of each event, its parts put together.
fn merge(
    evidence: &Evidence,
    violations: &mut Vec<Violation>,
) -> BTreeMap<EventId, BTreeSet<EndpointId>> {
    let mut parts: BTreeMap<EventId, BTreeMap<u32, &EventRouted>> = BTreeMap::new();
    let facts = evidence.journal.iter().flat_map(|batch| &batch.facts);
    for fact in facts.map(|record| &record.fact) {
        let Fact::EventRouted(routed) = fact else { continue };
        // The same fact twice is the same routing.
        let before = parts.entry(routed.event).or_default().insert(routed.part, routed);
        if before.is_some_and(|before| before != routed) {
            violations.push(Violation::RoutedDifferently(routed.event));
        }
    }
    let complete = |parts: &BTreeMap<u32, &EventRouted>| {
        parts.values().all(|routed| usize::try_from(routed.parts) == Ok(parts.len()))
    };
    parts.retain(|_, parts| complete(parts));
    let targets = |parts: BTreeMap<u32, &EventRouted>| {
        parts.into_values().flat_map(|it| it.targets.iter().chain(&it.fed).copied()).collect()
    };
    parts.into_iter().map(|(event, parts)| (event, targets(parts))).collect()
}
