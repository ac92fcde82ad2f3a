//! Asking the conditions of endpoints about the content of events.
//!
//! That takes time, though not much, so it is done beside the runtime and without holding the
//! configuration. Events that nobody asks about pass by.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use fanfare_domain::{
    Condition, EndpointId, Event, StoredEvent,
    condition::{Failed, Subject},
};
use fanfare_service::Clock;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::{
    counters::Counters,
    routes::Matches,
    work::{Item, Routing},
};

/// How often a failure is told in the log, at most; all are counted.
const TELL_EVERY_MS: u64 = 10_000;

/// Asks conditions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Conditions(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    /// When a failure may be told again, in milliseconds.
    tell_at: AtomicU64,
}

impl Conditions {
    /// Nothing was told yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, counters: Arc<Counters>) -> Self {
        Self(Arc::new(Inner { clock, counters, tell_at: AtomicU64::new(0) }))
    }

    /// Decides whatever depends on content. Cancel safe: items that are dropped are handed out again.
    pub(crate) async fn answer(&self, mut items: Vec<Item>) -> anyhow::Result<Vec<Item>> {
        if !items.iter().any(asks) {
            return Ok(items);
        }
        let inner = Arc::clone(&self.0);
        let answer = move || {
            for item in items.iter_mut().filter(|item| asks(item)) {
                let event = Arc::clone(&item.event.event);
                if let Routing::New(matches) = &mut item.routing {
                    let subject = Subject::of(&event);
                    matches.answer(|endpoint, condition| {
                        inner.holds(condition, &subject, (endpoint, &event))
                    });
                }
            }
            items
        };
        spawn_blocking(answer).await.context("asking them panicked")
    }

    /// The same for events that are replayed.
    pub(crate) async fn decide(
        &self,
        mut matched: Vec<(StoredEvent, Matches)>,
    ) -> anyhow::Result<Vec<(StoredEvent, Matches)>> {
        if matched.iter().all(|(_, matches)| matches.asking.is_empty()) {
            return Ok(matched);
        }
        let inner = Arc::clone(&self.0);
        let answer = move || {
            for (event, matches) in &mut matched {
                let event = &event.event;
                let subject = Subject::of(event);
                matches.answer(|endpoint, condition| {
                    inner.holds(condition, &subject, (endpoint, event))
                });
            }
            matched
        };
        spawn_blocking(answer).await.context("asking conditions panicked")
    }
}

fn asks(item: &Item) -> bool {
    match &item.routing {
        Routing::New(matches) => !matches.asking.is_empty(),
        Routing::OnRecord(_) => false,
    }
}

impl Inner {
    fn holds(
        &self,
        condition: &Condition,
        subject: &Subject,
        (endpoint, event): (EndpointId, &Event),
    ) -> bool {
        self.counters.count_asked();
        condition.judge(subject).unwrap_or_else(|failed| {
            self.tell(&failed, endpoint, event);
            false
        })
    }

    /// Says nothing of the data: what is missing or does not fit may quote it.
    fn tell(&self, failed: &Failed, endpoint: EndpointId, event: &Event) {
        let failures = self.counters.count_failed();
        let now = self.clock.now().as_nanos() / 1_000_000;
        let due = self.tell_at.load(Ordering::Relaxed);
        let next = now.saturating_add(TELL_EVERY_MS);
        let is_first = now >= due
            && self
                .tell_at
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        let reason = failed.kind();
        if is_first {
            warn!(
                tenant_id = %event.tenant,
                endpoint_id = %endpoint,
                event_id = %event.id,
                reason,
                failures,
                "a filter gave no answer about an event, which counts as no match"
            );
        } else {
            debug!(endpoint_id = %endpoint, event_id = %event.id, reason, "a filter gave no answer");
        }
    }
}
