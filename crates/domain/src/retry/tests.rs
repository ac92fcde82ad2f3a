//! What a retry policy promises.

use proptest::prelude::*;

use super::*;
use crate::{BatchId, EndpointId, EventId, Fault};

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const NEVER: Timestamp = Timestamp::from_nanos(u64::MAX);

fn delivery() -> DeliveryId {
    let event = EventId::of_message("INBOX", 1, NOW);
    DeliveryId::of(event, EndpointId::from_bytes([1; 16]), 0)
}

fn policy(toml: &str) -> Policy {
    toml::from_str(toml).unwrap()
}

fn standard() -> Policy {
    Policy::from_delays(vec![Duration::from_secs(5), Duration::from_mins(5)])
}

fn judge(policy: &Policy, attempt: u32, outcome: &Outcome) -> Verdict {
    policy.judge(&Judged {
        delivery: delivery(),
        batch: None,
        attempt,
        outcome,
        ended_at: NOW,
        give_up_at: NEVER,
    })
}

fn refused(status: u16) -> Outcome {
    Outcome::Refused { status, retry_after: None }
}

fn asked(status: u16, wait: Duration) -> Outcome {
    Outcome::Refused { status, retry_after: Some(NOW.saturating_add(wait)) }
}

fn after(wait: Duration) -> Verdict {
    Verdict::RetryAt(NOW.saturating_add(wait))
}

#[test]
fn retries_follow_the_list_and_then_end() {
    assert_eq!(judge(&standard(), 1, &refused(500)), after(Duration::from_secs(5)));
    assert_eq!(judge(&standard(), 2, &refused(302)), after(Duration::from_mins(5)));
    assert_eq!(judge(&standard(), 3, &refused(500)), Verdict::GiveUp(GiveUp::AttemptsSpent));
}

#[test]
fn exponential_waits_grow_up_to_their_limit() {
    let policy =
        policy("delays.exponential = { initial = '30s', factor = 4, max = '5m', retries = 3 }");
    let waits: Vec<_> = (1..=4).map(|attempt| policy.delays.after(attempt)).collect();
    let seconds = |count| Some(Duration::from_secs(count));
    assert_eq!(waits, [seconds(30), seconds(120), seconds(300), None]);
    assert_eq!(policy.horizon(), Duration::from_secs(450));
}

#[test]
fn an_accepted_attempt_ends_the_delivery() {
    assert_eq!(judge(&standard(), 9, &Outcome::Accepted { status: 204 }), Verdict::Delivered);
}

#[test]
fn every_fault_is_tried_again() {
    let strict = policy("delays.list = ['5s']\nretry_on = 'listed'\nlisted = [503]");
    for fault in Fault::ALL {
        assert_eq!(judge(&strict, 1, &Outcome::Failed(fault)), after(Duration::from_secs(5)));
    }
}

#[test]
fn a_gone_endpoint_is_never_retried() {
    assert_eq!(judge(&standard(), 1, &refused(410)), Verdict::GiveUp(GiveUp::Gone));
    let insistent = policy("delays.list = ['5s']");
    assert_eq!(judge(&insistent, 1, &refused(410)), after(Duration::from_secs(5)));
}

#[test]
fn a_switch_makes_final_statuses_retried() {
    let text = "delays.list = ['5s']\nlisted = [429, '500', '502-504']\nretry_on = ";
    let (listed, anything) =
        (policy(&format!("{text}'listed'")), policy(&format!("{text}'anything'")));
    for status in [301, 400, 404, 410, 501, 505, 999] {
        assert_eq!(judge(&listed, 1, &refused(status)), Verdict::GiveUp(GiveUp::Refused));
        assert_eq!(judge(&anything, 1, &refused(status)), after(Duration::from_secs(5)));
    }
    for status in [429, 500, 502, 503, 504] {
        assert_eq!(judge(&listed, 1, &refused(status)), after(Duration::from_secs(5)));
    }
}

#[test]
fn retry_after_only_ever_makes_later() {
    let wait = |attempt, status, asked_for| judge(&standard(), attempt, &asked(status, asked_for));
    assert_eq!(wait(1, 429, Duration::from_mins(1)), after(Duration::from_mins(1)));
    assert_eq!(wait(2, 503, Duration::from_mins(1)), after(Duration::from_mins(5)));
    assert_eq!(wait(1, 429, Duration::from_hours(900)), after(RETRY_AFTER_MAX));
    assert_eq!(wait(1, 500, Duration::from_mins(1)), after(Duration::from_secs(5)));
}

#[test]
fn a_retry_beyond_the_give_up_time_ends_the_delivery() {
    let outcome = refused(500);
    let judged = |wait| Judged {
        delivery: delivery(),
        batch: None,
        attempt: 2,
        outcome: &outcome,
        ended_at: NOW,
        give_up_at: NOW.saturating_add(wait),
    };
    assert_eq!(
        standard().judge(&judged(Duration::from_secs(299))),
        Verdict::GiveUp(GiveUp::Expired)
    );
    assert_eq!(standard().judge(&judged(Duration::from_mins(5))), after(Duration::from_mins(5)));
}

#[test]
fn the_give_up_time_stays_inside_the_retention() {
    let day = Duration::from_hours(24);
    let policy = Policy::from_delays(vec![day]);
    assert_eq!(policy.give_up_at(NOW, 30 * day), NOW.saturating_add(8 * day));
    assert_eq!(policy.give_up_at(NOW, 5 * day), NOW.saturating_add(3 * day));
    assert_eq!(policy.give_up_at(NOW, day), NOW);
}

#[test]
fn each_end_has_its_conclusion() {
    for (verdict, conclusion) in [
        (Verdict::Delivered, Some((Conclusion::Delivered, ConclusionReason::Outcome))),
        (Verdict::RetryAt(NOW), None),
        (Verdict::GiveUp(GiveUp::Gone), Some((Conclusion::Refused, ConclusionReason::Outcome))),
        (
            Verdict::GiveUp(GiveUp::Expired),
            Some((Conclusion::Exhausted, ConclusionReason::Expired)),
        ),
    ] {
        assert_eq!(verdict.conclusion(), conclusion);
    }
}

#[test]
fn a_policy_outside_its_limits_is_refused() {
    let many = format!("delays.list = [{}]", "'1s',".repeat(65));
    for bad in [
        "delays.list = ['5s']\njitter = 1001",
        "delays.list = ['8d']",
        "delays.list = ['5']",
        "delays.list = [5]",
        "delays.list = ['5s']\ncolour = 'red'",
        "delays.list = ['5s']\nretry_on = 'some'",
        "delays.exponential = { initial = '1s', factor = 0, max = '1m', retries = 2 }",
        "delays.exponential = { initial = '1s', factor = 2, max = '1m', retries = 65 }",
        "delays.exponential = { initial = '1s', factor = 2, max = '1m', retries = 2, colour = 1 }",
        &many,
    ] {
        assert!(toml::from_str::<Policy>(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_policy_reads_back_from_its_text() {
    let policies = [
        standard(),
        policy(
            "delays.exponential = { initial = '30s', factor = 4, max = '5m', retries = 3 }\njitter = 7\nretry_on = 'listed'\nlisted = ['5xx']",
        ),
    ];
    for policy in policies {
        assert_eq!(
            serde_json::from_str::<Policy>(&serde_json::to_string(&policy).unwrap()).unwrap(),
            policy
        );
        assert_eq!(toml::from_str::<Policy>(&toml::to_string(&policy).unwrap()).unwrap(), policy);
    }
}

#[test]
fn jitter_is_the_same_for_all_of_a_batch() {
    let mut jittery = Policy::from_delays(vec![Duration::from_hours(1)]);
    jittery.jitter = 1_000;
    let due = |delivery: u8, batch: Option<u8>| {
        jittery.judge(&Judged {
            delivery: DeliveryId::from_bytes([delivery; 16]),
            batch: batch.map(|batch| BatchId::from_bytes([batch; 16])),
            attempt: 1,
            outcome: &refused(500),
            ended_at: NOW,
            give_up_at: NEVER,
        })
    };
    assert_eq!(due(1, Some(7)), due(2, Some(7)));
    assert_ne!(due(1, Some(7)), due(1, Some(8)));
    assert_ne!(due(1, None), due(2, None));
}

#[test]
fn jitter_differs_between_deliveries() {
    let mut jittery = Policy::from_delays(vec![Duration::from_hours(1)]);
    jittery.jitter = 100;
    let due = |chance: u8| {
        let delivery = DeliveryId::from_bytes([chance; 16]);
        jittery.judge(&Judged {
            delivery,
            batch: None,
            attempt: 1,
            outcome: &refused(500),
            ended_at: NOW,
            give_up_at: NEVER,
        })
    };
    let mut seen: Vec<_> = (0..50).map(due).map(|verdict| format!("{verdict:?}")).collect();
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 45, "{}", seen.len());
}

#[test]
fn jitter_spreads_what_asks_for_the_same_time() {
    let mut jittery = Policy::from_delays(vec![Duration::from_secs(5)]);
    jittery.jitter = 100;
    let asked = Duration::from_mins(1);
    let outcome = Outcome::Refused { status: 503, retry_after: Some(NOW.saturating_add(asked)) };
    let wait = |chance: u8| {
        let verdict = jittery.judge(&Judged {
            delivery: DeliveryId::from_bytes([chance; 16]),
            batch: None,
            attempt: 1,
            outcome: &outcome,
            ended_at: NOW,
            give_up_at: NEVER,
        });
        let Verdict::RetryAt(due) = verdict else { panic!("{verdict:?}") };
        due.since(NOW)
    };
    let waits: Vec<_> = (0..100).map(wait).collect();
    let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!((asked..asked + Duration::from_secs(1)).contains(first), "{first:?}");
    assert!(
        (asked + Duration::from_secs(5)..=asked + Duration::from_secs(6)).contains(last),
        "{last:?}"
    );
}

prop_compose! {
    fn any_policy()(
        delays in prop::collection::vec((0_u64..604_800).prop_map(Duration::from_secs), 0..9),
        jitter in 0_u16..=1_000,
    ) -> Policy {
        Policy { jitter, ..Policy::from_delays(delays) }
    }
}

prop_compose! {
    fn any_outcome()(
        status in prop_oneof![100_u16..1_000, prop::sample::select(vec![429, 503])],
        wait in prop::option::of(0_u64..200_000),
    ) -> Outcome {
        let retry_after = wait.map(|wait| NOW.saturating_add(Duration::from_secs(wait)));
        Outcome::Refused { status, retry_after }
    }
}

/// When the endpoint wants to be asked again, if that counts.
fn asked_for(outcome: &Outcome) -> Option<Timestamp> {
    match outcome {
        Outcome::Refused { status: 429 | 503, retry_after } => *retry_after,
        Outcome::Accepted { .. } | Outcome::Refused { .. } | Outcome::Failed(_) => None,
    }
}

proptest! {
    #[test]
    fn a_retry_is_never_early_nor_beyond_its_jitter(
        policy in any_policy(), outcome in any_outcome(), attempt in 0_u32..12, id: [u8; 16],
    ) {
        let judged = Judged {
            delivery: DeliveryId::from_bytes(id), batch: None, attempt, outcome: &outcome,
            ended_at: NOW, give_up_at: NEVER,
        };
        let verdict = policy.judge(&judged);
        prop_assert_eq!(verdict, policy.judge(&judged));
        let Verdict::RetryAt(due) = verdict else { return Ok(()) };
        let delay = policy.delays.after(attempt).unwrap();
        let asked = asked_for(&outcome).map_or(Duration::ZERO, |asked| asked.since(NOW));
        let wait = delay.max(asked.min(RETRY_AFTER_MAX));
        prop_assert!(due >= NOW.saturating_add(wait));
        prop_assert!(due <= NOW.saturating_add(wait + wait * u32::from(policy.jitter) / 1_000));
    }

    #[test]
    fn judging_later_is_never_due_earlier(
        policy in any_policy(), outcome in any_outcome(), attempt in 1_u32..12, later in 0_u64..200_000,
    ) {
        let at = |ended_at| policy.judge(&Judged {
            delivery: delivery(), batch: None, attempt, outcome: &outcome, ended_at, give_up_at: NEVER,
        });
        // Who asks for a time has jitter for the wait until then, which is shorter later.
        let asked = asked_for(&outcome);
        match (at(NOW), at(NOW.saturating_add(Duration::from_secs(later)))) {
            (Verdict::RetryAt(first), Verdict::RetryAt(second)) => {
                prop_assert!(second >= asked.map_or(first, |asked| asked.min(first)));
            }
            (first, second) => prop_assert_eq!(first, second),
        }
    }

    #[test]
    fn the_schedule_ends_within_the_horizon(policy in any_policy(), id: [u8; 16]) {
        let (mut now, mut attempt) = (NOW, 1);
        let outcome = Outcome::Failed(Fault::TimedOut);
        while let Verdict::RetryAt(due) = policy.judge(&Judged {
            delivery: DeliveryId::from_bytes(id), batch: None, attempt, outcome: &outcome,
            ended_at: now, give_up_at: NEVER,
        }) {
            (now, attempt) = (due, attempt + 1);
        }
        prop_assert_eq!(attempt, policy.delays.retries() + 1);
        prop_assert!(now <= NOW.saturating_add(policy.horizon()));
    }
}
