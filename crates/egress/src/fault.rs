//! From an error of the HTTP client to the fault that is recorded.
//!
//! By the types in its chain of causes, never by their text. The chain is walked by hand because an
//! I/O error's `source` skips the very error that it wraps.

use std::{
    error::Error,
    io::{self, ErrorKind},
    iter,
    time::Duration,
};

use fanfare_domain::Fault;
use rustls::CertificateError;

use crate::{Failure, guard::Refusal};

type Cause = dyn Error + 'static;

/// Returns the fault of a connection that was not made because we do not want it.
pub(crate) fn refused(refusal: &Refusal) -> Failure {
    let fault = match refusal {
        Refusal::Forbidden(_) | Refusal::NameForbidden | Refusal::Undeclared => {
            Fault::AddressForbidden
        }
        Refusal::Lookup(_) => Fault::DnsFailed,
        Refusal::NoHost | Refusal::Withdrawn => Fault::RequestInvalid,
    };
    Failure::new(fault, refusal.to_string())
}

/// Tells whether the request was withdrawn when its connection was made, and not sent.
pub(crate) fn is_withdrawn(error: &reqwest::Error) -> bool {
    find::<Refusal>(error) == Some(&Refusal::Withdrawn)
}

/// Returns the fault that the error stands for.
pub(crate) fn classify(error: &reqwest::Error, timeout_connect: Duration) -> Failure {
    if let Some(refusal) = find::<Refusal>(error) {
        return refused(refusal);
    }
    if let Some(error) = find::<rustls::Error>(error) {
        return tls(error);
    }
    if error.is_builder() {
        return Failure::new(Fault::RequestInvalid, "the request could not be built");
    }
    if let Some(error) = find::<h2::Error>(error) {
        return http2(error);
    }
    if error.is_connect() {
        return connect(error, timeout_connect);
    }
    match find::<hyper::Error>(error) {
        Some(error) if error.is_parse() => {
            Failure::new(Fault::ProtocolError, "the answer is not HTTP, or its head is too large")
        }
        Some(error) if error.is_user() => {
            Failure::new(Fault::RequestInvalid, "the request could not be sent as it is")
        }
        Some(error) if error.is_timeout() => {
            Failure::new(Fault::ConnectionLost, "the connection went silent")
        }
        Some(_) | None => Failure::new(Fault::ConnectionLost, lost(error)),
    }
}

/// No connection: by TCP, or by what is under the TLS handshake.
fn connect(error: &reqwest::Error, timeout_connect: Duration) -> Failure {
    // Errors of TCP come as they are, those of a handshake in another I/O error.
    let in_handshake = causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|outer| outer.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<io::Error>));
    if in_handshake {
        return Failure::new(Fault::TlsFailed, "the connection broke during the TLS handshake");
    }
    if error.is_timeout() {
        let detail = format!("no connection within {timeout_connect:?}");
        return Failure::new(Fault::ConnectFailed, detail);
    }
    let detail = match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionRefused) => "the connection was refused",
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "the host is unreachable"
        }
        Some(_) | None => "no connection could be made",
    };
    Failure::new(Fault::ConnectFailed, detail)
}

/// Says how a connection ended that was there.
fn lost(error: &reqwest::Error) -> &'static str {
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(ErrorKind::ConnectionReset) => "the connection was reset before the answer",
        Some(ErrorKind::TimedOut) => "the connection went silent",
        Some(_) | None => "the connection was closed before the answer",
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours, and grows")]
fn tls(error: &rustls::Error) -> Failure {
    match error {
        rustls::Error::InvalidCertificate(error) => {
            Failure::new(Fault::CertificateInvalid, certificate(error))
        }
        rustls::Error::AlertReceived(alert) => Failure::new(
            Fault::TlsFailed,
            format!("the endpoint ended TLS with the alert {alert:?}"),
        ),
        rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => {
            Failure::new(Fault::TlsFailed, "the endpoint speaks no version or cipher that we do")
        }
        rustls::Error::InvalidMessage(_) => {
            Failure::new(Fault::TlsFailed, "the endpoint does not speak TLS on this port")
        }
        _ => Failure::new(Fault::TlsFailed, "the TLS handshake failed"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours, and grows")]
fn certificate(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "the certificate has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "the certificate is not valid yet",
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "the certificate is for another name"
        }
        E::UnknownIssuer => "the certificate is not from an authority that we trust",
        E::Revoked => "the certificate was revoked",
        E::BadSignature => "the certificate's signature is wrong",
        _ => "the certificate is not valid",
    }
}

fn http2(error: &h2::Error) -> Failure {
    if error.is_io() {
        return Failure::new(Fault::ConnectionLost, "the connection was lost before the answer");
    }
    let reason =
        error.reason().map_or_else(|| String::from("no reason given"), |it| it.to_string());
    let fault = match error.reason() {
        Some(
            h2::Reason::NO_ERROR
            | h2::Reason::REFUSED_STREAM
            | h2::Reason::CANCEL
            | h2::Reason::INTERNAL_ERROR
            | h2::Reason::ENHANCE_YOUR_CALM,
        ) if error.is_remote() => Fault::ConnectionLost,
        Some(_) | None => Fault::ProtocolError,
    };
    Failure::new(fault, format!("the HTTP/2 exchange was ended: {reason}"))
}

/// Returns the first cause of that type.
fn find<E: Error + 'static>(error: &Cause) -> Option<&E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// Returns the error and all its causes, outermost first.
fn causes(error: &Cause) -> impl Iterator<Item = &Cause> {
    iter::successors(Some(error), |error| next_cause(*error))
}

fn next_cause(error: &Cause) -> Option<&Cause> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &Cause),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests;
