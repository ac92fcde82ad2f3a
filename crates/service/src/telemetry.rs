//! What the process says about itself, on standard error.

mod lines;
mod repeats;
mod watch;

use std::{fmt, io, io::IsTerminal as _, path::PathBuf, str::FromStr, sync::Arc};

use fanfare_domain::settings::{Settings, Source};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::{Directive, ParseError},
    layer::SubscriberExt as _,
    reload,
    util::TryInitError,
};

use self::repeats::{LEFT_OUT, Repeats, Sparing};
use crate::{Traces, traces::requests};

pub use lines::trace_id;
pub use repeats::AUDIT;
pub use watch::Logging;

/// What is let through at `info` whatever the level of the filter: what is the only record of an act, what
/// was left out (otherwise a flood of warnings is cut short and nobody knows), and the spans of requests,
/// which write nothing by themselves but have the ids of every line inside them.
const ALWAYS: [&str; 3] = [AUDIT, LEFT_OUT, requests::TARGET];

/// How the process logs: section `telemetry` of a service's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Which events are written: a level, and exceptions by module.
    pub filter: Filter,
    /// How they are written.
    pub format: Format,
    /// A file that holds a filter, which is read again whenever it changes: while it holds one,
    /// that counts.
    pub filter_file: Option<PathBuf>,
}

/// Which events are written: `info`, or `info,fanfare_dispatcher=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `text` on a terminal, `json` otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Something in this process has set it up before.
    #[error("telemetry is set up already")]
    AlreadySetUp(#[source] TryInitError),
}

/// A word that names no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of auto, text, json")]
pub struct UnknownFormat;

impl Settings for Telemetry {
    fn read(source: &mut Source) -> Self {
        let default = Self::default();
        Self {
            filter: source.take("filter", default.filter),
            format: source.take("format", default.format),
            filter_file: source.take_optional("filter_file"),
        }
    }
}

/// Level `info`, format `auto`.
impl Default for Telemetry {
    fn default() -> Self {
        let filter = Filter(String::from("info"));
        Self { filter, format: Format::default(), filter_file: None }
    }
}

/// Sets up logging for the whole process, and the spans of requests. Once: a second call is an error
/// and changes nothing. What is returned has to be run for the filter to be changed later.
pub fn init(telemetry: &Telemetry, traces: &Traces) -> Result<Logging, TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(telemetry.filter.built());
    let repeats = Arc::<Repeats>::default();
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let sparing = Arc::clone(&repeats);
    let lines = if telemetry.format.is_json(terminal) {
        lines.json().map_event_format(|format| Sparing::new(format, sparing)).boxed()
    } else {
        let lines = lines.with_ansi(terminal);
        lines.map_event_format(|format| Sparing::new(format, sparing)).boxed()
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    subscriber.with(traces.layer()).try_init().map_err(TelemetryError::AlreadySetUp)?;
    Ok(Logging::new(telemetry.clone(), handle, repeats))
}

/// What strangers do on the wire is no warning of ours, and nothing for them to fill the log with: an
/// attempt that fails has its fault. What a filter itself says of these modules counts.
const STRANGERS: &str = "hickory_net=error,hickory_resolver=error,rustls=error";

impl Filter {
    /// What is [always](ALWAYS) written is, unless the filter says otherwise by name.
    fn built(&self) -> EnvFilter {
        let filter = EnvFilter::builder().parse_lossy(format!("{STRANGERS},{}", self.0));
        let unnamed = ALWAYS.into_iter().filter(|target| !self.0.contains(target));
        unnamed.fold(filter, |filter, target| {
            let always = Directive::from_str(&format!("{target}=info"));
            filter.add_directive(always.expect("it is a directive"))
        })
    }
}

impl Format {
    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Text => false,
            Self::Json => true,
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

impl FromStr for Filter {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        EnvFilter::builder().parse(text).map(|_| Self(String::from(text)))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, info_span, warn};

    use super::{repeats::tests::Written, *};

    #[test]
    fn a_filter_or_format_that_means_nothing_is_a_mistake() {
        let source = Source::from([("filter", "info,=,="), ("format", "xml")]);
        assert_eq!(source.load::<Telemetry>().unwrap_err().keys(), ["filter", "format"]);
    }

    #[test]
    fn text_is_for_terminals_unless_asked_for() {
        for (word, on_terminal, otherwise) in
            [("auto", false, true), ("text", false, false), ("json", true, true)]
        {
            let format: Format = word.parse().unwrap();
            assert_eq!((format.is_json(true), format.is_json(false)), (on_terminal, otherwise));
        }
    }

    #[test]
    fn what_somebody_did_is_written_unless_the_filter_names_it() {
        for (text, directive) in
            [("warn", "fanfare::audit=info"), ("warn,fanfare::audit=off", "fanfare::audit=off")]
        {
            let filter: Filter = text.parse().unwrap();
            let shown = filter.built().to_string();
            assert!(shown.contains(directive) && shown.contains("warn"), "{shown}");
            assert_eq!(shown.matches(AUDIT).count(), 1, "{shown}");
        }
    }

    #[test]
    fn at_a_higher_level_it_is_told_what_was_left_out_and_lines_keep_the_ids_of_their_request() {
        let (written, repeats) = (Written::default(), Arc::<Repeats>::default());
        let (writer, sparing) = (written.clone(), Arc::clone(&repeats));
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).json();
        let lines = lines.map_event_format(|format| Sparing::new(format, sparing));
        let filter: Filter = "warn".parse().unwrap();
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter.built()));
        tracing::subscriber::with_default(subscriber, || {
            info!("nobody asked");
            for number in 0..100 {
                warn!(number, "the same");
            }
            watch::tell_left_out(&repeats);
            let request = info_span!(target: requests::TARGET, "request", trace_id = "0af7");
            request.in_scope(|| warn!("a request failed"));
        });
        let text = written.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 20 + 2, "{text}");
        assert!(lines[20].contains("lines were left out") && lines[20].contains(":80"), "{text}");
        assert!(lines[21].contains("a request failed") && lines[21].contains("0af7"), "{text}");
    }

    #[test]
    fn a_level_with_exceptions_by_module_is_a_filter() {
        let source = Source::from([("filter", "warn,fanfare_dispatcher=debug")]);
        let telemetry: Telemetry = source.load().unwrap();
        assert_eq!(telemetry.filter.to_string(), "warn,fanfare_dispatcher=debug");
        assert_eq!(Source::default().load(), Ok(Telemetry::default()));
    }
}
