//! What services log about a delivery is found by its ids, which are those of the journal and of the
//! spans that are exported.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_domain::{Conclusion, Fact, SpanId, fact::AttemptMade, trace::Place};
use fanfare_event_log::{Headers, InboxMessage};
use fanfare_testkit::wait_until;
use serde_json::Value;

use crate::support::{
    Answer, Expected, Hooks, Options, Scene, Service, evidence, log_file,
    logs::{self, Line},
    scene::TENANT,
    spans::{Collector, Exported},
};

const GOOD: &str = "/good?token=hidden";
const NEVER: &str = "/never?token=hidden";

/// All that our own code has to say, but for what others' does.
const FILTER: &str = "info,fanfare_api=debug,fanfare_dispatcher=debug,fanfare_event_log=debug,\
    fanfare_fan_out=debug,fanfare_ingest=debug,fanfare_retry_scheduler=debug";

/// One endpoint that takes everything, and one that takes nothing.
async fn scene(collector: &Collector) -> Result<Scene> {
    let mut variables = collector.variables();
    variables.push((String::from("FANFARE_LOG"), String::from(FILTER)));
    let hooks = Hooks::answering(|request, _| match request.path.as_str() {
        NEVER => Answer::Status(503),
        _ => Answer::Status(200),
    });
    let options = Options { variables, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    scene.subscribe(GOOD, &[">"], &["100ms"]).await?;
    scene.subscribe(NEVER, &[">"], &["100ms"]).await?;
    Ok(scene)
}

/// The lines of a service that say this.
fn lines(directory: &Path, service: Service, message: &str) -> Result<Vec<Line>> {
    let lines = logs::read(&log_file(directory, service))?;
    Ok(lines.into_iter().filter(|line| line.field("message") == Some(message)).collect())
}

/// Waits for such lines.
async fn said(scene: &Scene, service: Service, message: &str, count: usize) -> Vec<Line> {
    wait_until("a line in a log", async || {
        let found = lines(&scene.installation.logs(), service, message);
        let found = found.map_err(|error| format!("{error:#}"))?;
        if found.len() >= count {
            Ok(found)
        } else {
            Err(format!("{service} says {message:?} {} times of {count}", found.len()))
        }
    })
    .await
}

fn number(line: &Line, name: &str) -> Option<u64> {
    line.fields["fields"][name].as_u64()
}

fn exported<'a>(spans: &'a [Exported], id: &str) -> Result<&'a Exported> {
    spans.iter().find(|span| span.id == id).with_context(|| format!("span {id} in {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivered_and_an_exhausted_one_are_found_by_ids_of_journal_and_spans() -> Result<()> {
    let collector = Collector::start().await?;
    let scene = scene(&collector).await?;
    let pair = |name: &str, value: &str| (String::from(name), String::from(value));
    let message = InboxMessage {
        tenant: String::from(TENANT),
        event_type: String::from("order.paid"),
        headers: Headers::new(vec![pair("content-type", "application/json")]),
        payload: Bytes::from_static(b"{\"amount\":\"confidential\"}"),
    };
    scene.log.publisher().inbox(&message).await?.stored().await?;
    let exhausted = said(&scene, Service::RetryScheduler, "a delivery is exhausted", 1).await;
    let attempts = said(&scene, Service::Dispatcher, "an attempt was made", 3).await;
    let taken = said(&scene, Service::Ingest, "an event was taken in", 1).await;
    let matched = said(&scene, Service::FanOut, "an event was matched", 1).await;
    let spans = collector.have(&[("process INBOX", 1), ("process EVENTS", 1), ("POST", 3)]).await;

    // What is said of an attempt is said before that is on record.
    let (made, ends) = wait_until("everything to be on record", async || {
        let (mut made, mut ends) = (Vec::new(), Vec::new());
        let journal = evidence::journal(&scene.log).await.map_err(|error| format!("{error:#}"))?;
        for record in journal.into_iter().flat_map(|batch| batch.facts) {
            if let Fact::AttemptMade(fact) = record.fact {
                made.push((*fact, record.trace));
            } else if let Fact::DeliveryConcluded(fact) = record.fact {
                ends.push((fact.delivery.id, fact.conclusion));
            }
        }
        let counts = (made.len(), ends.len());
        if counts == (3, 2) { Ok((made, ends)) } else { Err(format!("{counts:?}")) }
    })
    .await;
    for (made, context) in &made {
        let trace = Place::of(made.delivery.event, context, 0).trace.to_string();
        let span = SpanId::attempt(made.delivery.id, made.attempt).to_string();
        let is_it = |line: &&Line| line.field("span_id") == Some(&span);
        let line = attempts.iter().find(is_it).with_context(|| format!("a line with {span}"))?;
        is_about(line, made, &trace);
        assert_eq!(number(line, "attempt"), Some(made.attempt.into()));
        let status = made.outcome.status().context("a status")?;
        assert_eq!(number(line, "status"), Some(status.into()));
        assert_eq!(exported(&spans, &span)?.trace, trace);
    }
    let (id, conclusion) =
        ends.iter().find(|(_, end)| *end != Conclusion::Delivered).context("one")?;
    assert_eq!(*conclusion, Conclusion::Exhausted);
    let last =
        made.iter().filter(|(made, _)| made.delivery.id == *id).max_by_key(|it| it.0.attempt);
    let (made, context) = last.context("its last attempt")?;
    let trace = Place::of(made.delivery.event, context, 0).trace.to_string();
    is_about(&exhausted[0], made, &trace);
    assert_eq!(exhausted[0].field("span_id"), Some(&*SpanId::attempt(*id, 2).to_string()));
    let above = [SpanId::ingest(made.delivery.event), SpanId::fan_out(made.delivery.event, 0)];
    for (line, span) in [&taken[0], &matched[0]].into_iter().zip(above) {
        assert_eq!(line.field("event_id"), Some(&*made.delivery.event.to_string()));
        assert_eq!(line.field("trace_id"), Some(&*trace));
        assert_eq!(line.field("span_id"), Some(&*span.to_string()));
        assert_eq!(exported(&spans, &span.to_string())?.trace, trace);
    }
    nothing_secret_is_said(&scene)?;
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_logged_is_changed_by_module_while_services_run() -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let file = directory.path().join("filter");
    let place = file.to_str().context("a path")?;
    let variables = vec![(String::from("FANFARE_TELEMETRY__FILTER_FILE"), String::from(place))];
    let options = Options { variables, ..Options::default() };
    let mut scene = Scene::set_with(options, Hooks::start().await?).await?;
    scene.subscribe("/good", &[">"], &[]).await?;
    let (attempt, taken) = ("an attempt was made", "an event was taken in");
    let counts = async |scene: &Scene, events: usize| {
        scene.api().publish(TENANT, "order.paid", "{}", &format!("key-{events}")).await?;
        // What is said of an attempt is said before that is on record.
        wait_until("the attempt to be on record", async || {
            let journal = evidence::journal(&scene.log).await.map_err(|error| error.to_string())?;
            let facts = journal.into_iter().flat_map(|batch| batch.facts);
            let made = facts.filter(|it| matches!(it.fact, Fact::AttemptMade(_))).count();
            if made == events { Ok(()) } else { Err(format!("{made} attempts")) }
        })
        .await;
        let logs = scene.installation.logs();
        let attempts = lines(&logs, Service::Dispatcher, attempt)?.len();
        anyhow::Ok((attempts, lines(&logs, Service::Ingest, taken)?.len()))
    };
    assert_eq!(counts(&scene, 1).await?, (0, 0), "debug lines are not written");
    for (number, filter, expected) in
        [(1, "info,fanfare_dispatcher=debug\n", (1, 0)), (2, "info\n", (1, 0))]
    {
        // All of it at once, or it may be looked at while it is empty.
        fs::write(file.with_extension("new"), filter).context("write a filter")?;
        fs::rename(file.with_extension("new"), &file).context("put the filter in its place")?;
        for service in [Service::Dispatcher, Service::Ingest] {
            said(&scene, service, "the filter of the log was changed", number).await;
        }
        assert_eq!(counts(&scene, number + 1).await?, expected, "{filter}");
    }
    scene.finish(Expected::Calm).await
}

fn is_about(line: &Line, made: &AttemptMade, trace: &str) {
    for (name, expected) in [
        ("tenant_id", made.delivery.tenant.to_string()),
        ("event_id", made.delivery.event.to_string()),
        ("endpoint_id", made.delivery.endpoint.to_string()),
        ("delivery_id", made.delivery.id.to_string()),
        ("trace_id", String::from(trace)),
    ] {
        assert_eq!(line.field(name), Some(expected.as_str()), "{name} in {}", line.text);
    }
}

/// Checks that each line is an object, and that none has a payload or a URL's query.
fn nothing_secret_is_said(scene: &Scene) -> Result<()> {
    for path in logs::files(&scene.installation.logs())? {
        for line in logs::read(&path)? {
            ensure!(line.fields.is_object(), "{} is not JSON", line.text);
            for hidden in ["confidential", "token=hidden"] {
                ensure!(!line.text.contains(hidden), "{hidden} in {}", line.text);
            }
            let at = line.fields["timestamp"].as_str().map(str::len);
            ensure!(at.is_some() && line.fields["level"] != Value::Null, "{}", line.text);
        }
    }
    Ok(())
}
