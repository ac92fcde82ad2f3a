//! Says the same thing only so often: a flood of one kind of line hides all others.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// In which time lines are counted.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// How many lines of one place in the code are written in that time.
const LINES_MAX: u32 = 20;

/// How many places are told apart. There are not so many, unless a library names what it says by
/// chance: then all are forgotten.
const PLACES_MAX: usize = 4_096;

/// The target of lines that say what was left out.
pub(super) const LEFT_OUT: &str = "fanfare::left_out";
/// The target of lines that are the only record of what somebody did: each is written.
pub const AUDIT: &str = "fanfare::audit";

/// How often each place in the code has said something lately, and how often it was not heard.
#[derive(Default)]
pub(super) struct Repeats(Mutex<BTreeMap<Place, Count>>);

/// Where something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    file: Option<&'static str>,
    line: Option<u32>,
    /// Who says it by way of the `log` crate: such lines have one place for each level.
    by: String,
}

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
    fn may_say(&self, place: Place, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= PLACES_MAX {
            counts.clear();
        }
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
    pub(super) fn left_out(&self) -> Vec<(Place, u64)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |(place, count): (&Place, &mut Count)| {
            let left_out = std::mem::take(&mut count.left_out);
            (left_out > 0).then(|| (place.clone(), left_out))
        };
        counts.iter_mut().filter_map(take).collect()
    }
}

impl Place {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut place = Self { file: metadata.file(), line: metadata.line(), by: String::new() };
        if metadata.target() == "log" {
            event.record(&mut place);
        }
        place
    }
}

/// Takes from a record of the `log` crate whose it is.
impl Visit for Place {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.by = String::from(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file, self.line) {
            _ if !self.by.is_empty() => f.write_str(&self.by),
            (Some(file), Some(line)) => write!(f, "{file}:{line}"),
            (Some(file), None) => f.write_str(file),
            (None, _) => f.write_str("elsewhere"),
        }
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
        let is_heard = *metadata.level() > Level::INFO
            || [AUDIT, LEFT_OUT].contains(&metadata.target())
            || self.repeats.may_say(Place::of(event), Instant::now());
        if is_heard { self.format.format_event(context, writer, event) } else { Ok(()) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use tracing::info;
    use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _};

    use super::*;

    fn at(line: u32) -> Place {
        Place { file: Some("a.rs"), line: Some(line), by: String::new() }
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_short_and_counted() {
        let repeats = Repeats::default();
        let now = Instant::now();
        let said = (0..100).filter(|_| repeats.may_say(at(1), now)).count();
        assert_eq!(said, 20);
        assert!(repeats.may_say(at(2), now), "others are heard");
        let library = Place { by: String::from("rustls"), ..Place::default() };
        assert!(repeats.may_say(library.clone(), now));
        assert_eq!(repeats.left_out(), [(at(1), 80)]);
        assert_eq!((at(1).to_string(), library.to_string()), ("a.rs:1".into(), "rustls".into()));
        assert!(repeats.left_out().is_empty());
        assert!(repeats.may_say(at(1), now + WINDOW));
    }

    /// What was written.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

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
            for number in 0..100 {
                info!(target: AUDIT, number, "who did what");
            }
            info!("another");
        });
        let text = written.text();
        assert_eq!(text.lines().count(), 121, "{text}");
        assert!(text.lines().last().is_some_and(|line| line.contains("another")), "{text}");
        assert_eq!(repeats.left_out().len(), 1);
    }
}
