//! Endpoints with authorities of their own, and those that want to see a certificate.

use std::sync::Arc;

use fanfare_domain::{EndpointId, Timestamp};
use fanfare_egress::{Identity, Whose};
use fanfare_testkit::receiver::{Certificate, ClientIdentity, Receiver, Transport};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::*;

fn ders(pem: &str) -> Vec<Vec<u8>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.map(|certificate| certificate.unwrap().to_vec()).collect()
}

fn whose(number: u8) -> Whose {
    let endpoint = EndpointId::new(Timestamp::EPOCH, [number; 10]);
    Whose { tenant: "acme".parse().unwrap(), endpoint, revision: 1 }
}

/// The identity of an endpoint that has its own authority, and shows a certificate.
fn identity(number: u8, authority: &str, client: Option<&ClientIdentity>) -> Arc<Identity> {
    let client = client.map(|client| (ders(&client.certificate), client.key.as_str()));
    Arc::new(Identity::new(whose(number), ders(authority), client).unwrap())
}

async fn post_as(client: &Client, url: &str, identity: &Arc<Identity>) -> Answer {
    client.send(Request { identity: Some(Arc::clone(identity)), ..request(url) }).await
}

#[tokio::test]
async fn an_authority_of_an_endpoints_own_is_trusted_for_it_alone() {
    let receiver = Receiver::start_with(Transport::Tls(Certificate::Valid)).await.unwrap();
    let (client, url) = (client(), receiver.url("/"));
    let own = identity(1, receiver.authority().unwrap(), None);
    for _ in 0..2 {
        assert_eq!(post_as(&client, &url, &own).await.status(), Some(200));
    }
    assert_eq!(receiver.connections(), 1, "connections are kept");
    assert_eq!(fault(&post(&client, &url).await), Fault::CertificateInvalid);
    let other = identity(2, "", None);
    assert_eq!(fault(&post_as(&client, &url, &other).await), Fault::CertificateInvalid);
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn who_wants_to_see_a_certificate_is_shown_the_endpoints_own() {
    let receiver = Receiver::start_with(Transport::Mutual(Certificate::Valid)).await.unwrap();
    let (client, url) = (client(), receiver.url("/"));
    let authority = receiver.authority().unwrap();
    let shown = identity(1, authority, receiver.client());
    assert_eq!(post_as(&client, &url, &shown).await.status(), Some(200));

    // Nobody else is let in on the connection that is there, nor without a certificate.
    let without = identity(2, authority, None);
    let stranger = ClientIdentity::self_signed(Certificate::ForClients).unwrap();
    let stranger = identity(3, authority, Some(&stranger));
    for refused in [&without, &stranger] {
        let answer = post_as(&client, &url, refused).await;
        let fault = fault(&answer);
        let expected = [Fault::TlsFailed, Fault::ConnectionLost, Fault::ConnectFailed];
        assert!(expected.contains(&fault), "{answer:?}");
    }
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn the_guard_holds_for_endpoints_with_their_own_tls() {
    let receiver = Receiver::start_with(Transport::Mutual(Certificate::Valid)).await.unwrap();
    let strict = Client::new(&Settings::default()).unwrap();
    let shown = identity(1, receiver.authority().unwrap(), receiver.client());
    for host in ["127.0.0.1", "localhost"] {
        let answer = post_as(&strict, &receiver.url_as(host, "/"), &shown).await;
        assert_eq!(fault(&answer), Fault::AddressForbidden, "{host}");
    }
    assert_eq!((receiver.count(), receiver.connections()), (0, 0));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let [one, other] =
        [0, 1].map(|_| ClientIdentity::self_signed(Certificate::ForClients).unwrap());
    let mixed = (ders(&one.certificate), other.key.as_str());
    assert!(Identity::new(whose(1), [], Some(mixed)).is_err());
    let own = (ders(&one.certificate), one.key.as_str());
    assert!(Identity::new(whose(1), [], Some(own)).is_ok());
}

#[test]
fn the_source_is_an_address_of_this_machine() {
    let source = Some("127.0.0.1".parse().unwrap());
    assert!(Client::new(&Settings { source, ..settings() }).is_ok());
    let source = Some("192.0.2.7".parse().unwrap());
    let refused = Client::new(&Settings { source, ..settings() }).unwrap_err();
    assert!(refused.to_string().contains("192.0.2.7"), "{refused}");
}

#[tokio::test]
async fn requests_come_from_the_source() {
    let receiver = Receiver::start().await.unwrap();
    let source: std::net::IpAddr = "127.0.0.9".parse().unwrap();
    let client = Client::new(&Settings { source: Some(source), ..settings() }).unwrap();
    assert_eq!(post(&client, &receiver.url("/")).await.status(), Some(200));
    assert_eq!(receiver.requests()[0].peer.ip(), source);
}
