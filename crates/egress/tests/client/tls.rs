//! Certificates that must not be trusted, and handshakes that fail.

use fanfare_egress::ClientError;
use fanfare_testkit::receiver::{Certificate, RawReceiver, Receiver, Script, Transport};

use super::*;

fn trusting(receiver: &Receiver) -> Client {
    let roots = vec![String::from(receiver.authority().unwrap())];
    Client::new(&Settings { roots, ..settings() }).unwrap()
}

#[tokio::test]
async fn a_certificate_of_a_trusted_authority_is_accepted_for_its_names() {
    let receiver = Receiver::start_with(Transport::Tls(Certificate::Valid)).await.unwrap();
    let client = trusting(&receiver);
    for host in ["127.0.0.1", "localhost"] {
        let answer = post(&client, &receiver.url_as(host, "/")).await;
        assert_eq!(answer.status(), Some(200), "{answer:?}");
    }
    let answer = post(&client, &receiver.url_as("127.0.0.2", "/")).await;
    assert!(answer.result.is_err(), "the receiver is on another address");
}

#[tokio::test]
async fn bad_certificates_are_refused_each_with_its_reason() {
    let mut details = Vec::new();
    for kind in [Certificate::Expired, Certificate::WrongHost, Certificate::SelfSigned] {
        let receiver = Receiver::start_with(Transport::Tls(kind)).await.unwrap();
        let answer = post(&trusting(&receiver), &receiver.url("/")).await;
        let failure = answer.result.unwrap_err();
        assert_eq!(failure.fault, Fault::CertificateInvalid, "{kind:?}: {failure:?}");
        assert_eq!(receiver.count(), 0);
        details.push(failure.detail);
    }
    details.dedup();
    assert_eq!(details.len(), 3, "{details:?}");
}

#[tokio::test]
async fn weak_certificates_and_chains_that_do_not_hold_are_refused() {
    for (kind, detail) in [
        (Certificate::Sha1, "the certificate is not valid"),
        (Certificate::WeakAuthority, "the certificate's signature is wrong"),
        (Certificate::LongChain, "the certificate is not valid"),
        (Certificate::Incomplete, "the certificate is not from an authority that we trust"),
    ] {
        let receiver = Receiver::start_with(Transport::Tls(kind)).await.unwrap();
        let answer = post(&trusting(&receiver), &receiver.url("/")).await;
        let failure = answer.result.unwrap_err();
        assert_eq!(failure.fault, Fault::CertificateInvalid, "{kind:?}: {failure:?}");
        assert_eq!(failure.detail, detail, "{kind:?}");
        // Nothing was fetched that a certificate names.
        assert_eq!((receiver.count(), receiver.connections()), (0, 1), "{kind:?}");
    }
}

#[tokio::test]
async fn an_authority_that_nobody_named_is_not_trusted() {
    let receiver = Receiver::start_with(Transport::Tls(Certificate::Valid)).await.unwrap();
    let answer = post(&client(), &receiver.url("/")).await;
    assert_eq!(fault(&answer), Fault::CertificateInvalid);
    assert_eq!(receiver.count(), 0);
}

#[tokio::test]
async fn what_does_not_speak_tls_is_a_fault_of_tls() {
    let clear = Receiver::start().await.unwrap();
    let url = clear.url("/").replace("http:", "https:");
    assert_eq!(fault(&post(&client(), &url).await), Fault::TlsFailed);

    let alert = Bytes::from_static(&[21, 3, 3, 0, 2, 2, 40]);
    for script in [Script::Close, Script::Answer(Bytes::new()), Script::Answer(alert)] {
        let receiver = RawReceiver::start(script.clone()).await.unwrap();
        let answer = post(&client(), &format!("https://{}/", receiver.address())).await;
        assert_eq!(fault(&answer), Fault::TlsFailed, "{script:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_with_the_connect_time_out() {
    let receiver = RawReceiver::start(Script::Hang).await.unwrap();
    let client = Client::new(&Settings { timeout_connect: SHORT, ..settings() }).unwrap();
    let answer = post(&client, &format!("https://{}/", receiver.address())).await;
    assert_eq!(fault(&answer), Fault::ConnectFailed);
    assert!(answer.duration >= SHORT && answer.duration < PATIENCE / 2);
}

#[tokio::test]
async fn tcp_and_tls_are_told_apart() {
    let receiver = Receiver::start_with(Transport::Tls(Certificate::Valid)).await.unwrap();
    let client = trusting(&receiver);
    let parts = post(&client, &receiver.url_as("localhost", "/")).await.moments;
    let all = [parts.dns, parts.tcp, parts.connected, parts.sent, parts.first_byte, parts.body];
    assert!(all.iter().all(Option::is_some) && all.is_sorted(), "{parts:?}");
    assert!(parts.connected > parts.tcp, "{parts:?}");
    let again = post(&client, &receiver.url_as("localhost", "/")).await.moments;
    assert_eq!((again.dns, again.tcp, again.connected), (None, None, None), "it is there already");

    let clear = Receiver::start().await.unwrap();
    let parts = post(&client, &clear.url("/")).await.moments;
    assert!(parts.connected.is_some() && parts.tcp.is_none(), "{parts:?}");

    let hanging = RawReceiver::start(Script::Hang).await.unwrap();
    let client = Client::new(&Settings { timeout_connect: SHORT, ..settings() }).unwrap();
    let parts = post(&client, &format!("https://{}/", hanging.address())).await.moments;
    assert!(parts.tcp.is_some() && parts.connected.is_none(), "{parts:?}");
}

#[test]
fn roots_that_are_not_certificates_are_refused() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in ["", "not a certificate", broken] {
        let refused = Client::new(&Settings { roots: vec![text.into()], ..settings() });
        assert!(matches!(refused, Err(ClientError::Tls(_))), "{text:?}");
    }
}
