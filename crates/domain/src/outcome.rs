//! What came of one attempt.
//!
//! An endpoint that answers 500 is not an error of ours: it is a fact to record.
//! So an attempt returns an [`Outcome`], and `Err` is kept for what stops us from
//! finding one out.

use std::fmt;

use crate::Timestamp;

/// The result of one HTTP request to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered with a status that the profile counts as success.
    Accepted {
        /// The status that it answered with.
        status: u16,
    },
    /// The endpoint answered with any other status.
    Refused {
        /// The status that it answered with.
        status: u16,
        /// The earliest time for another attempt that it asked for (`Retry-After`, RFC 9110, section 10.2.3).
        retry_after: Option<Timestamp>,
    },
    /// No complete answer head arrived, or the request could not be made.
    Failed(Fault),
}

/// Why no answer arrived. Each has a stable name, see [`Fault::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The deadline passed before the answer's head was complete.
    TimedOut,
    /// The host's name could not be resolved.
    DnsFailed,
    /// No connection: refused, unreachable, or not made within the connect time-out.
    ConnectFailed,
    /// The TLS handshake failed for a reason other than the certificate.
    TlsFailed,
    /// The endpoint's certificate is not one that we trust for its name and this time.
    CertificateInvalid,
    /// The connection broke before the answer's head was complete.
    ConnectionLost,
    /// The answer was not HTTP, or went beyond our limits on heads.
    ProtocolError,
    /// Our own policy forbids the address, so that nothing was sent.
    AddressForbidden,
    /// The request could not be built from the event, the profile and the endpoint.
    RequestInvalid,
    /// What shows the endpoint who we are could not be had, so that nothing was sent to it; or it
    /// was kept from before, and the endpoint does not take it any more.
    AuthenticationFailed,
}

impl Fault {
    /// Every fault, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::TimedOut,
        Self::DnsFailed,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::CertificateInvalid,
        Self::ConnectionLost,
        Self::ProtocolError,
        Self::AddressForbidden,
        Self::RequestInvalid,
        Self::AuthenticationFailed,
    ];

    /// Returns the stable name, as it stands in the API, the journal and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::DnsFailed => "dns_failed",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::CertificateInvalid => "certificate_invalid",
            Self::ConnectionLost => "connection_lost",
            Self::ProtocolError => "protocol_error",
            Self::AddressForbidden => "address_forbidden",
            Self::RequestInvalid => "request_invalid",
            Self::AuthenticationFailed => "authentication_failed",
        }
    }

    /// Returns the fault of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.as_str() == name)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Outcome {
    /// Returns the status that the endpoint answered with, if it answered.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Accepted { status } | Self::Refused { status, .. } => Some(*status),
            Self::Failed(_) => None,
        }
    }
}
