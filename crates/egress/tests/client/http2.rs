//! The second version of HTTP.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fanfare_egress::Protocol;
use fanfare_testkit::receiver::{Behaviour, Certificate, Receiver, Reply, Transport};
use futures_util::future::join_all;
use h2::Reason;
use http::Version;
use tokio::{net::TcpListener, task::JoinSet};

use super::*;

fn prior_knowledge() -> Client {
    Client::new(&Settings { protocol: Protocol::Http2, ..settings() }).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::Echo.after(Duration::from_millis(20)));
    let client = prior_knowledge();
    assert_eq!(post(&client, &receiver.url("/")).await.status(), Some(200));
    let answers = join_all((0..50).map(|_| client.send(request(&receiver.url("/"))))).await;
    assert!(answers.iter().all(|answer| &answer.body[..] == b"{\"a\":1}"));
    assert_eq!((receiver.count(), receiver.connections()), (51, 1));
    assert!(receiver.requests().iter().all(|got| got.version == Version::HTTP_2));
    assert!(receiver.in_flight_max() > 1);
}

#[tokio::test]
async fn it_is_spoken_over_tls_if_the_receiver_offers_it() {
    let both = Receiver::start_with(Transport::Tls(Certificate::Valid)).await.unwrap();
    let one = Receiver::start_with(Transport::TlsHttp1(Certificate::Valid)).await.unwrap();
    for (receiver, version) in [(&both, Version::HTTP_2), (&one, Version::HTTP_11)] {
        let roots = vec![String::from(receiver.authority().unwrap())];
        let client = Client::new(&Settings { roots, ..settings() }).unwrap();
        for _ in 0..2 {
            let answer = post(&client, &receiver.url("/")).await;
            assert_eq!(answer.result.unwrap().version, version);
        }
        assert_eq!((receiver.count(), receiver.connections()), (2, 1));
        assert_eq!(receiver.requests()[0].version, version);
    }
}

#[tokio::test]
async fn a_lost_connection_is_not_tried_again() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::ResetBeforeHead);
    let answer = post(&prior_knowledge(), &receiver.url("/")).await;
    assert_eq!(fault(&answer), Fault::ConnectionLost);
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn bodies_are_limited_as_ever() {
    let receiver = Receiver::start().await.unwrap();
    let client = prior_knowledge();
    receiver.answer(Behaviour::Endless(200));
    let answer = post(&client, &receiver.url("/")).await;
    assert_eq!((answer.status(), answer.truncated), (Some(200), true));
    assert_eq!(answer.body.len(), Settings::default().body_bytes_max);

    receiver.answer(Behaviour::Drip(200, Duration::from_millis(20)));
    let answer = client.send(Request { deadline: SHORT, ..request(&receiver.url("/")) }).await;
    assert_eq!((answer.status(), answer.truncated), (Some(200), true));
    assert_eq!(receiver.connections(), 1, "a dropped body costs its stream, not the connection");
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_a_breach_of_the_protocol() {
    let receiver = Receiver::start().await.unwrap();
    let large = "y".repeat(30 << 10);
    let reply =
        ["a", "b", "c"].iter().fold(Reply::new(200), |reply, name| reply.header(name, &large));
    receiver.answer(Behaviour::Reply(reply));
    let answer = post(&prior_knowledge(), &receiver.url("/")).await;
    assert_eq!(fault(&answer), Fault::ProtocolError, "{answer:?}");
}

/// Resets each stream with the reason, and counts them.
async fn resetting(reason: Reason) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                respond.send_reset(reason);
            }
        }
    });
    (address, seen, tasks)
}

#[tokio::test]
async fn a_stream_that_the_receiver_ends_is_not_tried_again() {
    let table = [
        (Reason::REFUSED_STREAM, Fault::ConnectionLost),
        (Reason::INTERNAL_ERROR, Fault::ConnectionLost),
        (Reason::ENHANCE_YOUR_CALM, Fault::ConnectionLost),
        (Reason::PROTOCOL_ERROR, Fault::ProtocolError),
        (Reason::HTTP_1_1_REQUIRED, Fault::ProtocolError),
    ];
    for (reason, expected) in table {
        let (address, seen, _tasks) = resetting(reason).await;
        let answer = post(&prior_knowledge(), &format!("http://{address}/")).await;
        assert_eq!(fault(&answer), expected, "{reason:?}: {answer:?}");
        assert_eq!(seen.load(Ordering::Relaxed), 1, "{reason:?}");
    }
}
