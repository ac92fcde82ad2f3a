//! How far a removal is, as far as this process knows. Pure.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{TenantId, chain};
use fanfare_event_log::expunge::Part;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::ApiError;

/// How long services may take to write what they had in hand when it began.
const SETTLING: Duration = Duration::from_secs(6);
/// How long to wait after something did not work, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a person is not told that something does not work.
const WORRY: Duration = Duration::from_secs(30);

/// How many things of each kind were removed.
pub(super) type Removed = BTreeMap<&'static str, u64>;

/// The kinds whose messages may come again and again, because producers go on sending: they are no
/// reason for another pass.
const COMING: [&str; 2] = [Part::Inbox.as_str(), Part::Rejected.as_str()];

/// What a pass came to.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// What was removed.
    pub(super) removed: Removed,
    /// Whether there is more to come.
    pub(super) waits: bool,
    /// The last sequence of DELIVERIES when it began.
    pub(super) tasks_last: u64,
    /// Before which sequence of DELIVERIES all was taken and settled when it ended.
    pub(super) tasks_settled_before: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Standing {
    /// When this process saw it first: the clocks of two processes are not compared.
    since: Instant,
    /// What was removed so far.
    removed: Removed,
    /// The last task that may hold an event: known once no event can come any more. Later ones are of
    /// others, and waiting for them too would have no end.
    tasks_last: Option<u64>,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    told: bool,
    pause: Duration,
    again_at: Instant,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, removed: Removed::new(), tasks_last: None, failing: None }
    }

    /// Tells whether another pass is to be made.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.failing.as_ref().is_none_or(|failing| failing.again_at <= now)
    }

    /// Tells whether services had the time to write what they had in hand when it began.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= SETTLING
    }

    /// What was removed so far.
    pub(super) fn removed(&self) -> &Removed {
        &self.removed
    }

    /// Takes in what a pass came to; tells whether it was the last one.
    pub(super) fn take(&mut self, pass: Pass, now: Instant) -> bool {
        let is_empty = |(kind, count): (&&str, &u64)| *count == 0 || COMING.contains(kind);
        let is_clean = !pass.waits && pass.removed.iter().all(is_empty);
        for (kind, count) in pass.removed {
            *self.removed.entry(kind).or_default() += count;
        }
        if !is_clean || !self.is_settled(now) {
            self.tasks_last = None;
            return false;
        }
        let tasks_last = *self.tasks_last.get_or_insert(pass.tasks_last);
        pass.tasks_settled_before > tasks_last
    }

    /// Notes whether a pass worked.
    pub(super) fn note(&mut self, tenant: &TenantId, error: Option<ApiError>, now: Instant) {
        let Some(error) = error else {
            self.failing = None;
            return;
        };
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            told: false,
            pause: PAUSE_MIN,
            again_at: now,
        });
        failing.again_at = now + failing.pause;
        failing.pause = (failing.pause * 2).min(PAUSE_MAX);
        if now.duration_since(failing.since) > WORRY && !failing.told {
            failing.told = true;
            warn!(tenant_id = %tenant, error = chain(&error), "a tenant cannot be expunged yet");
        } else {
            tell(tenant, &error);
        }
    }
}

/// Tells those who look closely that something did not work.
pub(super) fn tell(tenant: &TenantId, error: &ApiError) {
    debug!(tenant_id = %tenant, error = chain(error), "a tenant cannot be expunged yet");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(tasks_last: u64, tasks_settled_before: u64) -> Pass {
        Pass { tasks_last, tasks_settled_before, ..Pass::default() }
    }

    fn found(kind: &'static str) -> Pass {
        Pass { removed: Removed::from([(kind, 1)]), ..clean(0, 1) }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_a_pass_that_finds_nothing_some_seconds_after_its_beginning() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        assert!(!standing.take(clean(0, 1), begun + SETTLING / 2), "too early");
        assert!(!standing.take(found("events"), begun + SETTLING));
        assert!(!standing.take(Pass { waits: true, ..clean(0, 1) }, begun + SETTLING));
        assert!(standing.take(found("rejected"), begun + SETTLING), "producers go on");
        assert_eq!(standing.removed().get("events"), Some(&1));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_of_others_that_come_meanwhile_are_not_waited_for() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        // At each moment some task of somebody's slow endpoint is not settled.
        for pass in 0..10 {
            let now = begun + SETTLING + Duration::from_secs(pass);
            let ended = standing.take(clean(100 + 10 * pass, 80 + 10 * pass), now);
            assert_eq!(ended, pass >= 3, "{pass}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_came_late_begins_the_waiting_anew() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        let now = begun + SETTLING;
        assert!(!standing.take(clean(100, 90), now));
        assert!(!standing.take(found("events"), now));
        assert!(!standing.take(clean(200, 150), now), "its task may be the last one");
        assert!(standing.take(clean(300, 201), now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_work_is_tried_less_and_less_often_until_it_works() {
        let begun = Instant::now();
        let tenant = "acme".parse().unwrap();
        let mut standing = Standing::new(begun);
        let wrong = || Some(ApiError::from(crate::error::Code::Unavailable));
        standing.note(&tenant, wrong(), begun);
        assert!(!standing.is_due(begun + PAUSE_MIN / 2));
        assert!(standing.is_due(begun + PAUSE_MIN));
        for _ in 0..9 {
            standing.note(&tenant, wrong(), begun + WORRY + PAUSE_MIN);
        }
        assert!(
            standing.failing.as_ref().is_some_and(|failing| failing.told),
            "also beside others"
        );
        assert!(!standing.is_due(begun + WORRY + PAUSE_MAX));
        standing.note(&tenant, None, begun + WORRY);
        assert!(standing.is_due(begun));
    }
}
