//! What is sent, and what is kept of the answer.

use fanfare_testkit::receiver::{Behaviour, RawReceiver, Receiver, Reply, Script};
use http::{HeaderValue, Version};

use super::*;

#[tokio::test]
async fn a_request_arrives_as_it_was_made_and_with_nothing_added() {
    let receiver = Receiver::start().await.unwrap();
    let mut sent = request(&receiver.url("/a%20b/%C3%A9?x=1&y=%2F"));
    sent.headers.insert("content-type", HeaderValue::from_static("application/json"));
    sent.headers.insert("user-agent", HeaderValue::from_static("Fanfare/1"));
    sent.headers.append("x-twice", HeaderValue::from_static("1"));
    sent.headers.append("x-twice", HeaderValue::from_static("2"));
    let answer = client().send(sent).await;
    assert_eq!(answer.status(), Some(200));

    let requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    let got = &requests[0];
    assert_eq!((got.method.as_str(), got.path.as_str()), ("POST", "/a%20b/%C3%A9?x=1&y=%2F"));
    assert_eq!((&got.body[..], got.version), (&b"{\"a\":1}"[..], Version::HTTP_11));
    let mut names: Vec<_> = got.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let expected =
        ["accept", "content-length", "content-type", "host", "user-agent", "x-twice", "x-twice"];
    assert_eq!(names, expected);
    assert_eq!(got.header("host"), Some(receiver.address().to_string().as_str()));
}

#[tokio::test]
async fn the_answer_is_kept_as_it_was_sent() {
    let receiver = Receiver::start().await.unwrap();
    let reply = Reply::new(503)
        .header("retry-after", "120")
        .header("content-encoding", "gzip")
        .header("set-cookie", "a=b")
        .body(&b"\x1f\x8b not really gzip \xff"[..]);
    receiver.answer(Behaviour::Reply(reply));
    let client = client();
    let answer = post(&client, &receiver.url("/")).await;
    let head = answer.result.as_ref().unwrap();
    assert_eq!((head.status, head.version), (503, Version::HTTP_11));
    assert_eq!(answer.retry_after(), Some("120"));
    assert_eq!(&answer.body[..], b"\x1f\x8b not really gzip \xff");
    assert!(!answer.truncated);
    assert_eq!(answer.remote, Some(receiver.address()));
    assert!(head.pairs(1024).contains(&("set-cookie".into(), Bytes::from_static(b"a=b"))));

    post(&client, &receiver.url("/")).await;
    let second = &receiver.requests()[1];
    assert_eq!(second.header("cookie"), None);
    assert_eq!(second.header("accept-encoding"), None);
}

#[tokio::test]
async fn connections_are_used_again() {
    let receiver = Receiver::start().await.unwrap();
    let client = client();
    for body in ["", "ok", "a longer answer"] {
        receiver.answer(Behaviour::text(200, body));
        assert_eq!(&post(&client, &receiver.url("/")).await.body[..], body.as_bytes());
    }
    assert_eq!((receiver.count(), receiver.connections()), (3, 1));
}

#[tokio::test]
async fn a_connection_that_the_receiver_closes_is_replaced() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::Reply(Reply::new(200).header("connection", "close")));
    let client = client();
    for _ in 0..3 {
        assert_eq!(post(&client, &receiver.url("/")).await.status(), Some(200));
    }
    assert_eq!((receiver.count(), receiver.connections()), (3, 3));
}

#[tokio::test]
async fn sixteen_kibibytes_of_the_body_are_kept() {
    let receiver = Receiver::start().await.unwrap();
    let client = client();
    let limit = Settings::default().body_bytes_max;
    let text = |length: usize| Behaviour::text(200, vec![b'x'; length]);
    receiver.answer(Behaviour::InOrder(vec![
        text(limit),
        text(limit + 1),
        text(2 * limit),
        text(64 * limit),
        text(0),
    ]));
    let mut bodies = Vec::new();
    for (length, truncated) in [(limit, false), (limit, true), (limit, true), (limit, true)] {
        let answer = post(&client, &receiver.url("/")).await;
        assert_eq!(answer.status(), Some(200));
        assert_eq!((answer.body.len(), answer.truncated), (length, truncated));
        bodies.push(answer.moments.body.is_some());
    }
    assert_eq!(bodies, [true, true, true, false], "which were read to their end");
    let connections: Vec<_> = receiver.requests().iter().map(|got| got.connection).collect();
    assert_eq!(connections, [1, 1, 1, 1], "a body that is a little longer is read to its end");
    post(&client, &receiver.url("/")).await;
    let last = receiver.requests()[4].connection;
    assert_eq!(last, 2, "a body that is much longer costs its connection");
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let inside = Receiver::start().await.unwrap();
    let receiver = Receiver::start().await.unwrap();
    for to in [inside.url("/meta-data"), receiver.url("/")] {
        receiver.answer(Behaviour::redirect(&to));
        let answer = post(&client(), &receiver.url("/")).await;
        assert_eq!(answer.status(), Some(307));
    }
    assert_eq!((receiver.count(), inside.connections()), (2, 0));
}

#[tokio::test]
async fn an_endless_body_is_dropped_once_enough_is_there() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::Endless(200));
    let answer = post(&client(), &receiver.url("/")).await;
    assert_eq!((answer.status(), answer.truncated), (Some(200), true));
    assert_eq!(answer.body.len(), Settings::default().body_bytes_max);
    assert!(answer.duration < PATIENCE / 2, "{:?}", answer.duration);
}

#[tokio::test]
async fn a_slow_body_ends_with_the_deadline_and_the_status_stands() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::Drip(205, Duration::from_millis(20)));
    let answer = client().send(Request { deadline: SHORT, ..request(&receiver.url("/")) }).await;
    assert_eq!((answer.status(), answer.truncated), (Some(205), true));
    assert!(answer.moments.first_byte.is_some() && answer.moments.body.is_none());
    assert!(!answer.body.is_empty() && answer.body.len() < 100, "{}", answer.body.len());
    assert!(answer.duration >= SHORT && answer.duration < PATIENCE / 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_status_standing() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::ResetMidBody(200));
    let answer = post(&client(), &receiver.url("/")).await;
    assert_eq!((answer.status(), answer.truncated), (Some(200), true));
    assert_eq!(answer.moments.body, None, "it was not read to its end");
    assert_eq!(&answer.body[..], b"the first bytes");

    let short = "HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nabc";
    let receiver = RawReceiver::start(Script::Answer(short.into())).await.unwrap();
    let answer = post(&client(), &format!("http://{}/", receiver.address())).await;
    assert_eq!(
        (answer.status(), answer.truncated, &answer.body[..]),
        (Some(500), true, &b"abc"[..])
    );
}

#[tokio::test]
async fn an_old_but_valid_answer_is_understood() {
    let old = "HTTP/1.0 200\r\n\r\nuntil the end";
    let receiver = RawReceiver::start(Script::Answer(old.into())).await.unwrap();
    let answer = post(&client(), &format!("http://{}/", receiver.address())).await;
    assert_eq!((answer.status(), answer.truncated), (Some(200), false));
    assert_eq!(&answer.body[..], b"until the end");
}
