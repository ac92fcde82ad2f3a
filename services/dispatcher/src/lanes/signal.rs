//! What an attempt's outcome says about its endpoint.

use std::time::Duration;

use fanfare_domain::{Fault, Outcome, Timestamp, retry::StatusSet};

/// Statuses by which an endpoint says that it has too much to do.
const CONGESTED: [u16; 4] = [429, 502, 503, 504];

/// Statuses with which a `Retry-After` is about the endpoint, and not about one delivery.
const QUIET: [u16; 2] = [429, 503];

/// What was learnt about an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signal {
    /// Whether the endpoint works; `None` if nothing was sent, or the answer does not say.
    pub(crate) good: Option<bool>,
    /// Whether it has too much to do.
    pub(crate) congested: bool,
    /// Until when it asked to be left alone.
    pub(crate) quiet_until: Option<Timestamp>,
    /// How long the request was in flight; `None` if nothing was sent.
    pub(crate) time: Option<Duration>,
}

impl Signal {
    /// Reads an outcome. `slow_down` are the profile's own statuses of congestion.
    pub(crate) fn of(outcome: &Outcome, time: Duration, slow_down: &StatusSet) -> Self {
        let sent = Self { time: Some(time), ..Self::default() };
        match outcome {
            Outcome::Accepted { .. } => Self { good: Some(true), ..sent },
            Outcome::Refused { status, .. } => Self {
                // Too many requests are not a failure: the endpoint works.
                good: (*status != 429).then_some(false),
                congested: CONGESTED.contains(status) || slow_down.contains(*status),
                quiet_until: quiet_until(outcome),
                ..sent
            },
            Outcome::Failed(Fault::TimedOut) => Self { good: Some(false), congested: true, ..sent },
            // Mistakes of the configuration: nothing was sent.
            Outcome::Failed(Fault::AddressForbidden | Fault::RequestInvalid) => Self::default(),
            Outcome::Failed(
                Fault::DnsFailed
                | Fault::ConnectFailed
                | Fault::TlsFailed
                | Fault::CertificateInvalid
                | Fault::ConnectionLost
                | Fault::ProtocolError
                // Whoever gives out tokens is to be spared too.
                | Fault::AuthenticationFailed,
            ) => Self { good: Some(false), ..sent },
        }
    }
}

/// Until when an endpoint asks to be left alone by an answer.
pub(crate) fn quiet_until(outcome: &Outcome) -> Option<Timestamp> {
    match outcome {
        Outcome::Refused { status, retry_after } => retry_after.filter(|_| QUIET.contains(status)),
        Outcome::Accepted { .. } | Outcome::Failed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(outcome: &Outcome) -> (Option<bool>, bool, bool) {
        let signal = Signal::of(outcome, Duration::from_millis(5), &StatusSet::of(&[420]));
        (signal.good, signal.congested, signal.quiet_until.is_some())
    }

    #[test]
    fn outcomes_are_told_apart() {
        let refused = |status, asked: bool| Outcome::Refused {
            status,
            retry_after: asked.then_some(Timestamp::from_millis(1)),
        };
        for (outcome, expected) in [
            (Outcome::Accepted { status: 200 }, (Some(true), false, false)),
            (refused(500, true), (Some(false), false, false)),
            (refused(404, false), (Some(false), false, false)),
            (refused(429, true), (None, true, true)),
            (refused(503, true), (Some(false), true, true)),
            (refused(502, true), (Some(false), true, false)),
            (refused(504, false), (Some(false), true, false)),
            (refused(420, false), (Some(false), true, false)),
            (Outcome::Failed(Fault::TimedOut), (Some(false), true, false)),
            (Outcome::Failed(Fault::ConnectFailed), (Some(false), false, false)),
            (Outcome::Failed(Fault::AddressForbidden), (None, false, false)),
        ] {
            assert_eq!(signal(&outcome), expected, "{outcome:?}");
        }
    }
}
