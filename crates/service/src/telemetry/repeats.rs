//! Says the same thing only so often: a flood of one kind of line hides all others.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
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

/// Writes down what each place in the code says, now and then only. What is not said by default, such
/// as debug lines, is not counted: who asks for it wants all of it.
///
/// It is a format and not a filter: filters of single layers lose count of themselves where one
/// refuses an event after it was enabled (tracing-subscriber 0.3.23).
pub(super) struct Sparing<F> {
    format: F,
    repeats: Arc<Repeats>,
}

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

impl<F> Sparing<F> {
    /// Writes in a format.
    pub(super) fn new(format: F, repeats: Arc<Repeats>) -> Self {
        Self { format, repeats }
    }
}

impl<S, N, F> FormatEvent<S, N> for Sparing<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        // Of one callsite, the name is its place in the code.
        let is_heard = *metadata.level() > Level::INFO
            || self.repeats.may_say(metadata.name(), Instant::now());
        if is_heard { self.format.format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing::info;
    use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _};

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

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_leaves_other_lines_as_they_are() {
        let (written, repeats) = (Written::default(), Arc::<Repeats>::default());
        let (writer, sparing) = (written.clone(), Arc::clone(&repeats));
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).json();
        let lines = lines.map_event_format(|format| Sparing::new(format, sparing));
        let lines = lines.with_filter(EnvFilter::new("info"));
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                info!(number, "the same");
                tracing::debug!("nobody asked");
            }
            info!("another");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 21, "{text}");
        assert!(text.lines().last().is_some_and(|line| line.contains("another")), "{text}");
        assert_eq!(repeats.left_out().len(), 1);
    }
}
