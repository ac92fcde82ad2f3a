//! How full the windows of a log's publishers are, for metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Semaphore;

/// Tells how much the publishers of a log have on their way. Cheap to clone; keeps nothing open.
#[derive(Clone)]
pub struct Windows(Arc<Inner>);

struct Inner {
    /// How many messages one publisher may have on their way.
    each: usize,
    open: Mutex<Vec<Weak<Semaphore>>>,
}

impl Windows {
    /// There is none yet.
    pub(crate) fn new(each: usize) -> Self {
        Self(Arc::new(Inner { each, open: Mutex::default() }))
    }

    /// Opens one.
    pub(crate) fn open(&self) -> Arc<Semaphore> {
        let window = Arc::new(Semaphore::new(self.0.each));
        let mut open = self.lock();
        open.retain(|window| window.strong_count() > 0);
        open.push(Arc::downgrade(&window));
        window
    }

    /// How many messages all publishers have on their way: sent, or gathered to be sent, and not
    /// known to be stored.
    pub fn under_way(&self) -> usize {
        let windows: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        let taken =
            |window: &Arc<Semaphore>| self.0.each.saturating_sub(window.available_permits());
        windows.iter().map(taken).sum()
    }

    /// How many they may have; then whoever wants to write waits.
    pub fn limit(&self) -> usize {
        self.0.each * self.lock().iter().filter(|window| window.strong_count() > 0).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Semaphore>>> {
        // Each change leaves it whole.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_add_up_and_are_forgotten_once_they_are_closed() {
        let windows = Windows::new(8);
        assert_eq!((windows.under_way(), windows.limit()), (0, 0));
        let (one, other) = (windows.open(), windows.open());
        let _held = one.try_acquire_many(3).unwrap();
        let last = Arc::clone(&other).try_acquire_owned().unwrap();
        assert_eq!((windows.under_way(), windows.limit()), (4, 16));
        // What is on its way when a publisher goes still counts.
        drop(other);
        assert_eq!((windows.under_way(), windows.limit()), (4, 16));
        drop(last);
        assert_eq!((windows.under_way(), windows.limit()), (3, 8));
    }
}
