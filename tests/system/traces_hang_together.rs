//! One event is one trace, from its producer to every attempt, through services that only meet in
//! streams.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_domain::{
    DeliveryId, EndpointId, EventId, Fact, SpanId, TraceContext,
    trace::span::{Kind, Span},
};
use fanfare_event_log::{Headers, InboxMessage};
use fanfare_service::{Clock as _, SystemClock, Traces};
use fanfare_testkit::{
    receiver::{Behaviour, Receiver},
    wait_until,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    Answer, Expected, Hooks, Options, Scene, Service, binary, evidence,
    otelite::Otelite,
    scene::TENANT,
    spans::{Collector, Exported},
    up::{Up, number},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// The trace and span of the producer.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PRODUCER: &str = "b7ad6b7169203331";

/// One takes everything, one the third attempt, one nothing.
async fn hooks() -> Result<Hooks> {
    Hooks::answering(|request, earlier| match request.path.as_str() {
        "/third" if earlier < 2 => Answer::Status(503),
        "/never" => Answer::Status(500),
        _ => Answer::Status(200),
    })
    .await
}

async fn scene(variables: Vec<(String, String)>) -> Result<Scene> {
    let options = Options { variables, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks().await?).await?;
    for path in ["/good", "/third", "/never"] {
        scene.subscribe(path, &[">"], &["100ms", "100ms"]).await?;
    }
    Ok(scene)
}

/// Publishes an event as a producer does that traces, and returns the event's id.
async fn publish(scene: &Scene, flags: &str) -> Result<EventId> {
    let pair = |name: &str, value: String| (String::from(name), value);
    let message = InboxMessage {
        tenant: String::from(TENANT),
        event_type: String::from("order.paid"),
        headers: Headers::new(vec![
            pair("traceparent", format!("00-{TRACE}-{PRODUCER}-{flags}")),
            pair("tracestate", String::from("shop=1")),
            pair("content-type", String::from("application/json")),
        ]),
        payload: Bytes::from_static(b"{\"amount\":42}"),
    };
    scene.log.publisher().inbox(&message).await?.stored().await?;
    // One attempt at /good, three at each of the others.
    scene.hooks_have(7).await;
    let seen = scene.hooks.seen();
    seen.first().and_then(|seen| seen.event).context("the event's id")
}

fn delivery(scene: &Scene, event: EventId, path: &str) -> Result<DeliveryId> {
    let found = scene.subscribers.iter().find(|one| one.path == path);
    let endpoint: EndpointId = found.context("an endpoint")?.id;
    Ok(DeliveryId::of(event, endpoint, 0))
}

fn by_id(spans: &[Exported], id: SpanId) -> Result<&Exported> {
    let id = id.to_string();
    spans.iter().find(|span| span.id == id).with_context(|| format!("span {id} in {spans:#?}"))
}

fn count(spans: &[Exported], name: &str) -> usize {
    spans.iter().filter(|span| span.name == name).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_is_one_trace_from_its_producer_to_every_attempt() -> Result<()> {
    let collector = Collector::start().await?;
    let mut scene = scene(collector.variables()).await?;
    // The command line looks for replays in the delivery log.
    scene.installation.start_service(Service::Projector).await?;
    let event = publish(&scene, "01").await?;
    let wanted =
        [("process INBOX", 1), ("process EVENTS", 1), ("create DELIVERIES", 3), ("POST", 7)];
    let spans = collector.have(&wanted).await;
    let ours: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    for (name, number) in wanted {
        assert_eq!(count(&ours, name), number, "{name} in {ours:#?}");
    }
    let ingest = by_id(&ours, SpanId::ingest(event))?;
    assert_eq!((ingest.parent.as_str(), ingest.service.as_str()), (PRODUCER, "fanfare-ingest"));
    let fan_out = by_id(&ours, SpanId::fan_out(event, 0))?;
    assert_eq!((&fan_out.parent, fan_out.service.as_str()), (&ingest.id, "fanfare-fan-out"));
    assert_eq!(fan_out.attributes["fanfare.deliveries"], "3");
    for (path, attempts, conclusion) in
        [("/good", 1, "delivered"), ("/third", 3, "delivered"), ("/never", 3, "exhausted")]
    {
        let id = delivery(&scene, event, path)?;
        let above = by_id(&ours, SpanId::delivery(id))?;
        assert_eq!(above.parent, fan_out.id);
        for number in 1..=attempts {
            let span = by_id(&ours, SpanId::attempt(id, number))?;
            assert_eq!((&span.parent, span.service.as_str()), (&above.id, "fanfare-dispatcher"));
            assert_eq!(span.attributes["fanfare.attempt"], number.to_string());
            assert_eq!(span.attributes["fanfare.tenant.id"], TENANT);
            assert!(span.times.1 >= span.times.0 && span.times.0 > 0);
            assert!(span.events.iter().any(|event| event == "first byte"), "{span:?}");
            let is_last = number == attempts;
            assert_eq!(span.failed, !is_last || conclusion == "exhausted");
            assert_eq!(span.why, "", "the answer's status says it");
            let said = span.attributes.get("fanfare.conclusion").map(String::as_str);
            assert_eq!(said, is_last.then_some(conclusion));
            let before = (number > 1).then(|| SpanId::attempt(id, number - 1).to_string());
            let links: Vec<_> = span.links.iter().map(|(_, span)| span.clone()).collect();
            assert_eq!(links, Vec::from_iter(before));
        }
    }
    the_receiver_saw_its_span(&scene, event)?;
    // A span is exported when its attempt ends, and that may be before it is on record.
    wait_until("all ends to be on record", async || {
        let journal = evidence::journal(&scene.log).await.map_err(|error| format!("{error:#}"))?;
        let facts = journal.into_iter().flat_map(|batch| batch.facts);
        let ends = facts.filter(|it| matches!(it.fact, Fact::DeliveryConcluded(_))).count();
        if ends == 3 { Ok(()) } else { Err(format!("{ends} are")) }
    })
    .await;
    the_command_line_tells_the_same(&scene, event).await?;
    let text = format!("{spans:?}");
    assert!(!text.contains("amount"), "no payload is exported");
    scene.finish(Expected::Calm).await
}

/// Checks that each request said which attempt it was, by ids that are exported.
fn the_receiver_saw_its_span(scene: &Scene, event: EventId) -> Result<()> {
    for path in ["/good", "/third", "/never"] {
        let id = delivery(scene, event, path)?;
        let requests = scene.hooks.requests();
        let at_path = requests.iter().filter(|request| request.path == path);
        for (number, request) in (1..).zip(at_path) {
            let span = SpanId::attempt(id, number);
            let expected = format!("00-{TRACE}-{span}-01");
            assert_eq!(request.header("traceparent"), Some(expected.as_str()));
            assert_eq!(request.header("tracestate"), Some("shop=1"));
        }
    }
    Ok(())
}

/// What `fanfare trace` tells.
async fn told(scene: &Scene, arguments: &[&str]) -> Result<Value> {
    let api = scene.api();
    let address = format!("http://{}", api.address().context("the API's address")?);
    let output = Command::new(binary::fanfare().await?)
        .args(["--json", "--api", &address, "--key", api.key(), "trace"])
        .args(arguments)
        .output()
        .await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Checks that `fanfare trace` tells of the same trace and spans.
async fn the_command_line_tells_the_same(scene: &Scene, event: EventId) -> Result<()> {
    let (event, tenant) = (event.to_string(), TENANT);
    let told_of_all = told(scene, &[tenant, &event]).await?;
    // An operator has no need to know whose it is.
    assert_eq!(told(scene, &[&event]).await?, told_of_all);
    let told_of_all = &told_of_all;
    let deliveries = told_of_all["deliveries"].as_array().context("deliveries")?;
    assert_eq!(deliveries.len(), 3, "{told_of_all:#}");
    let never = delivery(scene, event.parse()?, "/never")?;
    let found = deliveries.iter().find(|one| one["delivery"]["id"] == never.to_string());
    let found = found.context("the delivery")?;
    assert_eq!(found["trace"]["trace_id"], TRACE);
    assert_eq!(found["trace"]["span_id"], SpanId::delivery(never).to_string());
    let facts = found["facts"].as_array().context("facts")?;
    let spans: Vec<_> = facts.iter().filter_map(|fact| fact["span_id"].as_str()).collect();
    let attempts = (1..=3).map(|number| SpanId::attempt(never, number).to_string());
    assert_eq!(spans, attempts.collect::<Vec<_>>());
    let of_one = told(scene, &[&never.to_string()]).await?;
    assert_eq!(of_one["deliveries"], Value::from(vec![found.clone()]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sampling_leaves_out_is_made_once_a_delivery_is_exhausted() -> Result<()> {
    let collector = Collector::start().await?;
    let scene = scene(collector.variables()).await?;
    let event = publish(&scene, "00").await?;
    // All failed attempts, and what hangs above those of the delivery that came to nothing.
    let wanted =
        [("process INBOX", 1), ("process EVENTS", 1), ("create DELIVERIES", 1), ("POST", 5)];
    let spans = collector.have(&wanted).await;
    let never = delivery(&scene, event, "/never")?;
    let chain = [
        SpanId::attempt(never, 3),
        SpanId::delivery(never),
        SpanId::fan_out(event, 0),
        SpanId::ingest(event),
    ];
    for pair in chain.windows(2) {
        let (below, above) = (by_id(&spans, pair[0])?, by_id(&spans, pair[1])?);
        assert_eq!((&below.parent, below.trace.as_str()), (&above.id, TRACE));
        assert!(below.times.0 >= above.times.0, "{below:?} began before {above:?}");
    }
    assert!(by_id(&spans, SpanId::delivery(delivery(&scene, event, "/good")?)).is_err());
    let accepted = spans.iter().filter(|span| span.name == "POST" && !span.failed);
    assert_eq!(accepted.count(), 0, "{spans:#?}");
    for request in scene.hooks.requests() {
        let said = request.header("traceparent").unwrap_or_default();
        assert!(said.starts_with(&format!("00-{TRACE}-")) && said.ends_with("-00"), "{said}");
    }
    so_it_is_for_a_replay(&scene, &collector, (event, never)).await?;
    scene.finish(Expected::Calm).await
}

/// Delivers again what was exhausted, which comes to nothing again.
async fn so_it_is_for_a_replay(
    scene: &Scene,
    collector: &Collector,
    (event, exhausted): (EventId, DeliveryId),
) -> Result<()> {
    let path = format!("/v1/tenants/{TENANT}/dead-letters/redrive");
    scene.api().post(&path, &json!({ "deliveries": [exhausted.to_string()] })).await?;
    let wanted = [("process EVENTS", 2), ("create DELIVERIES", 2), ("POST", 5 + 3)];
    let spans = collector.have(&wanted).await;
    let replayed: Vec<_> = spans.iter().filter(|span| span.trace != TRACE).cloned().collect();
    let [matched, created, attempts] = wanted.map(|(name, _)| {
        replayed.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>()
    });
    assert_eq!((matched.len(), created.len(), attempts.len()), (1, 1, 3), "{replayed:#?}");
    assert_eq!((matched[0].parent.as_str(), &created[0].parent), ("", &matched[0].id));
    let original = (String::from(TRACE), SpanId::fan_out(event, 0).to_string());
    assert_eq!(matched[0].links, [original]);
    assert!(attempts.iter().all(|attempt| attempt.parent == created[0].id), "{attempts:#?}");
    assert_eq!(count(&spans, "process INBOX"), 1, "the event was taken in once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_collector_or_a_trace_requests_say_nothing_of_one() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.subscribe("/good", &[">"], &[]).await?;
    scene.api().publish(TENANT, "order.paid", "{}", "key").await?;
    scene.hooks_have(1).await;
    let requests = scene.hooks.requests();
    assert_eq!(requests[0].header("traceparent"), None);
    scene.finish(Expected::Calm).await
}

/// What the HTTP client adds by itself.
const UNSEEN: [&str; 4] = ["accept", "content-length", "host", "user-agent"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_shown_with_the_trace_that_it_named() -> Result<()> {
    let mut scene = scene(Vec::new()).await?;
    scene.installation.start_service(Service::Projector).await?;
    let event = publish(&scene, "01").await?;
    for (path, attempts) in [("/good", 1), ("/third", 3)] {
        let id = delivery(&scene, event, path)?;
        for number in 1..=attempts {
            let place = format!("/v1/tenants/{TENANT}/deliveries/{id}/attempts/{number}");
            let shown = wait_until("the attempt to be in the delivery log", async || {
                scene.api().get(&place).await.map_err(|error| format!("{error:#}"))
            });
            let shown = shown.await;
            let request = &shown["request"];
            assert_eq!(request["fidelity"], "verified", "{shown:#}");
            let headers = request["headers"].as_array().context("headers")?;
            let value = |name: &str| {
                let named = headers.iter().find(|it| it["name"] == name);
                named.and_then(|it| it["value"].as_str())
            };
            // Attempts of the same second have the same signature.
            let is_it = |name| value(name).is_some_and(|value| !value.is_empty());
            assert!(["webhook-signature", "traceparent"].into_iter().all(is_it), "{headers:#?}");
            let requests = scene.hooks.requests();
            let got = requests.iter().find(|got| {
                ["webhook-signature", "traceparent"]
                    .iter()
                    .all(|name| got.header(name) == value(name))
            });
            let got = got.with_context(|| format!("the request that is shown: {headers:#?}"))?;
            for (name, said) in &got.headers {
                let is_shown = value(name.as_str()) == Some(said.to_str()?);
                assert!(is_shown || UNSEEN.contains(&name.as_str()), "{name} in {headers:#?}");
            }
            assert!(got.headers.contains_key("traceparent"));
            assert_eq!(got.header("tracestate"), Some("shop=1"));
        }
    }
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_holds_nothing_up() -> Result<()> {
    let (collector, hooks) = (Receiver::start().await?, Hooks::start().await?);
    collector.answer(Behaviour::Silent);
    let place = collector.url("");
    let up = Up::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", place.trim_end_matches('/')),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
    ])
    .await?;
    up.api.tenant("acme", "standard-webhooks").await?;
    let new = json!({ "url": hooks.url("/good"), "event_types": [">"] });
    up.api.endpoint("acme", &new).await?;
    for key in 0..20 {
        up.api.publish("acme", "some.thing", "{}", &format!("key-{key}")).await?;
    }
    collector.wait_for(1, PATIENCE).await?;
    up.tells(&[
        ("fanfare_dispatcher_conclusions_total{conclusion=\"delivered\"}", 20.0),
        ("fanfare_traces_spans_total{outcome=\"exported\"}", 0.0),
    ])
    .await;
    let text = up.text().await?;
    let dropped = number(&text, "fanfare_traces_spans_total{outcome=\"dropped\"}");
    assert!(dropped.is_some_and(|dropped| dropped > 20.0), "{dropped:?}");
    up.end().await
}

/// What the producer of the test does, as a span of its own.
fn producers_span() -> Result<Span> {
    let context = format!("00-{TRACE}-{PRODUCER}-01");
    let context = TraceContext::from_headers(Some(&context), None);
    let (trace, id, _) = context.parts().context("a context")?;
    let now = SystemClock.now();
    Ok(Span {
        trace,
        id,
        parent: None,
        parent_is_remote: false,
        tracestate: String::new(),
        kind: Kind::Producer,
        name: "checkout",
        start: now,
        end: now,
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        error: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_backend_shows_one_connected_trace() -> Result<()> {
    let Some(backend) = Otelite::start("a real backend for traces").await? else { return Ok(()) };
    let mut producer = fanfare_service::Context::new("shop");
    let (traces, exporter) = Traces::to(&backend.traces_url(), "shop")?;
    producer.export_traces(exporter);
    let span = producers_span()?;
    traces.export(|| span);
    producer.shut_down(PATIENCE).await?;
    let scene = scene(backend.variables()).await?;
    let event = publish(&scene, "01").await?;
    // The producer's, ingest's, fan-out's, three deliveries', seven attempts'.
    let spans = backend.spans(TRACE, 13).await;
    assert_eq!(spans.len(), 13, "{spans:#?}");
    let text = |span: &Value, name: &str| String::from(span[name].as_str().unwrap_or_default());
    let parents: BTreeMap<_, _> =
        spans.iter().map(|span| (text(span, "span_id"), text(span, "parent_span_id"))).collect();
    for span in &spans {
        let mut at = text(span, "span_id");
        for _ in 0..parents.len() {
            match parents.get(&at) {
                Some(above) if !above.is_empty() => at.clone_from(above),
                Some(_) | None => break,
            }
        }
        assert_eq!(at, PRODUCER, "{span:#} hangs from the producer's span");
    }
    for (path, attempts) in [("/good", 1), ("/third", 3), ("/never", 3)] {
        let id = delivery(&scene, event, path)?;
        for number in 1..=attempts {
            let attempt = SpanId::attempt(id, number).to_string();
            assert_eq!(parents.get(&attempt), Some(&SpanId::delivery(id).to_string()));
        }
    }
    let whole = serde_json::to_string(&spans)?;
    for service in ["fanfare-ingest", "fanfare-fan-out", "fanfare-dispatcher"] {
        assert!(whole.contains(service), "{service} in {whole}");
    }
    the_receiver_saw_its_span(&scene, event)?;
    scene.finish(Expected::Calm).await
}
