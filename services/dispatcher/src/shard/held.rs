//! Telling what the shard holds, for metrics.

use std::time::Duration;

use super::ShardWorker;
use crate::{counters::ShardLevels, memory::Source};

/// How often: every lane is looked at.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl ShardWorker {
    /// Says what the shard holds, once a second.
    pub(super) fn tell_gauges(&mut self) {
        let now = self.desk.now();
        if now < self.gauges_at {
            return;
        }
        self.gauges_at = now.saturating_add(TELL_EVERY);
        self.gauges.set(ShardLevels {
            lanes: self.lanes.levels(now),
            early: self.early.count(|_| true),
            unsettled: [Source::Task, Source::Due].map(|source| self.messages.count(source)),
            unrecorded: self.pen.gathered(),
            feeds: self.feeds.len(),
        });
    }
}
