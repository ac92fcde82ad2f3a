//! Trying endpoints: a few at once, beside everything else.

use std::sync::Arc;

use fanfare_event_log::Trial;

use super::ShardWorker;
use crate::attempt::trial;

/// How many endpoints of a shard are tried at once.
const AT_ONCE_MAX: usize = 4;

impl ShardWorker {
    /// Tries an endpoint, unless others are being tried.
    pub(super) async fn try_endpoint(&mut self, asked: Trial) {
        while self.trying.try_join_next().is_some() {}
        if self.trying.len() >= AT_ONCE_MAX {
            return asked.refuse(trial::BUSY).await;
        }
        self.trying.spawn(trial::make(Arc::clone(&self.desk), asked));
    }
}
