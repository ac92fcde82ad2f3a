//! Commands and jobs.

use std::collections::BTreeMap;

use fanfare_domain::{
    Command, CommandId, JobId, Replay,
    command::{Aim, Order},
    job::{JobState, Past, Progress, Range, Scope, Which},
};

use super::{at, delivery, endpoint_id, event_id, trace};

/// Commands, under the names of their golden records.
pub(super) fn commands() -> impl Iterator<Item = (&'static str, Command)> {
    let aim = || {
        let (attempt, untouched, journal_sequence) = (1, true, 77);
        let (delivery, trace) = (delivery(), trace());
        Box::new(Aim { delivery, attempt, untouched, journal_sequence, trace })
    };
    let all = Order::CancelAll { tenant: "acme".parse().unwrap(), endpoint: endpoint_id(1) };
    [
        ("command-cancel", Order::Cancel(aim())),
        ("command-retry-now", Order::RetryNow(aim())),
        ("command-cancel-all", all),
    ]
    .into_iter()
    .map(|(name, order)| {
        let id = CommandId::from_bytes([7; 16]);
        (name, Command { id, asked_at: at(5), actor: String::from("key_1"), order })
    })
}

/// Replays, under the names of their golden records.
pub(super) fn replays() -> impl Iterator<Item = (&'static str, Replay)> {
    let past = Past { event: event_id(), event_sequence: 9, endpoint: endpoint_id(1) };
    let range = |which, endpoint| {
        let types = vec!["invoice.*".parse().unwrap()];
        Scope::Range(Range { endpoint, since: at(1), until: at(2), types, which })
    };
    let one = Some(endpoint_id(2));
    let mut unfinished = replay(range(Which::Missing, None), JobState::Cancelled);
    unfinished.progress.unfinished = true;
    let mut behind = replay(range(Which::All, None), JobState::Running);
    behind.behind = [(endpoint_id(3), 4), (endpoint_id(4), 1)].into();
    [
        ("replay-only", Scope::Only(vec![past]), JobState::Running),
        ("replay-failed", range(Which::Failed, one), JobState::Done),
        ("replay-exhausted", range(Which::Exhausted, one), JobState::Running),
        ("replay-all", range(Which::All, None), JobState::Cancelled),
        ("replay-missing", range(Which::Missing, one), JobState::Failed(String::from("gone"))),
    ]
    .into_iter()
    .map(|(name, scope, state)| (name, replay(scope, state)))
    .chain([("replay-unfinished", unfinished), ("replay-behind", behind)])
}

fn replay(scope: Scope, state: JobState) -> Replay {
    Replay {
        id: JobId::from_bytes([8; 16]),
        tenant: "acme".parse().unwrap(),
        actor: String::from("key_1"),
        reason: String::from("they asked"),
        created_at: at(3),
        scope,
        generation: 12,
        state,
        progress: Progress {
            next: 5,
            journal_sequence: 6,
            looked_at: 7,
            made: 8,
            updated_at: at(9),
            unfinished: false,
        },
        behind: BTreeMap::new(),
    }
}
