//! The micro service: announced, answered, and unavailable when nobody is there.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::service::Info;
use fanfare_domain::EventId;
use fanfare_event_log::{
    EventLog, Headers, InboxMessage, PublishAnswer, PublishRequestError, Requests,
};
use tokio::task::JoinSet;

use crate::support::{inbox, log, server, time};

const PATIENCE: Duration = Duration::from_secs(5);

fn accepted(number: u8) -> PublishAnswer {
    PublishAnswer::Accepted { event: EventId::new(time(0), [number; 10]), duplicate: false }
}

/// Answers everything with the same, and returns what was asked.
async fn answer(mut requests: Requests, answer: PublishAnswer, count: usize) -> Vec<InboxMessage> {
    let mut asked = Vec::new();
    while asked.len() < count {
        let request = requests.next().await.expect("the service is announced");
        request.reply.send(&answer).await;
        asked.push(request.message);
    }
    requests.stop().await;
    asked
}

#[tokio::test]
async fn a_request_comes_as_it_was_sent_and_is_answered() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let refused = PublishAnswer::Refused {
        code: 400,
        reason: "invalid_json".into(),
        detail: String::from("line 1"),
    };
    for sent in [accepted(1), refused, PublishAnswer::Unavailable { detail: String::from("full") }]
    {
        let mut tasks = JoinSet::new();
        tasks.spawn(answer(log.requests().await?, sent.clone(), 1));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![
            pair("Fanfare-Idempotency-Key", "k"),
            pair("Nats-Msg-Id", "somebody else's"),
            pair("a", "1"),
            pair("a", "2"),
        ];
        let message = InboxMessage { headers: Headers::new(headers), ..inbox("{}") };
        assert_eq!(log.publish_request(&message, PATIENCE).await?, sent);
        let asked = tasks.join_next().await.context("it answered")??.remove(0);
        assert_eq!((asked.tenant.as_str(), asked.event_type.as_str()), ("acme", "invoice.paid"));
        assert_eq!(asked.payload, message.payload);
        let expected = [pair("Fanfare-Idempotency-Key", "k"), pair("a", "1"), pair("a", "2")];
        assert_eq!(asked.headers.pairs(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn without_a_service_the_answer_is_unavailable() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let answer = log.publish_request(&inbox("{}"), PATIENCE).await?;
    assert!(matches!(answer, PublishAnswer::Unavailable { .. }), "{answer:?}");
    let requests = log.requests().await?;
    requests.stop().await;
    let answer = log.publish_request(&inbox("{}"), PATIENCE).await?;
    assert!(matches!(answer, PublishAnswer::Unavailable { .. }), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn what_makes_no_subject_or_header_is_not_sent() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    for (tenant, event_type) in
        [("*", "a"), ("acme", ">"), ("a.b", "c"), ("acme", "a b"), ("", "a")]
    {
        let (tenant, event_type) = (tenant.to_owned(), event_type.to_owned());
        let message = InboxMessage { tenant, event_type, ..inbox("{}") };
        let error = log.publish_request(&message, PATIENCE).await.unwrap_err();
        assert!(matches!(error, PublishRequestError::MalformedSubject), "{error:?}");
    }
    for (name, value) in [("a b", "1"), ("a:b", "1"), ("é", "1"), ("", "1"), ("a", "1\r\nb: 2")] {
        let headers = Headers::new(vec![(name.to_owned(), value.to_owned())]);
        let error = log.publish_request(&InboxMessage { headers, ..inbox("{}") }, PATIENCE).await;
        let error = error.unwrap_err();
        assert!(matches!(error, PublishRequestError::MalformedHeader { .. }), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_taken_for_a_no() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let _silent = log.requests().await?;
    let error = log.publish_request(&inbox("{}"), Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, PublishRequestError::TimedOut), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn processes_share_requests_and_the_service_is_listed() -> Result<()> {
    let server = server().await?;
    let (one, two) = (log(&server).await?, log(&server).await?);
    let mut tasks = JoinSet::new();
    for (number, log) in [(1, &one), (2, &two)] {
        let requests = log.requests().await?;
        tasks.spawn(async move { drop(answer(requests, accepted(number), usize::MAX).await) });
    }
    let client = async_nats::connect(server.client_url()).await?;
    let info = client.request("$SRV.INFO.fanfare-publish", "".into()).await?;
    let info: Info = serde_json::from_slice(&info.payload)?;
    assert_eq!(info.name, "fanfare-publish");
    assert_eq!(info.endpoints[0].subject, "fanfare.publish.>");
    assert_eq!(info.endpoints[0].queue_group, "fanfare-publish");
    let mut answered_by = [0, 0];
    for _ in 0..200 {
        answered_by[usize::from(one_of_two(&one).await?)] += 1;
    }
    assert!(answered_by.iter().all(|&count| count > 0), "{answered_by:?}");
    Ok(())
}

async fn one_of_two(log: &EventLog) -> Result<bool> {
    Ok(log.publish_request(&inbox("{}"), PATIENCE).await? == accepted(1))
}
