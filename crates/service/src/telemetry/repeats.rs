//! Says the same thing only so often: a flood of one kind of line hides all others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber, subscriber::Interest};
use tracing_subscriber::{
    filter::LevelFilter,
    layer::{Context, Filter},
};

/// In which time lines are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// How many lines of one place in the code are written in that time.
const LINES_MAX: u32 = 20;

/// How often each place in the code has said something lately, and how often it was not heard.
#[derive(Default)]
pub(super) struct Repeats(Mutex<BTreeMap<&'static str, Count>>);

struct Count {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// Lets each place in the code say something now and then only. What is not said by default, such as
/// debug lines, is not counted: who asks for it wants all of it.
pub(super) struct Limited(pub(super) Arc<Repeats>);

impl Repeats {
    /// Tells whether a place may say something now.
    fn may_say(&self, place: &'static str, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Count { since: now, written: 0, left_out: 0 };
        let count = counts.entry(place).or_insert_with(fresh);
        if now.duration_since(count.since) >= WINDOW {
            (count.since, count.written) = (now, 0);
        }
        let may = count.written < LINES_MAX;
        if may {
            count.written += 1;
        } else {
            count.left_out += 1;
        }
        may
    }

    /// Returns what was not said since the last time, by place.
    pub(super) fn left_out(&self) -> Vec<(&'static str, u64)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |(place, count): (&&'static str, &mut Count)| {
            let left_out = std::mem::take(&mut count.left_out);
            (left_out > 0).then_some((*place, left_out))
        };
        counts.iter_mut().filter_map(take).collect()
    }
}

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Of one callsite, the name is its place in the code.
        *metadata.level() > Level::INFO || self.0.may_say(metadata.name(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_cut_short_and_counted() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let said = (0..100).filter(|_| repeats.may_say("event a.rs:1", now)).count();
        assert_eq!(said, 20);
        assert!(repeats.may_say("event b.rs:1", now), "others are heard");
        assert_eq!(repeats.left_out(), [("event a.rs:1", 80)]);
        assert!(repeats.left_out().is_empty());
        assert!(repeats.may_say("event a.rs:1", now + WINDOW));
    }
}
