//! Each way in which there is no answer.

use fanfare_testkit::receiver::{Behaviour, RawReceiver, Receiver, Script};
use tokio::net::TcpListener;

use super::*;

async fn against(script: Script) -> Answer {
    let receiver = RawReceiver::start(script).await.unwrap();
    post(&client(), &format!("http://{}/", receiver.address())).await
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let receiver = Receiver::start().await.unwrap();
    let late = Behaviour::status(200).after(PATIENCE);
    for behaviour in [Behaviour::Silent, late] {
        receiver.answer(behaviour);
        let sent = Request { deadline: SHORT, ..request(&receiver.url("/")) };
        let answer = client().send(sent).await;
        assert_eq!(fault(&answer), Fault::TimedOut);
        assert!(answer.duration >= SHORT && answer.duration < PATIENCE / 2);
    }
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn a_receiver_that_never_reads_ends_with_the_deadline() {
    let receiver = RawReceiver::start(Script::Hang).await.unwrap();
    let url = format!("http://{}/", receiver.address());
    let body = Bytes::from(vec![b'x'; 32 << 20]);
    let answer = client().send(Request { deadline: SHORT, body, ..request(&url) }).await;
    assert_eq!(fault(&answer), Fault::TimedOut);
}

#[tokio::test]
async fn heads_without_end_end_with_the_deadline() {
    let early = Bytes::from_static(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let receiver = RawReceiver::start(Script::Flood(early.clone(), early)).await.unwrap();
    let url = format!("http://{}/", receiver.address());
    let answer = client().send(Request { deadline: SHORT, ..request(&url) }).await;
    assert_eq!(fault(&answer), Fault::TimedOut);
    assert!(answer.duration < PATIENCE / 2);
}

#[tokio::test]
async fn a_refused_connection_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = post(&client(), &format!("http://{address}/")).await;
    assert_eq!(fault(&answer), Fault::ConnectFailed);
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_is_a_fault_of_the_dns() {
    let name = "a".repeat(64);
    let answer = post(&client(), &format!("http://{name}.invalid/")).await;
    assert_eq!(fault(&answer), Fault::DnsFailed);
}

#[tokio::test]
async fn a_reset_before_the_answer_is_not_tried_again() {
    let receiver = Receiver::start().await.unwrap();
    receiver.answer(Behaviour::ResetBeforeHead);
    let answer = post(&client(), &receiver.url("/")).await;
    assert_eq!(fault(&answer), Fault::ConnectionLost);
    assert_eq!((receiver.count(), receiver.connections()), (1, 1));
}

#[tokio::test]
async fn a_reset_on_a_connection_that_worked_before_is_not_tried_again() {
    let receiver = Receiver::start().await.unwrap();
    let client = client();
    receiver.answer(Behaviour::InOrder(vec![Behaviour::status(200), Behaviour::ResetBeforeHead]));
    assert_eq!(post(&client, &receiver.url("/")).await.status(), Some(200));
    assert_eq!(fault(&post(&client, &receiver.url("/")).await), Fault::ConnectionLost);
    assert_eq!((receiver.count(), receiver.connections()), (2, 1));
}

#[tokio::test]
async fn a_close_before_or_within_the_head_is_a_lost_connection() {
    let scripts = [
        Script::Close,
        Script::Answer(Bytes::new()),
        Script::Answer(Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Len")),
    ];
    for script in scripts {
        let answer = against(script.clone()).await;
        assert_eq!(fault(&answer), Fault::ConnectionLost, "{script:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_breach_of_the_protocol() {
    let many = "X: y\r\n".repeat(1_000);
    let large = "y".repeat(70 << 10);
    let answers = [
        String::from("SSH-2.0-OpenSSH_9.9\r\n"),
        String::from("<html>hello</html>"),
        String::from("HTTP/1.1 OK\r\n\r\n"),
        String::from("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        String::from("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        String::from("HTTP/1.1 200 OK\r\nBad\0Name: x\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {large}\r\nContent-Length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}", large.repeat(16)),
    ];
    for text in answers {
        let answer = against(Script::Answer(text.clone().into())).await;
        let start: String = text.chars().take(60).collect();
        assert_eq!(fault(&answer), Fault::ProtocolError, "{start:?}");
    }
}
