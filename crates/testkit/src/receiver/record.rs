//! What a receiver remembers.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::{sync::watch, time::Instant};

use super::Receiver;

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Received {
    /// Counts the receiver's requests, from 1.
    pub number: usize,
    /// The method.
    pub method: Method,
    /// The path and the query, as they were sent.
    pub path: String,
    /// The headers, as they were sent.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// When its body was complete.
    pub at: Instant,
    /// Counts the receiver's connections, from 1.
    pub connection: u64,
    /// Who sent it.
    pub peer: SocketAddr,
    /// The version of HTTP that it was sent in.
    pub version: Version,
}

/// Fewer requests came than a test waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFew {
    /// How many it waited for.
    pub wanted: usize,
    /// How many came.
    pub seen: usize,
}

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests came in time, not {}", self.seen, self.wanted)
    }
}

impl std::error::Error for TooFew {}

impl Received {
    /// Returns the text of a header, if there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What a receiver remembers of its requests.
#[derive(Debug)]
pub(super) struct Records {
    kept: Mutex<Vec<Arc<Received>>>,
    count: watch::Sender<usize>,
    connections: AtomicU64,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

/// Counts a request as in flight for as long as it lives.
pub(super) struct InFlight<'a>(&'a Records);

impl Records {
    /// Takes the next number for a connection.
    pub(super) fn connect(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Numbers the request, settles what is done with it, keeps it if there is room, and tells those
    /// who wait: what a test sets once it has seen a request is about later ones. `settle` must not
    /// ask for the requests so far.
    pub(super) fn add<A>(
        &self,
        mut request: Received,
        settle: impl FnOnce(&Received) -> A,
    ) -> (Arc<Received>, A) {
        let mut kept = self.kept();
        let number = *self.count.borrow() + 1;
        request.number = number;
        let settled = settle(&request);
        let request = Arc::new(request);
        if kept.len() < Receiver::RECORDED_MAX {
            kept.push(Arc::clone(&request));
        }
        self.count.send_replace(number);
        (request, settled)
    }

    pub(super) fn begin(&self) -> InFlight<'_> {
        let now = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_max.fetch_max(now, Ordering::Relaxed);
        InFlight(self)
    }

    pub(super) fn all(&self) -> Vec<Arc<Received>> {
        self.kept().clone()
    }

    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight_max(&self) -> usize {
        self.in_flight_max.load(Ordering::Relaxed)
    }

    /// Waits until there were so many requests.
    pub(super) async fn reached(&self, wanted: usize) {
        let mut count = self.count.subscribe();
        let seen = count.wait_for(|seen| *seen >= wanted).await;
        debug_assert!(seen.is_ok(), "the sender lives as long as self");
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Arc<Received>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Records {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            count: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            in_flight_max: AtomicUsize::new(0),
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
