//! Searching does not become slower with the number of rows.

use std::{io::Write as _, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use fanfare_domain::{
    DeliveryRef, EndpointId, EventType, Fact, Outcome, Record, Timestamp, TraceContext,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded},
};
use tokio::time::Instant;

use super::*;
use crate::{counts, database::Dialect, fold::Changes, statistics::Statistics};

/// How many deliveries there are, ordinarily and in a long run.
const SHORT: u32 = 20_000;
const LONG: u32 = 1_000_000;
/// How many are written in one transaction.
const PORTION: u32 = 4_000;
/// How long a search may take.
const LIMIT: Duration = Duration::from_millis(50);
/// How often each is tried: others compute here too.
const TRIES: usize = 5;

const ENDPOINTS: u32 = 500;
/// One more endpoint has eight of ten deliveries.
const BUSY: u32 = ENDPOINTS;
/// So long after each other are events accepted: a million of them in somewhat less than a week.
const APART: Duration = Duration::from_millis(600);

fn is_long() -> bool {
    std::env::var_os("FANFARE_TEST_LONG").is_some()
}

fn endpoint_number(number: u32) -> EndpointId {
    let mut chance = [0; 10];
    chance[..4].copy_from_slice(&number.to_be_bytes());
    EndpointId::new(at(0), chance)
}

/// Which endpoint a delivery is for.
fn endpoint_of(number: u32) -> EndpointId {
    let is_busy = (1..=8).contains(&(number % 10));
    endpoint_number(if is_busy { BUSY } else { number % ENDPOINTS })
}

/// When the event of a delivery was accepted.
fn moment(number: u32) -> Timestamp {
    at(0).saturating_add(APART * number)
}

fn type_number(number: u32) -> EventType {
    // Every thousandth delivery is of a rare type.
    let name = if number.is_multiple_of(1_000) { 99 } else { number % 20 };
    format!("kind-{name}.done").parse().unwrap()
}

fn reference(number: u32) -> DeliveryRef {
    let mut chance = [0; 10];
    chance[..4].copy_from_slice(&number.to_be_bytes());
    let time = moment(number);
    let event = EventId::new(time, chance);
    DeliveryRef {
        id: DeliveryId::of(event, endpoint_of(number), 0),
        tenant: acme(),
        event,
        event_sequence: u64::from(number) + 1,
        event_type: type_number(number),
        endpoint: endpoint_of(number),
        generation: 0,
        accepted_at: time,
    }
}

fn story(number: u32) -> Vec<Record> {
    let (delivery, time) = (reference(number), moment(number));
    // One in five hundred failed, and one in ten thousand still waits.
    let failed = number % 500 == 7;
    let status = if failed { 500 } else { 200 };
    let made = Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery.clone(),
        attempt: 1,
        started_at: time,
        duration: took(number),
        timing: fanfare_domain::fact::Timing::default(),
        outcome: if failed {
            Outcome::Refused { status, retry_after: None }
        } else {
            Outcome::Accepted { status }
        },
        detail: String::new(),
        config_revision: 1,
        url: "https://example.com/".into(),
        signature: String::from("v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
        response_headers: vec![(String::from("server"), Bytes::from_static(b"nginx"))],
        response_body: Bytes::from_static(b"{\"ok\":true}"),
        response_truncated: false,
        retry_at: None,
        batch: None,
        trace_sampled: None,
    }));
    let conclusion = if failed { Conclusion::Exhausted } else { Conclusion::Delivered };
    let reason = ConclusionReason::Outcome;
    let over =
        Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts: 1, reason });
    let facts = if number % 10_000 == 11 { vec![made] } else { vec![made, over] };
    let record = |fact| Record { recorded_at: time, trace: TraceContext::default(), fact };
    facts.into_iter().map(record).collect()
}

/// How long an attempt took: most some ten milliseconds, some several seconds.
fn took(number: u32) -> Duration {
    let spread = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Duration::from_millis(3 + (spread % 40) * (spread % 7) * (spread % 5).pow(2))
}

async fn fill(store: &Store, count: u32) -> Result<Duration> {
    let begun = Instant::now();
    let mut before = Progress::default();
    for first in (0..count).step_by(usize::try_from(PORTION)?) {
        let mut changes = Changes::default();
        for number in first..(first + PORTION).min(count) {
            changes.journal(u64::from(number) + 1, &story(number));
        }
        let after = Progress { journal: u64::from(first + PORTION), ..Progress::default() };
        store.apply(changes, before, after).await?;
        before = after;
    }
    Ok(begun.elapsed())
}

/// Searches of each kind, and how many rows the first page has.
fn searches(count: u32) -> Vec<(&'static str, Filter, Option<Cursor>, usize)> {
    let all = || Filter::of(acme());
    let middle = reference(count / 2 + 10);
    let rare: EventType = "kind-99.done".parse().unwrap();
    let beginning: String = middle.event.to_string().chars().take(20).collect();
    let endpoint = Some(middle.endpoint);
    let text = |text: &str| Filter { text: Some(String::from(text)), ..all() };
    let rare_there = Filter { endpoint: Some(endpoint_number(0)), ..all() };
    let page = |rows: u32| usize::try_from(rows.min(50)).unwrap();
    vec![
        ("everything", all(), None, 50),
        ("a page deep within", all(), Some(Cursor(*middle.id.as_bytes())), 50),
        ("an endpoint", Filter { endpoint, ..all() }, None, page(count / ENDPOINTS)),
        (
            "a rare state",
            Filter { states: [State::Retrying].into(), ..all() },
            None,
            page(count / 10_000),
        ),
        ("a type", Filter { event_type: Some(type_number(3)), ..all() }, None, 50),
        (
            "a rare type",
            Filter { event_type: Some(rare.clone()), ..all() },
            None,
            page(count / 1_000),
        ),
        (
            "a rare type and state that never meet",
            Filter { event_type: Some(rare.clone()), states: [State::Exhausted].into(), ..all() },
            None,
            0,
        ),
        (
            "a rare type at an endpoint",
            Filter { event_type: Some(rare), ..rare_there },
            None,
            page(count / 1_000),
        ),
        (
            "a time",
            Filter { since: Some(moment(count / 2)), until: Some(moment(count / 2 + 30)), ..all() },
            None,
            30,
        ),
        ("an event", Filter { event: Some(middle.event), ..all() }, None, 1),
        ("the text of an event's id", text(&middle.event.to_string()), None, 1),
        ("the text of a delivery's id", text(&middle.id.to_string()), None, 1),
        ("the beginning of an event's id", text(&beginning), None, 1),
        ("the text of a rare type", text("KIND-99"), None, page(count / 1_000)),
        ("the text of all types", text("done"), None, 50),
    ]
}

#[tokio::test]
async fn a_search_among_very_many_takes_50_ms_at_most() -> Result<()> {
    let count = if is_long() { LONG } else { SHORT };
    for home in homes("a_search_among_very_many").await? {
        let store = made_anew(&home.database).await?;
        let filled = fill(&store, count).await?;
        writeln!(std::io::stderr(), "{count} deliveries folded in {filled:?}")?;
        for (what, filter, after, rows) in searches(count) {
            let mut best = Duration::MAX;
            for _ in 0..TRIES {
                let begun = Instant::now();
                let page = store.deliveries(&filter, after, 50).await?;
                best = best.min(begun.elapsed());
                assert_eq!(page.rows.len(), rows, "{what}");
            }
            ensure!(best <= LIMIT, "{what} among {count} took {best:?}");
            writeln!(std::io::stderr(), "  {what}: {best:?}")?;
            show(&search_plan(&store, &filter, after).await?)?;
        }
        statistics_are_soon_told(&store, count).await?;
    }
    Ok(())
}

/// Asks how an endpoint did that is one of many, and one that has had most of everything.
async fn statistics_are_soon_told(store: &Store, count: u32) -> Result<()> {
    let end = moment(count);
    for (what, endpoint) in
        [("an endpoint", endpoint_number(10)), ("a busy one", endpoint_number(BUSY))]
    {
        for (window, hours) in [("1 h", 1), ("24 h", 24), ("7 d", 7 * 24)] {
            let since = end.saturating_sub(Duration::from_hours(hours));
            let (mut best, mut found) = (Duration::MAX, Statistics::default());
            for _ in 0..TRIES {
                let begun = Instant::now();
                found = store.statistics(endpoint, since).await?;
                best = best.min(begun.elapsed());
            }
            let is_meant =
                |number: &u32| endpoint_of(*number) == endpoint && moment(*number) >= found.since;
            let expected = u64::try_from((0..count).filter(is_meant).count())?;
            assert_eq!(found.deliveries.values().sum::<u64>(), expected, "{what}, {window}");
            assert_eq!(found.attempts.total(), expected, "{what}, {window}");
            writeln!(std::io::stderr(), "  statistics of {what}, {window}: {best:?}")?;
            ensure!(best <= LIMIT, "statistics of {what} for {window} among {count}: {best:?}");
        }
    }
    let week = end.saturating_sub(Duration::from_hours(7 * 24));
    show(&plan(store, counts::sums(endpoint_number(BUSY), week)).await?)
}

async fn dialect(store: &Store) -> Result<Dialect> {
    Ok(store.database.begin().await?.dialect())
}

/// What the database means to do for a search.
async fn search_plan(store: &Store, filter: &Filter, after: Option<Cursor>) -> Result<String> {
    let wanted = (filter.text.as_deref(), filter.pattern.as_ref());
    let types = store.types_of(&filter.tenant, wanted).await?;
    let Some(search) = walk::Search::new(filter, types, after) else { return Ok(String::new()) };
    let walks = search.walks();
    let many = walks.len() > walk::WALKS_MAX;
    plan(store, if many { search.beginnings(51) } else { search.page(&walks, 51) }).await
}

/// Prints a plan, in a long run.
fn show(plan: &str) -> Result<()> {
    for line in plan.lines().filter(|_| is_long()) {
        writeln!(std::io::stderr(), "      {line}")?;
    }
    Ok(())
}

/// What the database means to do.
async fn plan(store: &Store, statement: Statement) -> Result<String> {
    let (head, column) = match dialect(store).await? {
        Dialect::Sqlite => ("EXPLAIN QUERY PLAN ", 3),
        Dialect::Postgres => ("EXPLAIN ", 0),
    };
    let statement = Statement { text: format!("{head}{}", statement.text), ..statement };
    let rows = store.database.fetch(statement).await?;
    let lines = rows.iter().map(|row| row.text(column));
    let lines: Vec<String> = lines.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    Ok(lines.join("\n"))
}

#[tokio::test]
async fn statistics_are_read_along_the_key_of_the_counts() -> Result<()> {
    for home in homes("statistics_are_read_along_the_key").await? {
        let store = made_anew(&home.database).await?;
        fill(&store, SHORT).await?;
        if matches!(dialect(&store).await?, Dialect::Postgres) {
            let mut transaction = store.database.begin().await?;
            transaction.execute(Statement::new("ANALYZE fanfare_counts")).await?;
            transaction.commit().await?;
        }
        let plan = plan(&store, counts::sums(endpoint_number(3), at(0))).await?;
        writeln!(std::io::stderr(), "{plan}")?;
        assert!(plan.contains("PRIMARY KEY") || plan.contains("fanfare_counts_pkey"), "{plan}");
        assert!(!plan.contains("SCAN fanfare"), "{plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
    Ok(())
}
