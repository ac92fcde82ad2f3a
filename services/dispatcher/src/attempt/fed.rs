//! What feeds have to know: what endpoints want, who is fed, and how far routing has come.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{
    DeliveryRef, EndpointId, StoredEvent, TenantId, TypePattern, history::Choice,
};
use fanfare_event_log::FeedsView;
use tokio::time::MissedTickBehavior;

use super::Desk;

/// How often it is asked how far routing has come, while there is any feed.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Around {
    view: FeedsView,
    /// Up to where everything is routed.
    routed: AtomicU64,
    /// How many feeds the process has.
    count: Arc<AtomicUsize>,
}

/// How many feeds of a shard are counted. Not counted any more once it is dropped.
pub(crate) struct FeedCount {
    all: Arc<AtomicUsize>,
    ours: usize,
}

impl Around {
    pub(super) fn new(view: FeedsView) -> Self {
        Self { view, routed: AtomicU64::new(0), count: Arc::default() }
    }
}

impl FeedCount {
    /// Counts so many from now on.
    pub(crate) fn set(&mut self, ours: usize) {
        self.all.fetch_add(ours, Ordering::Relaxed);
        self.all.fetch_sub(std::mem::replace(&mut self.ours, ours), Ordering::Relaxed);
    }
}

impl Drop for FeedCount {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Desk {
    /// All feeds.
    pub(crate) fn feeds(&self) -> &FeedsView {
        &self.fed.view
    }

    /// The counter of a shard's feeds.
    pub(crate) fn feed_count(&self) -> FeedCount {
        FeedCount { all: Arc::clone(&self.fed.count), ours: 0 }
    }

    /// The sequence of EVENTS up to which everything is routed, or a smaller one.
    pub(crate) fn routed(&self) -> u64 {
        self.fed.routed.load(Ordering::Relaxed)
    }

    /// Asks how far routing has come, now and then, for as long as it is polled.
    pub(crate) async fn keep_routed(self: Arc<Self>) -> std::convert::Infallible {
        let mut ticks = tokio::time::interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.fed.count.load(Ordering::Relaxed) == 0 {
                continue;
            }
            match self.log.routed_until().await {
                Ok(routed) => self.fed.routed.store(routed, Ordering::Relaxed),
                Err(error) => tracing::debug!(%error, "it is not known what is routed"),
            }
        }
    }

    /// Waits until the view of the configuration has every change that was acknowledged before.
    pub(crate) async fn view_confirmed(&self) {
        self.guard.view_confirmed().await;
    }

    /// Returns every pattern by which an endpoint chooses events, or chose them.
    pub(crate) fn patterns(&self, endpoint: EndpointId) -> Vec<TypePattern> {
        self.guard.view().read(|registry| registry.patterns(endpoint))
    }

    /// Returns what decides on whether an endpoint wanted an event when it was accepted.
    pub(crate) fn choose(&self, endpoint: EndpointId, event: &StoredEvent) -> Choice {
        self.guard.view().read(|registry| registry.choose(endpoint, event))
    }

    /// Whose an endpoint is, if it is known.
    pub(crate) fn tenant(&self, endpoint: EndpointId) -> Option<TenantId> {
        self.guard.view().read(|registry| registry.tenant(endpoint).cloned())
    }

    /// Tells whether a person has cancelled all of an endpoint's deliveries, this one included.
    pub(crate) fn is_cancelled_by_hand(&self, delivery: &DeliveryRef) -> bool {
        let (endpoint, accepted_at) = (delivery.endpoint, delivery.accepted_at);
        self.guard.view().read(|registry| registry.is_cancelled_by_hand(endpoint, accepted_at))
    }

    /// Tells whether an endpoint is paused, and gets everything once it is resumed.
    pub(crate) fn is_on_hold(&self, endpoint: EndpointId) -> bool {
        self.guard.view().read(|registry| registry.is_on_hold(endpoint))
    }
}
