//! What a dispatcher counts is what a test did to it.

use std::time::Duration;

use anyhow::Result;
use fanfare_testkit::{receiver::Behaviour, wait_until};

use crate::world::{Running, World};

/// How long an endpoint takes that hangs: longer than it takes to look.
const HANGS: Duration = Duration::from_secs(6);

/// Waits until every number is as expected.
async fn tells(dispatcher: &Running, expected: &[(&str, f64)]) {
    wait_until("the metrics to tell what happened", async || {
        let text = dispatcher.metrics.text();
        let differs = |(series, value): &(&str, f64)| {
            let found = number(&text, series);
            (found != Some(*value)).then(|| format!("{series} {found:?}, not {value}"))
        };
        let wrong: Vec<_> = expected.iter().filter_map(differs).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    })
    .await;
}

/// The number of a series.
fn number(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == series).and_then(|(_, value)| value.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_keeps_failing_shows_in_numbers_and_not_by_name() -> Result<()> {
    let world = World::new().await?;
    world.receiver.answer(Behaviour::status(500));
    let dispatcher = world.run().await?;
    for number in 0..10 {
        world.send(number).await?;
    }
    let refused = "fanfare_dispatcher_attempts_total{outcome=\"refused_5xx\"}";
    tells(&dispatcher, &[(refused, 10.0)]).await;
    // What comes now is held by the breaker, and neither in flight nor put off.
    for number in 10..13 {
        world.send(number).await?;
    }
    tells(
        &dispatcher,
        &[
            (refused, 10.0),
            ("fanfare_dispatcher_attempts_total{outcome=\"accepted\"}", 0.0),
            ("fanfare_dispatcher_breakers{state=\"open\"}", 1.0),
            ("fanfare_dispatcher_breakers{state=\"closed\"}", 0.0),
            ("fanfare_dispatcher_queued{kind=\"first\"}", 3.0),
            ("fanfare_dispatcher_held{source=\"task\"}", 3.0),
            ("fanfare_dispatcher_held_limit", 1_024.0),
            ("fanfare_dispatcher_unsettled{source=\"task\"}", 3.0),
            ("fanfare_dispatcher_first_attempt_seconds_count", 10.0),
            ("fanfare_dispatcher_in_flight", 0.0),
            ("fanfare_dispatcher_lanes", 1.0),
            ("fanfare_dispatcher_past_due_seconds{standing=\"proven\"}", 0.0),
            ("fanfare_dispatcher_past_due_seconds{standing=\"slow\"}", 0.0),
        ],
    )
    .await;
    let text = dispatcher.metrics.text();
    let id = world.endpoint.id.to_string();
    assert!(!text.contains(&id) && !text.contains("acme"), "no label is an id");
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_is_in_flight_and_what_is_delivered_was() -> Result<()> {
    let world = World::new().await?;
    let hanging = world.add_endpoint(2, "/hangs").await?;
    world.receiver.answer(Behaviour::ask(|request| {
        let wait = if request.path == "/hangs" { HANGS } else { Duration::ZERO };
        Behaviour::status(200).after(wait)
    }));
    let dispatcher = world.run().await?;
    world.send_to(hanging, 1).await?;
    for number in 2..5 {
        world.send(number).await?;
    }
    let accepted = "fanfare_dispatcher_attempts_total{outcome=\"accepted\"}";
    let delivered = "fanfare_dispatcher_conclusions_total{conclusion=\"delivered\"}";
    tells(
        &dispatcher,
        &[
            (accepted, 3.0),
            (delivered, 3.0),
            ("fanfare_dispatcher_in_flight", 1.0),
            ("fanfare_dispatcher_in_flight_limit", 64.0),
            ("fanfare_dispatcher_permits{kind=\"any\"}", 1.0),
            ("fanfare_dispatcher_permits_limit{kind=\"slow\"}", 32.0),
            ("fanfare_dispatcher_lanes_busy", 1.0),
            ("fanfare_dispatcher_held{source=\"task\"}", 1.0),
        ],
    )
    .await;
    tells(
        &dispatcher,
        &[
            (accepted, 4.0),
            (delivered, 4.0),
            ("fanfare_dispatcher_conclusion_seconds_count", 4.0),
            ("fanfare_dispatcher_attempt_seconds_bucket{le=\"5\"}", 3.0),
            ("fanfare_dispatcher_attempt_seconds_bucket{le=\"10\"}", 4.0),
            ("fanfare_dispatcher_in_flight", 0.0),
            ("fanfare_dispatcher_lanes_busy", 0.0),
            ("fanfare_dispatcher_held_size_bytes", 0.0),
        ],
    )
    .await;
    dispatcher.stop().await
}
