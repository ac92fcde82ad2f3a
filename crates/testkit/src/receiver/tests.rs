//! The receiver, spoken to by hand.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one request on a connection of its own, and returns all that comes back.
async fn post(receiver: &Receiver, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(receiver.address()).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an answer, too: an empty one.
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

async fn status(receiver: &Receiver, path: &str) -> Option<u16> {
    post(receiver, path, "").await.split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn requests_are_remembered_as_they_were_sent() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::Echo);
    let answer = post(&receiver, "/a%2Fb?c=d", "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"));
    let got = receiver.wait_for(1, PATIENCE).await.unwrap();
    let got = &got[0];
    assert_eq!((got.number, got.connection), (1, 1));
    assert_eq!((got.path.as_str(), &got.body[..]), ("/a%2Fb?c=d", &b"hello"[..]));
    assert_eq!((got.header("host"), got.header("other")), (Some("x"), None));
}

#[tokio::test]
async fn each_path_has_its_own_order_of_answers() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::statuses([500, 201]));
    receiver.answer_at("/gone", Behaviour::statuses([410]));
    let mut seen = Vec::new();
    for path in ["/a", "/gone?x", "/b", "/gone", "/c"] {
        seen.push(status(&receiver, path).await.unwrap());
    }
    assert_eq!(seen, [500, 410, 201, 410, 201]);
    receiver.answer(Behaviour::ask(|request| {
        Behaviour::status(if request.number == 7 { 299 } else { 298 })
    }));
    assert_eq!(status(&receiver, "/").await, Some(298));
    assert_eq!(status(&receiver, "/").await, Some(299));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_once_a_request_was_seen_is_about_later_ones() {
    let receiver = Receiver::start().await.unwrap();
    for number in 1..=200 {
        receiver.answer(Behaviour::status(201));
        let changing = async {
            receiver.wait_for(number, PATIENCE).await.unwrap();
            receiver.answer(Behaviour::status(500));
        };
        let (answered, ()) = tokio::join!(status(&receiver, "/"), changing);
        assert_eq!(answered, Some(201), "{number}");
    }
}

#[tokio::test]
async fn an_answer_behind_a_gate_waits_until_it_is_open() {
    let (receiver, gate) = (Receiver::start().await.unwrap(), Gate::default());
    receiver.answer(Behaviour::status(201).behind(&gate));
    let opening = async {
        receiver.wait_for(1, PATIENCE).await.unwrap();
        gate.open();
    };
    let (answered, ()) = tokio::join!(status(&receiver, "/"), opening);
    assert_eq!(answered, Some(201));
    assert_eq!(status(&receiver, "/").await, Some(201), "it stays open");
}

#[tokio::test]
async fn a_reset_comes_in_place_of_an_answer() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::ResetBeforeHead);
    assert_eq!(post(&receiver, "/", "").await, "");
    receiver.answer(Behaviour::ResetMidBody(202));
    let answer = post(&receiver, "/", "").await;
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("the first bytes"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "the body did not end: {answer}");
}

#[tokio::test]
async fn waiting_for_more_than_comes_fails_and_says_what_came() {
    let receiver = Receiver::start().await.unwrap();
    post(&receiver, "/", "").await;
    let few = receiver.wait_for(2, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(few, TooFew { wanted: 2, seen: 1 });
}

#[tokio::test]
async fn nothing_listens_once_it_is_dropped() {
    let receiver = Receiver::start().await.unwrap();
    let address = receiver.address();
    let mut open = TcpStream::connect(address).await.unwrap();
    assert_eq!(status(&receiver, "/").await, Some(200));
    drop(receiver);
    // The task is dropped when the runtime gets to it; its connections end with it.
    assert_eq!(open.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn delays_add_up_and_an_empty_order_answers_200() {
    let request = Received {
        number: 1,
        method: http::Method::POST,
        path: String::new(),
        headers: http::HeaderMap::new(),
        body: bytes::Bytes::new(),
        at: tokio::time::Instant::now(),
        connection: 1,
        peer: ([127, 0, 0, 1], 1).into(),
        version: http::Version::HTTP_11,
    };
    let second = Duration::from_secs(1);
    let behaviour = Behaviour::InOrder(Vec::new()).after(second).after(second);
    let (delay, settled) = behaviour.settle(&request, 0);
    assert_eq!(delay, 2 * second);
    assert!(matches!(settled, Behaviour::Reply(reply) if reply.status == 200));
}
