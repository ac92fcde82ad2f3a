//! I1 and I2: every acknowledged event is there once, and goes to exactly who wants it.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{
    DeliveryId, EndpointId, EventId, Fact, StoredEvent,
    fact::{Edition, EventRouted},
};

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

/// The parts of a routing.
type Parts<'a> = BTreeMap<u32, &'a EventRouted>;

/// The targets of each event, its parts put together.
fn merge(
    evidence: &Evidence,
    violations: &mut Vec<Violation>,
) -> BTreeMap<EventId, BTreeSet<EndpointId>> {
    let mut found: BTreeMap<EventId, BTreeMap<Edition, Parts<'_>>> = BTreeMap::new();
    for record in evidence.journal.iter().flat_map(|batch| &batch.facts) {
        let Fact::EventRouted(routed) = &record.fact else { continue };
        let editions = found.entry(routed.event).or_default();
        let parts = editions.entry(routed.edition(record.recorded_at)).or_default();
        let before = parts.insert(routed.part, routed);
        if before.is_some_and(|before| before != routed) {
            violations.push(Violation::RoutedDifferently(routed.event));
        }
    }
    let mut targets = BTreeMap::new();
    for (event, mut editions) in found {
        // A crash may have left some parts of one.
        editions.retain(|edition, parts| edition.is_whole(parts.len()));
        let mut editions = editions.into_values();
        let Some(parts) = editions.next() else { continue };
        // The same facts twice are the same routing.
        if editions.any(|others| others != parts) {
            violations.push(Violation::RoutedDifferently(event));
        }
        let wanted = parts.into_values().flat_map(|it| it.targets.iter().chain(&it.fed).copied());
        targets.insert(event, wanted.collect());
    }
    targets
}
