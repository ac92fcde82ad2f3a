//! Whether requests may be sent at this moment.
//!
//! The claim in the journal guards records; this guards requests. Both the membership and the view
//! of the configuration must have been confirmed by the server a short while ago, on the monotonic
//! clock: a process that was stopped and wakes up sends nothing until it has asked again. One
//! lease covers all shards of the process: what is lost is dropped before it is renewed.

use std::{convert::Infallible, time::Duration};

use fanfare_event_log::{ConfigView, membership::Lease};
use tokio::time::Instant;

use crate::registry::Registry;

/// How long a confirmation counts. With the time between confirmations it keeps the promise that
/// no request begins later than one second after a pause was acknowledged.
pub(crate) const CONFIRMED_FOR: Duration = Duration::from_millis(700);

/// How often the view is confirmed.
const CONFIRM_EVERY: Duration = Duration::from_millis(200);

/// How often a held request looks again.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Tells whether requests may be sent.
#[derive(Clone)]
pub(crate) struct Guard {
    view: ConfigView<Registry>,
    lease: Lease,
}

impl Guard {
    /// Guards by a membership and a view.
    pub(crate) fn new(view: ConfigView<Registry>, lease: Lease) -> Self {
        Self { view, lease }
    }

    /// Tells whether a request may be sent now.
    pub(crate) fn is_held(&self) -> bool {
        let now = Instant::now();
        let fresh = |at: Instant| now.saturating_duration_since(at) < CONFIRMED_FOR;
        self.lease.confirmed_at().is_some_and(fresh) && self.view.confirmed_at().is_some_and(fresh)
    }

    /// Waits until a request may be sent. Cancel safe.
    pub(crate) async fn held(&self) {
        while !self.is_held() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the view has reached every change that was acknowledged before this call.
    pub(crate) async fn view_confirmed(&self) {
        while let Err(error) = self.view.confirm().await {
            tracing::debug!(%error, "the configuration could not be confirmed");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps the view confirmed for as long as it is polled.
    pub(crate) async fn keep_confirmed(self) -> Infallible {
        let mut ticks = tokio::time::interval(CONFIRM_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.view.confirm().await {
                tracing::debug!(%error, "the configuration could not be confirmed");
            }
        }
    }

    /// The view of the configuration.
    pub(crate) fn view(&self) -> &ConfigView<Registry> {
        &self.view
    }
}
