//! Whose traces requests continue.
//!
//! Whoever names a trace decides in which one our spans lie, and by its flag whether they are exported:
//! that is for those who have a key. A tenant's requests continue its traces, but whether these are
//! exported is the operator's to decide, as if nobody had said anything. A trace that does not count is
//! not lost: the request's span has a link to it.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use fanfare_domain::TraceContext;

use crate::{app::App, caller::Standing};

/// Whose traces requests continue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceTrust {
    /// Nobody's.
    Nobody,
    /// Those of callers with an operator's key.
    Operators,
    /// Also those of callers with a tenant's key or a portal link.
    #[default]
    Callers,
    /// Everybody's, whole: where a gateway in front has judged that.
    Everybody,
}

/// Text that does not say whose traces requests continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of nobody, operators, callers, everybody")]
pub struct MalformedTraceTrust;

/// How much of what a caller says of its trace counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    Nothing,
    /// Which trace it is, and in which span.
    Place,
    /// And whether it is sampled.
    All,
}

impl FromStr for TraceTrust {
    type Err = MalformedTraceTrust;

    fn from_str(text: &str) -> Result<Self, MalformedTraceTrust> {
        match text {
            "nobody" => Ok(Self::Nobody),
            "operators" => Ok(Self::Operators),
            "callers" => Ok(Self::Callers),
            "everybody" => Ok(Self::Everybody),
            _ => Err(MalformedTraceTrust),
        }
    }
}

impl TraceTrust {
    fn judge(self, standing: Standing) -> Counts {
        match (self, standing) {
            (Self::Everybody, _) | (Self::Callers | Self::Operators, Standing::Operator) => {
                Counts::All
            }
            (Self::Callers, Standing::Tenant) => Counts::Place,
            (Self::Nobody, _)
            | (Self::Operators, Standing::Tenant)
            | (Self::Operators | Self::Callers, Standing::Nobody) => Counts::Nothing,
        }
    }
}

/// Returns the trace that a request belongs to, as its headers say.
pub(crate) fn trace_of(headers: &HeaderMap) -> TraceContext {
    // What is no text is malformed, as "?" is.
    let lines =
        |name: HeaderName| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    let parent = lines(HeaderName::from_static("traceparent"));
    TraceContext::from_lines(parent, lines(HeaderName::from_static("tracestate")))
}

/// The trace that a request named; none or one of them is not empty.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// As much of it as counts: the request's span belongs to it.
    pub(crate) continued: TraceContext,
    /// If it does not count: the request's span has a link to it.
    pub(crate) linked: TraceContext,
}

/// Judges the trace that a request names.
pub(crate) fn judge(app: &App, headers: &HeaderMap) -> Named {
    let said = trace_of(headers);
    if said.is_empty() {
        return Named::default();
    }
    match app.trace_trust.judge(Standing::of(headers, app)) {
        Counts::Nothing => Named { linked: said, ..Named::default() },
        Counts::Place => Named { continued: app.traces.decide_on(said), ..Named::default() },
        Counts::All => Named { continued: said, ..Named::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_depends_on_who_says_it() {
        use Counts::{All, Nothing, Place};
        for (trust, counts) in [
            ("nobody", [Nothing, Nothing, Nothing]),
            ("operators", [Nothing, Nothing, All]),
            ("callers", [Nothing, Place, All]),
            ("everybody", [All, All, All]),
        ] {
            let trust: TraceTrust = trust.parse().unwrap();
            let standings = [Standing::Nobody, Standing::Tenant, Standing::Operator];
            assert_eq!(standings.map(|standing| trust.judge(standing)), counts, "{trust:?}");
        }
        assert_eq!("always".parse::<TraceTrust>(), Err(MalformedTraceTrust));
    }

    #[test]
    fn lines_of_one_header_belong_together() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        headers.append("traceparent", parent.parse().unwrap());
        headers.append("tracestate", "a=b".parse().unwrap());
        headers.append("tracestate", "c=d".parse().unwrap());
        assert_eq!(trace_of(&headers).tracestate, "a=b,c=d");
        headers.append("traceparent", parent.parse().unwrap());
        assert!(trace_of(&headers).is_empty());
    }
}
