//! What becomes of spans that nobody takes.

use std::time::Duration;

use fanfare_domain::{
    SpanId, Timestamp, TraceId,
    trace::span::{Kind, Link, Value},
};
use opentelemetry::trace::{SpanKind, Status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::*;

fn span(number: u64) -> Span {
    Span {
        trace: TraceId::from_bytes([1; 16]),
        id: SpanId::from_bytes(number.to_be_bytes()),
        parent: Some(SpanId::from_bytes([2; 8])),
        parent_is_remote: true,
        tracestate: String::from("a=b"),
        kind: Kind::Client,
        name: "POST",
        start: Timestamp::from_millis(5),
        end: Timestamp::from_millis(7),
        attributes: vec![("some.number", Value::Number(3)), ("some.name", Value::Name("n"))],
        events: vec![("first byte", Timestamp::from_millis(6))],
        links: vec![Link {
            trace: TraceId::from_bytes([1; 16]),
            span: SpanId::from_bytes([3; 8]),
            relation: "attempt_before",
        }],
        error: Some("503".into()),
    }
}

fn over(address: &str, pace: Pace) -> (Traces, Exporter) {
    within(PATIENCE, Protocol::Http, address, pace)
}

fn within(patience: Duration, protocol: Protocol, address: &str, pace: Pace) -> (Traces, Exporter) {
    crate::install_crypto_provider();
    let collector = Collector::at(protocol, String::from(address), patience);
    Traces::over(collector, Sampler::default(), pace, &Instance::of("some")).unwrap()
}

fn counts(traces: &Traces) -> (u64, u64) {
    let counts = &traces.0.as_ref().unwrap().counts;
    (counts.exported.load(Ordering::Relaxed), counts.dropped.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let pace = Pace { queue_max: 4, ..Pace::default() };
    let (traces, _exporter) = over("http://127.0.0.1:9/v1/traces", pace);
    for number in 1..=10 {
        traces.export(|| span(number));
    }
    assert_eq!(counts(&traces), (0, 6));
}

#[tokio::test]
async fn what_has_no_room_is_not_made() {
    let pace = Pace { queue_max: 1, ..Pace::default() };
    let (traces, _exporter) = over("http://127.0.0.1:9/v1/traces", pace);
    traces.export(|| span(1));
    traces.export(|| panic!("there is no room"));
    traces.export_all(3, || -> std::iter::Empty<Span> { panic!("there is no room") });
    assert_eq!(counts(&traces), (0, 4));
}

#[tokio::test]
async fn many_spans_take_one_place_and_leave_half_of_a_batch_to_others() {
    let pace = Pace { queue_max: 8, batch_max: 10, delay: Duration::ZERO };
    let (traces, mut exporter) = over("http://127.0.0.1:9/v1/traces", pace);
    traces.export_all(100, || (1..=100).map(span));
    for number in 101..=107 {
        traces.export(|| span(number));
    }
    assert_eq!(counts(&traces), (0, 0));
    let stop = CancellationToken::new();
    let first = exporter.next(&stop).await.unwrap();
    assert_eq!(first.len(), 10);
    traces.export(|| span(108));
    let number = |data: &SpanData| u64::from_be_bytes(data.span_context.span_id().to_bytes());
    let second: Vec<u64> = exporter.next(&stop).await.unwrap().iter().map(number).collect();
    assert!(second.contains(&108) && second.len() == 10, "{second:?}");
    stop.cancel();
    let mut rest = 0;
    while let Some(batch) = exporter.next(&stop).await {
        assert!(batch.len() <= 10);
        rest += batch.len();
    }
    assert_eq!(rest, 108 - 20);
    let in_series = &traces.0.as_ref().unwrap().counts.in_series;
    assert_eq!(in_series.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn single_spans_are_sent_beside_a_series_also_one_at_a_time() {
    let pace = Pace { queue_max: 8, batch_max: 1, delay: Duration::ZERO };
    let (traces, mut exporter) = over("http://127.0.0.1:9/v1/traces", pace);
    let stop = CancellationToken::new();
    traces.export_all(100, || (1..=100).map(span));
    exporter.next(&stop).await.unwrap();
    traces.export(|| span(101));
    let next = exporter.next(&stop).await.unwrap();
    assert_eq!(next[0].span_context.span_id().to_bytes(), 101_u64.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn spans_gather_for_a_moment_unless_the_queue_is_small() {
    for (queue_max, gather) in [(16_384, true), (16, false)] {
        let pace = Pace { queue_max, batch_max: 2, ..Pace::default() };
        let (traces, mut exporter) = over("http://127.0.0.1:9/v1/traces", pace);
        let (stop, begun) = (CancellationToken::new(), tokio::time::Instant::now());
        traces.export(|| span(1));
        let later = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            traces.export(|| span(2));
        };
        let (batch, ()) = tokio::join!(exporter.next(&stop), later);
        assert_eq!(batch.unwrap().len(), 2);
        assert_eq!(begun.elapsed() >= Duration::from_millis(50), gather, "{queue_max}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_ends_does_not_wait_for_more() {
    let (traces, mut exporter) = over("http://127.0.0.1:9/v1/traces", Pace::default());
    let (stop, begun) = (CancellationToken::new(), tokio::time::Instant::now());
    traces.export(|| span(1));
    let ending = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        stop.cancel();
    };
    let (batch, ()) = tokio::join!(exporter.next(&stop), ending);
    assert_eq!(batch.unwrap().len(), 1);
    assert!(begun.elapsed() < Duration::from_millis(50));
    assert!(exporter.next(&stop).await.is_none());
}

#[tokio::test]
async fn how_many_spans_wait_to_be_made_is_bounded() {
    let (traces, exporter) = over("http://127.0.0.1:9/v1/traces", Pace::default());
    traces.export_all(100_000, || (1..=100_000).map(span));
    traces.export_all(5, || (1..=5).map(span));
    assert_eq!(counts(&traces), (0, 5), "one may be long");
    drop(exporter);
    traces.export_all(5, || (1..=5).map(span));
    assert_eq!(counts(&traces).1, 10, "nobody takes any more");
}

#[tokio::test]
async fn a_callers_decision_is_replaced_by_our_own() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let said = TraceContext::from_headers(Some(parent), Some("a=b"));
    let (traces, _exporter) = over("http://127.0.0.1:9/v1/traces", Pace::default());
    let decided = traces.decide_on(said.clone());
    assert_eq!(decided, said.clone().decided(true));
    assert_eq!(Traces::default().decide_on(said.clone()), said, "nobody decides here");
}

#[tokio::test]
async fn a_caller_that_picks_its_trace_id_does_not_decide() {
    crate::install_crypto_provider();
    let sampler = Sampler::named("parentbased_traceidratio", Some("0.5")).unwrap();
    let address = String::from("http://127.0.0.1:9/v1/traces");
    let collector = Collector::at(Protocol::Http, address, PATIENCE);
    let (traces, _exporter) =
        Traces::over(collector, sampler, Pace::default(), &Instance::of("some")).unwrap();
    // Below every ratio but 0, and above every one but 1.
    for picked in ["0af7651916cd43dd0000000000000001", "0af7651916cd43ddffffffffffffffff"] {
        let parent = format!("00-{picked}-b7ad6b7169203331-01");
        let said = TraceContext::from_headers(Some(&parent), None);
        let is_sampled =
            |_: &u32| traces.decide_on(said.clone()).parts().is_some_and(|parts| parts.2);
        let count = (0..1_000).filter(is_sampled).count();
        assert!((300..700).contains(&count), "{picked}: {count} of 1,000");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_is_given_up_when_the_process_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let pace = Pace { queue_max: 4, batch_max: 1, delay: Duration::ZERO };
    let (traces, exporter) = over(&address, pace);
    traces.export(|| span(1));
    let stop = CancellationToken::new();
    let running = exporter.run(stop.clone());
    let working = async {
        // It is connected to, and says nothing.
        let _silent = listener.accept().await.unwrap();
        traces.export_all(7, || (1..=7).map(span));
        for number in 2..=10 {
            traces.export(|| span(number));
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = running => {}
        () = working => {}
    }
    let (sent, dropped) = counts(&traces);
    assert_eq!(sent, 0);
    let counts = &traces.0.as_ref().unwrap().counts;
    let refused = counts.refused.load(Ordering::Relaxed);
    assert_eq!((refused, dropped), (1, 7 + 9), "all are counted");
    assert_eq!(counts.in_series.load(Ordering::Relaxed), 0);
}

/// How long the collector may take, where it does not answer.
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_collector_that_hung_gets_spans_again_once_it_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let pace = Pace { queue_max: 4, batch_max: 1, delay: Duration::ZERO };
    let (traces, exporter) = within(SHORT, Protocol::Http, &address, pace);
    let running = exporter.run(CancellationToken::new());
    let collecting = async {
        traces.export(|| span(1));
        let (_silent, _peer) = listener.accept().await.unwrap();
        // Now it answers; under load that may be late again, and then there is a new connection.
        while counts(&traces).0 == 0 {
            traces.export(|| span(2));
            let (mut stream, _peer) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let mut some = [0; 4_096];
            while matches!(stream.read(&mut some).await, Ok(1..)) && counts(&traces).0 == 0 {
                stream.write_all(answer).await.ok();
                traces.export(|| span(3));
            }
        }
    };
    tokio::select! {
        () = running => panic!("it ended by itself"),
        () = collecting => {}
        () = tokio::time::sleep(Duration::from_mins(1)) => panic!("it never got a span"),
    }
    let refused = traces.0.as_ref().unwrap().counts.refused.load(Ordering::Relaxed);
    assert!(refused >= 1, "{refused}");
}

#[tokio::test]
async fn a_connection_that_nothing_comes_back_from_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for scheme in ["http", "https"] {
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let pace = Pace { queue_max: 4, batch_max: 1, delay: Duration::ZERO };
        let (traces, exporter) = within(SHORT, Protocol::Grpc, &address, pace);
        let stop = CancellationToken::new();
        let running = exporter.run(stop.clone());
        let collecting = async {
            let mut open = Vec::new();
            for number in 1..=3 {
                traces.export(|| span(number));
                open.push(listener.accept().await.unwrap());
            }
        };
        tokio::select! {
            () = running => panic!("it ended by itself"),
            () = collecting => {}
            () = tokio::time::sleep(Duration::from_mins(1)) => panic!("it connected no more"),
        }
    }
}

#[test]
fn nothing_is_sampled_without_a_collector() {
    let place = Place { trace: TraceId::from_bytes([1; 16]), parent: None, sampled: Some(true) };
    let traces = Traces::default();
    assert!(!traces.is_on() && !traces.samples(&place));
    traces.export(|| span(1));
}

#[test]
fn a_span_is_sent_as_it_is() {
    let data = convert::of(span(9));
    assert_eq!(data.span_context.trace_id().to_bytes(), [1; 16]);
    assert_eq!(data.span_context.span_id().to_bytes(), 9_u64.to_be_bytes());
    assert!(data.span_context.is_sampled());
    assert_eq!(data.span_context.trace_state().header(), "a=b");
    assert_eq!(data.parent_span_id.to_bytes(), [2; 8]);
    assert_eq!((data.span_kind, &*data.name), (SpanKind::Client, "POST"));
    assert_eq!(data.end_time.duration_since(data.start_time).unwrap(), Duration::from_millis(2));
    assert_eq!((data.attributes.len(), data.events.len(), data.links.len()), (2, 1, 1));
    assert_eq!(data.status, Status::error("503"));
}

#[test]
fn the_pace_is_that_of_the_standard_variables() {
    let read = |variables: &'static [(&str, &str)]| {
        Pace::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, text)| String::from(*text))
        })
    };
    assert_eq!(read(&[]).unwrap(), Pace::default());
    let all = read(&[(QUEUE, "9"), (BATCH, "3"), (DELAY, "40")]).unwrap();
    let expected = Pace { queue_max: 9, batch_max: 3, delay: Duration::from_millis(40) };
    assert_eq!(all, expected);
    for variables in [&[(QUEUE, "0")][..], &[(BATCH, "many")]] {
        assert!(read(variables).is_err(), "{variables:?}");
    }
}
