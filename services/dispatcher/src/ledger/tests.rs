//! What the ledger remembers, and what it says to messages.

use fanfare_domain::{
    Conclusion, DeliveryRef, EndpointId, EventId,
    fact::{ConclusionReason, DeliveryConcluded, DeliveryDeferred},
};

use super::*;

const START: Place = Place { sequence: 1, at: Timestamp::EPOCH };

fn delivery(n: u8) -> DeliveryRef {
    let event = EventId::from_bytes([n; 16]);
    let endpoint = EndpointId::from_bytes([1; 16]);
    DeliveryRef {
        id: DeliveryId::of(event, endpoint, 0),
        tenant: "acme".parse().unwrap(),
        event,
        event_sequence: 1,
        event_type: "a.b".parse().unwrap(),
        endpoint,
        generation: 0,
        accepted_at: Timestamp::EPOCH,
    }
}

fn concluded(n: u8) -> Fact {
    Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery(n),
        conclusion: Conclusion::Delivered,
        attempts: 1,
        reason: ConclusionReason::Outcome,
    })
}

fn deferred(n: u8, attempt: u32) -> Fact {
    Fact::DeliveryDeferred(DeliveryDeferred {
        delivery: delivery(n),
        attempt,
        until: Timestamp::EPOCH,
        reason: DeferReason::LaneFull,
        batch: None,
    })
}

fn ledger() -> Ledger {
    Ledger::new(Duration::from_mins(10), 1_000, START)
}

fn due(ledger: &mut Ledger, attempt: u32) -> Admission {
    ledger.admit_due(delivery(1).id, attempt, Timestamp::EPOCH)
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1_000)
}

fn put_off(reason: DeferReason, until: u64) -> Fact {
    let delivery = delivery(1);
    let (until, batch) = (at(until), None);
    Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt: 1, until, reason, batch })
}

#[test]
fn a_copy_that_comes_before_its_time_comes_again() {
    let mut ledger = ledger();
    ledger.record(&put_off(DeferReason::LaneFull, 1_100), Place { sequence: 1, at: at(1_000) });
    let id = delivery(1).id;
    let second = Duration::from_secs(1);
    assert_eq!(ledger.admit_due(id, 1, at(1_000)), Admission::Early(60 * second));
    assert_eq!(ledger.admit_due(id, 1, at(1_090)), Admission::Early(10 * second));
    assert_eq!(ledger.admit_due(id, 1, at(1_099)), Admission::Make);
}

#[test]
fn what_the_rate_limit_put_off_has_its_turn() {
    let id = delivery(1).id;
    for (until, expected) in [(1_060, Admission::Turn), (1_600, Admission::Make)] {
        let mut ledger = ledger();
        let place = Place { sequence: 1, at: at(1_000) };
        ledger.record(&put_off(DeferReason::RateLimit, until), place);
        assert_eq!(ledger.admit_due(id, 1, at(until)), expected);
        assert_eq!(ledger.admit_due(id, 1, at(until)), Admission::Live);
    }
}

#[test]
fn a_task_handed_out_twice_makes_one_attempt() {
    let mut ledger = ledger();
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::Make);
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::Live);
    ledger.record(&concluded(1), START);
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
}

#[test]
fn a_schedule_fired_twice_makes_one_attempt() {
    let mut ledger = ledger();
    ledger.record(&deferred(1, 2), START);
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
    assert_eq!(due(&mut ledger, 1), Admission::OnRecord);
    assert_eq!(due(&mut ledger, 2), Admission::Make);
    assert_eq!(due(&mut ledger, 2), Admission::Live);
    assert_eq!(due(&mut ledger, 3), Admission::Early(EARLY_WAIT));
    ledger.record(&deferred(1, 3), START);
    assert_eq!(due(&mut ledger, 2), Admission::OnRecord);
}

#[test]
fn what_an_owner_before_began_is_waited_for() {
    let mut ledger = ledger();
    ledger.hold(delivery(1).id, 2);
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::Live);
    assert_eq!(due(&mut ledger, 2), Admission::Live);
    assert_eq!(due(&mut ledger, 3), Admission::Early(EARLY_WAIT));
    ledger.withdraw(delivery(1).id);
    assert_eq!(due(&mut ledger, 2), Admission::Make);
}

#[test]
fn what_is_within_the_window_is_remembered() {
    let mut ledger = ledger();
    let at = |minutes: u64| Place {
        sequence: minutes,
        at: Timestamp::EPOCH.saturating_add(Duration::from_mins(minutes)),
    };
    ledger.record(&concluded(1), at(100));
    ledger.record(&concluded(2), at(109));
    ledger.record(&concluded(3), at(110));
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
    ledger.record(&concluded(4), at(120));
    assert_eq!(ledger.admit_first(delivery(3).id), Admission::OnRecord);
    ledger.record(&concluded(5), at(140));
    ledger.record(&concluded(6), at(160));
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::Make);
}

#[test]
fn no_more_is_remembered_than_there_is_room_for() {
    let mut ledger = Ledger::new(Duration::from_mins(10), 3, START);
    for n in 0..=255 {
        let place = Place { sequence: u64::from(n), at: at(u64::from(n)) };
        ledger.record(&concluded(n), place);
        assert!(ledger.len() <= 6);
        // What it claims to cover, it knows.
        for known in ledger.covers_from().sequence..=u64::from(n) {
            assert!(ledger.knows(delivery(u8::try_from(known).unwrap()).id), "{known} at {n}");
        }
    }
    assert!(ledger.len() >= 3);
}

#[test]
fn what_is_live_is_never_forgotten() {
    let mut ledger = Ledger::new(Duration::from_mins(10), 2, START);
    assert_eq!(ledger.admit_first(delivery(9).id), Admission::Make);
    for n in 0..8 {
        ledger.record(&concluded(n), START);
    }
    assert_eq!(ledger.admit_first(delivery(9).id), Admission::Live);
    assert!(ledger.len() <= 5);
}

#[test]
fn what_was_forgotten_can_be_recalled() {
    let mut ledger = Ledger::new(Duration::from_mins(10), 1, START);
    for n in 1..5 {
        let place = Place { sequence: u64::from(n), at: Timestamp::EPOCH };
        ledger.record(&concluded(n), place);
    }
    assert!(!ledger.knows(delivery(1).id) && ledger.covers_from().sequence > 1);
    let wanted = BTreeSet::from([delivery(1).id]);
    ledger.recall(&concluded(1), Timestamp::EPOCH, &wanted);
    ledger.recall(&deferred(1, 1), Timestamp::EPOCH, &wanted);
    assert_eq!(ledger.admit_first(delivery(1).id), Admission::OnRecord);
}
