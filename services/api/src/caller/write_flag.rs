//! Whether a request has come as far as to change something: from then on nobody may take it for
//! one that was never made.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Notes whether a request has begun to change something. Clones share the note.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteFlag(Arc<AtomicBool>);

impl WriteFlag {
    /// Notes that something is changed from here on.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Tells whether something may have been changed.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
