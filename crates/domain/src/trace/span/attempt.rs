//! The span of an attempt.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{Kind, Link, Span, Told, Value, span};
use crate::{
    Conclusion, Outcome, SpanId, Timestamp, TraceContext,
    fact::{AttemptMade, Timing},
    trace::Place,
};

/// When the parts of a request were done, from its beginning on; `None` for what there was not, or
/// is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// The name was resolved.
    pub dns: Option<Duration>,
    /// There was a TCP connection, on which TLS began; through a proxy, to it.
    pub tcp: Option<Duration>,
    /// There was a connection: TCP, and TLS if it is spoken.
    pub connected: Option<Duration>,
    /// The request was handed to the connection.
    pub sent: Option<Duration>,
    /// The head of the answer was there.
    pub first_byte: Option<Duration>,
    /// The body of the answer was read.
    pub body: Option<Duration>,
}

/// How endpoints' URLs begin, and the port that they mean without saying so.
const SCHEMES: [(&str, u16); 2] = [("https://", 443), ("http://", 80)];

impl Moments {
    /// Returns what goes on record of it.
    pub fn timing(&self) -> Timing {
        let own = self.own();
        Timing { connect: own.connected, first_byte: own.first_byte }
    }

    /// Leaves out a connection that was there later than the request was sent, or never: it is not the
    /// one that it went over. Another one had become free meanwhile.
    fn own(&self) -> Self {
        let is_own = |sent| self.connected.is_some_and(|connected| connected <= sent);
        if self.sent.is_none_or(is_own) {
            return *self;
        }
        Self { dns: None, tcp: None, connected: None, ..*self }
    }

    /// Returns the same, of a request that was preceded by something else for so long.
    #[must_use]
    pub fn later(self, by: Duration) -> Self {
        let later = |at: Option<Duration>| at.map(|at| at.saturating_add(by));
        Self {
            dns: later(self.dns),
            tcp: later(self.tcp),
            connected: later(self.connected),
            sent: later(self.sent),
            first_byte: later(self.first_byte),
            body: later(self.body),
        }
    }

    fn events(&self, start: Timestamp) -> Vec<(&'static str, Timestamp)> {
        let own = self.own();
        let (connect, tls) = match own.tcp {
            Some(tcp) => (Some(tcp), own.connected),
            None => (own.connected, None),
        };
        let parts = [
            ("dns", own.dns),
            ("connect", connect),
            ("tls", tls),
            ("request sent", own.sent),
            ("first byte", own.first_byte),
            ("body", own.body),
        ];
        let event =
            |(name, after): (_, Option<Duration>)| Some((name, start.saturating_add(after?)));
        parts.into_iter().filter_map(event).collect()
    }
}

/// An attempt. `conclusion` is how its delivery ended with it, if it did.
pub fn attempt(
    made: &AttemptMade,
    context: &TraceContext,
    conclusion: Option<Conclusion>,
    moments: &Moments,
) -> Span {
    let delivery = &made.delivery;
    let told = Told::of_delivery(delivery, context);
    let place: Place = told.place();
    let ids = (SpanId::attempt(delivery.id, made.attempt), Some(SpanId::delivery(delivery.id)));
    let times = (made.started_at, made.started_at.saturating_add(made.duration));
    let mut span = span(&told, &place, ids, times);
    (span.name, span.kind) = ("POST", Kind::Client);
    span.attributes.extend([
        ("fanfare.delivery.id", Value::Text(delivery.id.to_string())),
        ("fanfare.endpoint.id", Value::Text(delivery.endpoint.to_string())),
        ("fanfare.attempt", Value::Number(made.attempt.into())),
        ("http.request.method", Value::Name("POST")),
    ]);
    span.attributes.extend(url(&made.url));
    if let Some(status) = made.outcome.status() {
        span.attributes.push(("http.response.status_code", Value::Number(status.into())));
    }
    if made.attempt > 1 {
        let before = SpanId::attempt(delivery.id, made.attempt - 1);
        span.links.push(Link { trace: place.trace, span: before, relation: "attempt_before" });
        span.attributes
            .push(("http.request.resend_count", Value::Number((made.attempt - 1).into())));
    }
    if let Some(batch) = made.batch {
        span.attributes.push(("fanfare.batch.id", Value::Text(batch.id.to_string())));
        span.attributes.push(("fanfare.batch.size", Value::Number(batch.size.into())));
    }
    if let Some(conclusion) = conclusion {
        span.attributes.push(("fanfare.conclusion", Value::Name(conclusion.as_str())));
    }
    let error = error(&made.outcome);
    span.attributes.push((
        "fanfare.outcome",
        Value::Name(match made.outcome {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Refused { .. } => "refused",
            Outcome::Failed(_) => "failed",
        }),
    ));
    if let Some(error) = &error {
        span.attributes.push(("error.type", Value::Text(error.clone().into_owned())));
    }
    // The conventions want no words about what the answer's status says.
    let has_status = made.outcome.status().is_some();
    span.error = error.map(|error| if has_status { Cow::Borrowed("") } else { error });
    span.events = moments.events(made.started_at);
    span
}

/// An attempt that is no delivery's: a trial, made at once for a request to us, below whose span it is.
pub fn trial(made: &AttemptMade, context: &TraceContext, moments: &Moments) -> Span {
    let place = Told::of_delivery(&made.delivery, context).place();
    let span = attempt(made, context, None, moments);
    Span { parent: place.parent, parent_is_remote: true, ..span }
}

fn error(outcome: &Outcome) -> Option<Cow<'static, str>> {
    match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Refused { status, .. } => Some(Cow::Owned(status.to_string())),
        Outcome::Failed(fault) => Some(Cow::Borrowed(fault.as_str())),
    }
}

fn url(url: &Arc<str>) -> Vec<(&'static str, Value)> {
    let Some((shown, host, port)) = address(url) else { return Vec::new() };
    vec![
        ("url.full", Value::Text(shown)),
        ("server.address", Value::Text(String::from(host))),
        ("server.port", Value::Number(port.into())),
    ]
}

/// Takes a URL apart: what may be shown of it – no credentials, no query, no fragment – its host, and
/// its port. `None` for what is no URL of an endpoint.
pub fn address(url: &str) -> Option<(String, &str, u16)> {
    let scheme =
        SCHEMES.iter().find_map(|(prefix, port)| Some((*prefix, *port, url.strip_prefix(prefix)?)));
    let (prefix, default, rest) = scheme?;
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let place = authority.rsplit('@').next()?;
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an IPv6 address stand in brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        Some(_) | None => (place, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((format!("{prefix}{place}/{path}"), host, port)).filter(|_| !host.is_empty())
}
