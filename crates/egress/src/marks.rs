//! How far a request is, noted by those who see it pass.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_domain::trace::span::Moments;
use tokio::time::Instant;

tokio::task_local! {
    /// Of the request that asks for a name or a connection.
    pub(crate) static MARKS: Marks;
}

/// When the parts of a request were done. Clones are of the same request.
#[derive(Clone, Debug)]
pub(crate) struct Marks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    withdrawn: AtomicBool,
    dns: Mark,
    greeted: Mark,
    connected: Mark,
    sent: Mark,
}

/// Nanoseconds since the beginning; 0 for never.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

impl Marks {
    /// Begins at an instant.
    pub(crate) fn new(started: Instant) -> Self {
        Self(Arc::new(Inner {
            started,
            withdrawn: AtomicBool::new(false),
            dns: Mark::default(),
            greeted: Mark::default(),
            connected: Mark::default(),
            sent: Mark::default(),
        }))
    }

    /// Notes that the request is withdrawn at the last moment.
    pub(crate) fn withdraw(&self) {
        self.0.withdrawn.store(true, Ordering::Release);
    }

    /// Tells whether it was.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.0.withdrawn.load(Ordering::Acquire)
    }

    /// Notes that its name is resolved.
    pub(crate) fn resolved(&self) {
        self.0.dns.set(self.0.started.elapsed());
    }

    /// Notes that TLS begins on a connection of its own; through a proxy that speaks TLS too, that
    /// begins first.
    pub(crate) fn greeted(&self) {
        self.0.greeted.set_once(self.0.started.elapsed());
    }

    /// Notes that it has a connection of its own, with TLS if that is spoken.
    pub(crate) fn connected(&self) {
        self.0.connected.set(self.0.started.elapsed());
    }

    /// Notes that it is on its way.
    pub(crate) fn sent(&self) {
        self.0.sent.set(self.0.started.elapsed());
    }

    /// Returns what was noted, with what its sender knows.
    pub(crate) fn moments(&self, first_byte: Option<Duration>, body: Option<Duration>) -> Moments {
        let Inner { dns, greeted, connected, sent, .. } = &*self.0;
        // TLS begins as soon as there is a TCP connection.
        let (dns, tcp, connected, sent) = (dns.get(), greeted.get(), connected.get(), sent.get());
        Moments { dns, tcp, connected, sent, first_byte, body }
    }
}

impl Mark {
    fn set(&self, after: Duration) {
        self.0.store(nanos(after), Ordering::Relaxed);
    }

    /// Leaves it as it is, if it is set.
    fn set_once(&self, after: Duration) {
        if self.get().is_none() {
            self.set(after);
        }
    }

    fn get(&self) -> Option<Duration> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos > 0).then_some(Duration::from_nanos(nanos))
    }
}

fn nanos(after: Duration) -> u64 {
    u64::try_from(after.as_nanos()).unwrap_or(u64::MAX).max(1)
}
