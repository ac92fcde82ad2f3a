//! Requests that must never arrive, and those that the operator allows.

use std::sync::Arc;

use fanfare_egress::Protocol;
use fanfare_testkit::receiver::Receiver;

use super::*;

fn allowing(rules: &str) -> Client {
    Client::new(&Settings { addresses: rules.parse().unwrap(), ..Settings::default() }).unwrap()
}

#[tokio::test]
async fn nothing_reaches_a_forbidden_address_however_it_is_spelt() {
    let receiver = Receiver::start().await.unwrap();
    let client = allowing("");
    let port = receiver.address().port();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "[::]",
        "localhost",
        "LOCALHOST",
    ];
    for host in hosts {
        let answer = post(&client, &format!("http://{host}:{port}/")).await;
        assert_eq!(fault(&answer), Fault::AddressForbidden, "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn the_reason_does_not_tell_the_address() {
    let receiver = Receiver::start().await.unwrap();
    let answer = post(&allowing(""), &receiver.url_as("localhost", "/?secret")).await;
    let failure = answer.result.unwrap_err();
    assert!(!failure.detail.contains("127.0.0.1") && !failure.detail.contains("secret"));
    assert!(!failure.detail.is_empty());
}

#[tokio::test]
async fn an_address_is_allowed_with_its_port_by_number_and_by_name() {
    let allowed = Receiver::start().await.unwrap();
    let other = Receiver::start().await.unwrap();
    let port = allowed.address().port();
    let client = allowing(&format!("127.0.0.1:{port}, [::1]:{port}"));
    for host in ["127.0.0.1", "localhost"] {
        let answer = post(&client, &allowed.url_as(host, "/")).await;
        assert_eq!(answer.status(), Some(200), "{host}: {answer:?}");
        let answer = post(&client, &other.url_as(host, "/")).await;
        assert_eq!(fault(&answer), Fault::AddressForbidden, "{host}");
    }
    assert_eq!((allowed.count(), other.connections()), (2, 0));
}

#[tokio::test]
async fn the_deny_list_is_heeded() {
    let receiver = Receiver::start().await.unwrap();
    let client = allowing("127.0.0.0/8, ::1, !127.0.0.1");
    for host in ["127.0.0.1", "localhost"] {
        let answer = post(&client, &receiver.url_as(host, "/")).await;
        assert_eq!(fault(&answer), Fault::AddressForbidden, "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_source_address_is_used() {
    let receiver = Receiver::start().await.unwrap();
    let source = Some("127.0.0.7".parse().unwrap());
    let client = Client::new(&Settings { source, ..settings() }).unwrap();
    assert_eq!(post(&client, &receiver.url("/")).await.status(), Some(200));
    assert_eq!(Some(receiver.requests()[0].peer.ip()), source);
}

#[tokio::test]
async fn a_proxy_is_used_but_not_for_forbidden_addresses() {
    let proxy = Receiver::start().await.unwrap();
    let url = Some(proxy.url("/").parse().unwrap());
    let client = Client::new(&Settings { proxy: url, ..Settings::default() }).unwrap();
    for text in ["http://10.0.0.1/hook", "http://localhost/hook", "http://127.0.0.1:1/hook"] {
        assert_eq!(fault(&post(&client, text).await), Fault::AddressForbidden, "{text}");
    }
    assert_eq!(proxy.connections(), 0);
    assert_eq!(post(&client, "http://1.1.1.1/hook").await.status(), Some(200));
    let requests = proxy.requests();
    assert_eq!(requests[0].header("host"), Some("1.1.1.1"));
}

#[tokio::test]
async fn a_request_that_is_not_wanted_any_more_is_not_sent_on_a_connection_that_is_there() {
    for protocol in [Protocol::Negotiated, Protocol::Http2] {
        let receiver = Receiver::start().await.unwrap();
        let client = Client::new(&Settings { protocol, ..settings() }).unwrap();
        let url = receiver.url("/");
        assert_eq!(post(&client, &url).await.status(), Some(200));
        let sent = client.send_while(request(&url), Arc::new(|| false)).await;
        assert!(sent.is_none(), "{protocol:?}: {sent:?}");
        // What comes last has arrived, and so would have what came before.
        let sent = client.send_while(request(&url), Arc::new(|| true)).await;
        assert_eq!(sent.and_then(|answer| answer.status()), Some(200), "{protocol:?}");
        // Over HTTP/2 the head may have gone, and is taken back by a reset of its stream.
        let requests = receiver.requests();
        let whole = requests.iter().filter(|seen| seen.body == "{\"a\":1}").count();
        assert_eq!(whole, 2, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_request_has_its_length_and_its_body() {
    for protocol in [Protocol::Negotiated, Protocol::Http2] {
        let receiver = Receiver::start().await.unwrap();
        let client = Client::new(&Settings { protocol, ..settings() }).unwrap();
        assert_eq!(post(&client, &receiver.url("/")).await.status(), Some(200));
        let requests = receiver.requests();
        let [request] = requests.as_slice() else { unreachable!("one request") };
        assert_eq!(request.header("content-length"), Some("7"), "{protocol:?}");
        assert_eq!(request.header("transfer-encoding"), None, "{protocol:?}");
        assert_eq!(request.body, "{\"a\":1}", "{protocol:?}");
    }
}
