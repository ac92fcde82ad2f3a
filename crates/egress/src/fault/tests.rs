//! Causes that no test server can easily be made to give.

use rustls::{AlertDescription, InvalidMessage, PeerIncompatible, PeerMisbehaved};

use super::*;
use crate::resolve::LookupError;

#[test]
fn every_refusal_has_its_fault() {
    let table = [
        (Refusal::Undeclared, Fault::AddressForbidden),
        (Refusal::NameForbidden, Fault::AddressForbidden),
        (Refusal::Lookup(LookupError::TimedOut), Fault::DnsFailed),
        (Refusal::Lookup(LookupError::TooMany), Fault::DnsFailed),
        (Refusal::NoHost, Fault::RequestInvalid),
    ];
    for (refusal, fault) in table {
        assert_eq!(refused(&refusal).fault, fault, "{refusal:?}");
    }
}

#[test]
fn certificates_are_told_from_the_rest_of_tls() {
    let certificate = |error| tls(&rustls::Error::InvalidCertificate(error));
    let table = [
        CertificateError::Expired,
        CertificateError::NotValidYet,
        CertificateError::NotValidForName,
        CertificateError::UnknownIssuer,
        CertificateError::Revoked,
        CertificateError::BadSignature,
    ];
    let mut details: Vec<_> = table.into_iter().map(|error| certificate(error).detail).collect();
    details.sort();
    details.dedup();
    assert_eq!(details.len(), 6, "each has words of its own");
    let other = certificate(CertificateError::BadEncoding);
    assert_eq!(other.fault, Fault::CertificateInvalid);

    let table = [
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
        rustls::Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
        rustls::Error::DecryptError,
    ];
    for error in table {
        assert_eq!(tls(&error).fault, Fault::TlsFailed, "{error:?}");
    }
}

#[test]
fn what_we_end_ourselves_in_http2_is_the_endpoints_breach() {
    let error = h2::Error::from(h2::Reason::FLOW_CONTROL_ERROR);
    assert_eq!(http2(&error).fault, Fault::ProtocolError);
}

#[test]
fn a_cause_inside_an_io_error_is_found() {
    let inner = io::Error::new(ErrorKind::InvalidData, rustls::Error::DecryptError);
    let outer = io::Error::other(inner);
    assert_eq!(find::<rustls::Error>(&outer), Some(&rustls::Error::DecryptError));
    assert!(find::<Refusal>(&outer).is_none());
}
