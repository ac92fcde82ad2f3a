//! What the process says about itself, on standard error.

use std::{fmt, io, io::IsTerminal as _, str::FromStr};

use fanfare_domain::settings::{Settings, Source};
use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};

/// How the process logs: section `telemetry` of a service's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// Which events are written: a level, and exceptions by module.
    pub filter: Filter,
    /// How they are written.
    pub format: Format,
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
        }
    }
}

/// Level `info`, format `auto`.
impl Default for Telemetry {
    fn default() -> Self {
        Self { filter: Filter(String::from("info")), format: Format::default() }
    }
}

/// Sets up logging for the whole process. Once: a second call is an error and changes nothing.
pub fn init(telemetry: &Telemetry) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = EnvFilter::builder().parse_lossy(&telemetry.filter.0);
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let terminal = io::stderr().is_terminal();
    let done = if telemetry.format.is_json(terminal) {
        events.json().finish().try_init()
    } else {
        events.with_ansi(terminal).finish().try_init()
    };
    done.map_err(TelemetryError::AlreadySetUp)
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
    use super::*;

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
    fn a_level_with_exceptions_by_module_is_a_filter() {
        let source = Source::from([("filter", "warn,fanfare_dispatcher=debug")]);
        let telemetry: Telemetry = source.load().unwrap();
        assert_eq!(telemetry.filter.to_string(), "warn,fanfare_dispatcher=debug");
        assert_eq!(Source::default().load(), Ok(Telemetry::default()));
    }
}
