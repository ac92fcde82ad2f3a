//! The tables are the fold, on both databases.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use fanfare_domain::Conclusion;
use fanfare_testkit::Postgres;
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::{
    counts,
    fold::tests::{Message, at, concluded, delivery, folded, history, made, record, routed},
    rows::Place,
};

/// How many histories are played on each database.
const CASES: u32 = 24;

/// A database for one test, and what it lives in.
pub(crate) struct Home {
    pub(crate) database: Database,
    url: String,
    _sqlite: TempDir,
    _postgres: Option<Postgres>,
}

/// The databases that this machine has. `what` is the test's name.
pub(crate) async fn homes(what: &str) -> Result<Vec<Home>> {
    let mut homes = vec![sqlite()?];
    if let Some(postgres) = Postgres::start(what).await? {
        let url = postgres.url();
        let database = Database::new(&url.parse()?)?;
        let directory = tempfile::tempdir()?;
        homes.push(Home { database, url, _sqlite: directory, _postgres: Some(postgres) });
    }
    Ok(homes)
}

fn sqlite() -> Result<Home> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let directory = tempfile::tempdir()?;
    let name = format!("{}.sqlite", NUMBER.fetch_add(1, Ordering::Relaxed));
    let url = format!("sqlite:{}", directory.path().join(name).display());
    let database = Database::new(&url.parse()?)?;
    Ok(Home { database, url, _sqlite: directory, _postgres: None })
}

/// The streams of an installation.
pub(crate) fn streams(name: &str) -> Streams {
    let of = |stream: &str| format!("{name}_{stream}@1700000000000000000");
    Streams {
        events: of("EVENTS"),
        journal: of("JOURNAL"),
        config: of("CONFIG"),
        inbox: of("INBOX"),
    }
}

/// Empty tables of the installation `test`.
pub(crate) async fn made_anew(database: &Database) -> Result<Store> {
    Ok(Store::renew(database, &streams("test"), Whose::Ours, Timestamp::EPOCH).await?)
}

/// Everything that is in the tables. The counts are those of the rows.
pub(crate) async fn content(store: &Store) -> Result<Changes> {
    let mut found = Changes::default();
    for (columns, table) in
        [(EVENT, "fanfare_events"), (DELIVERY, "fanfare_deliveries"), (ATTEMPT, "fanfare_attempts")]
    {
        let mut statement = Statement::new("SELECT ");
        statement.push(columns).push(" FROM ").push(table);
        for row in store.database.fetch(statement).await? {
            match table {
                "fanfare_events" => {
                    let row = event(&row)?;
                    found.events.insert(row.id, row);
                }
                "fanfare_deliveries" => {
                    let row = delivery_row(&row)?;
                    found.deliveries.insert(row.id, row);
                }
                _ => {
                    let row = attempt(&row)?;
                    found.attempts.insert((row.delivery, row.number), row);
                }
            }
        }
    }
    assert_eq!(counts(store).await?, counted(&found));
    Ok(found)
}

/// What is counted, in the words of the table.
async fn counts(store: &Store) -> Result<BTreeMap<Vec<Value>, i64>> {
    let question = "SELECT endpoint, grain, begun, what, value, count FROM fanfare_counts";
    let mut found = BTreeMap::new();
    for row in store.database.fetch(Statement::new(question)).await? {
        let key = vec![
            Value::Bytes(row.bytes(0)?),
            Value::Integer(row.integer(1)?),
            Value::Integer(row.integer(2)?),
            Value::Text(row.text(3)?),
            Value::Text(row.text(4)?),
        ];
        found.insert(key, row.integer(5)?.context("a count")?);
    }
    Ok(found)
}

/// What counting the rows gives.
fn counted(rows: &Changes) -> BTreeMap<Vec<Value>, i64> {
    let mut tally = Tally::default();
    for row in rows.deliveries.values() {
        tally.delivery((row.endpoint, row.id), row.standing.state, 1);
    }
    for row in rows.attempts.values() {
        tally.attempt(&counts::Attempt::of(row), 1);
    }
    tally.rows().collect()
}

use super::read::delivery as delivery_row;

async fn empty(home: &Home) -> Result<Store> {
    made_anew(&home.database).await
}

/// The progress behind so many messages: what is counted is of no matter here.
fn after(count: usize) -> Progress {
    Progress { journal: u64::try_from(count).unwrap(), ..Progress::default() }
}

/// Writes messages in portions that end at these places, some of them again.
async fn play(store: &Store, messages: &[Message], cuts: &[usize], back: usize) -> Result<()> {
    let mut at = Progress::default();
    let mut from = 0_usize;
    for (number, cut) in cuts.iter().chain([&messages.len()]).enumerate() {
        let again = from.saturating_sub(back);
        let next = after(number + 1);
        store.apply(folded(&messages[again..(*cut).max(from)]), at, next).await?;
        (from, at) = ((*cut).max(from), next);
    }
    Ok(())
}

#[test]
fn portions_of_any_size_in_any_order_give_the_rows_of_the_fold() -> Result<()> {
    let runtime = Runtime::new()?;
    for home in runtime.block_on(homes("portions_of_any_size"))? {
        let given = (history(), vec(any::<u32>(), 18), vec(any::<Index>(), 0..4), 0..3_usize);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let played = TestRunner::new(config).run(&given, |(messages, keys, cuts, back)| {
            let mut shuffled: Vec<_> = messages.into_iter().zip(keys).collect();
            shuffled.sort_by_key(|(_, key)| *key);
            let messages: Vec<_> = shuffled.into_iter().map(|(message, _)| message).collect();
            let mut cuts: Vec<usize> =
                cuts.into_iter().map(|cut| cut.index(messages.len() + 1)).collect();
            cuts.sort_unstable();
            let found = runtime.block_on(async {
                let store = empty(&home).await?;
                play(&store, &messages, &cuts, back).await?;
                content(&store).await
            });
            let found = found.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            let mut expected = folded(&messages);
            expected.fill();
            prop_assert_eq!(found, expected);
            Ok(())
        });
        played.map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_copy_counts_also_where_it_comes_together_with_the_one_before() -> Result<()> {
    for home in homes("a_copy_counts").await? {
        let store = empty(&home).await?;
        let copies = [Message::Event(0, 2), Message::Event(0, 3)];
        store.apply(folded(&copies[..1]), Progress::default(), after(1)).await?;
        store.apply(folded(&copies), after(1), after(2)).await?;
        assert_eq!(content(&store).await?, folded(&copies));
    }
    Ok(())
}

#[tokio::test]
async fn a_second_writer_writes_nothing() -> Result<()> {
    for home in homes("a_second_writer_writes_nothing").await? {
        let store = empty(&home).await?;
        let mut changes = Changes::default();
        changes.record(Place::of(1, 0), &record(made(delivery(1, 1), 1, 500)));
        store.apply(changes.clone(), Progress::default(), after(1)).await?;
        let before = content(&store).await?;
        let mut other = Changes::default();
        other.record(Place::of(2, 0), &record(concluded(delivery(1, 1), 1, Conclusion::Delivered)));
        let refused = store.apply(other.clone(), Progress::default(), after(2)).await;
        assert!(matches!(refused, Err(StoreError::Moved)), "{refused:?}");
        assert_eq!(content(&store).await?, before);
        assert_eq!(store.progress().await?, after(1));
        store.apply(other, after(1), after(2)).await?;
        assert_ne!(content(&store).await?, before);
    }
    Ok(())
}

#[tokio::test]
async fn of_two_at_the_same_time_one_writes() -> Result<()> {
    for home in homes("of_two_at_the_same_time_one_writes").await? {
        let store = empty(&home).await?;
        let mut changes = Changes::default();
        changes.record(Place::of(1, 0), &record(made(delivery(1, 1), 1, 500)));
        let write = || store.apply(changes.clone(), Progress::default(), after(1));
        let both = tokio::join!(write(), write());
        let moved = |written: &Result<(), StoreError>| matches!(written, Err(StoreError::Moved));
        assert_eq!(u8::from(moved(&both.0)) + u8::from(moved(&both.1)), 1, "{both:?}");
        assert_eq!(content(&store).await?, changes);
    }
    Ok(())
}

#[tokio::test]
async fn tables_of_another_installation_or_a_newer_version_are_left_alone() -> Result<()> {
    for home in homes("tables_of_another_installation").await? {
        let store = Store::open(&home.database, &streams("one")).await?;
        store.apply(Changes::default(), Progress::default(), after(1)).await?;
        let refused = Store::open(&home.database, &streams("two")).await;
        assert!(matches!(refused, Err(StoreError::Foreign)), "{refused:?}");
        Store::open(&home.database, &streams("one")).await?;
        assert_eq!(store.progress().await?, after(1), "opening again changes nothing");
        set_version(&home, schema::VERSION + 1).await?;
        let refused = Store::open(&home.database, &streams("one")).await;
        assert!(matches!(refused, Err(StoreError::Newer { .. })), "{refused:?}");
        set_version(&home, schema::GROWS_FROM - 1).await?;
        let anew = Store::open(&home.database, &streams("one")).await?;
        assert_eq!(anew.progress().await?, Progress::default(), "an older one is folded anew");
    }
    Ok(())
}

async fn set_version(home: &Home, version: i64) -> Result<()> {
    let mut statement = Statement::new("UPDATE fanfare_log SET version = ");
    statement.bind(version);
    let mut transaction = home.database.begin().await?;
    transaction.execute(statement).await?;
    Ok(transaction.commit().await?)
}

#[tokio::test]
async fn what_is_old_is_forgotten_in_steps_and_does_not_come_back() -> Result<()> {
    for home in homes("what_is_old_is_forgotten").await? {
        let store = empty(&home).await?;
        let mut changes = Changes::default();
        for event in 0..20 {
            changes.event(&crate::fold::tests::stored(event));
            changes.record(Place::of(u64::from(event), 0), &record(routed(event, &[1, 2], &[])));
            let attempt = record(made(delivery(event, 1), 1, 500));
            changes.record(Place::of(u64::from(event), 1), &attempt);
        }
        store.apply(changes.clone(), Progress::default(), after(1)).await?;
        let mut steps = Vec::new();
        while steps.last() != Some(&0) {
            steps.push(store.forget(at(15), 7).await?);
            assert!(steps.len() < 20, "{steps:?}");
        }
        assert_eq!(steps.iter().sum::<u64>(), 15 * 4, "{steps:?}");
        assert!(steps.iter().all(|step| *step <= 7), "{steps:?}");
        let late = changes.clone();
        store.apply(late, after(1), after(2)).await?;
        let mut expected = changes;
        expected.forget(at(15));
        expected.fill();
        let found = content(&store).await?;
        assert_eq!(found.events.len(), 5);
        assert_eq!(found, expected);
    }
    Ok(())
}

#[tokio::test]
async fn who_only_reads_makes_nothing_and_is_told_what_is_wrong() -> Result<()> {
    let home = sqlite()?;
    let url: crate::DatabaseUrl = home.url.parse()?;
    let reader = Database::to_read(&url)?;
    let away = Store::attach(&reader, &streams("test")).await;
    assert!(matches!(away, Err(StoreError::Database(_))), "{away:?}");
    let store = empty(&home).await?;
    let found = Store::attach(&reader, &streams("test")).await?;
    assert_eq!(found.progress().await?, Progress::default());
    let refused = found.apply(Changes::default(), Progress::default(), after(1)).await;
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    let foreign = Store::attach(&reader, &streams("other")).await;
    assert!(matches!(foreign, Err(StoreError::Foreign)), "{foreign:?}");
    // It sees what is written meanwhile.
    store.apply(Changes::default(), Progress::default(), after(1)).await?;
    assert_eq!(found.progress().await?, after(1));
    set_version(&home, schema::VERSION - 1).await?;
    let older = Store::attach(&reader, &streams("test")).await;
    assert!(matches!(older, Err(StoreError::Older { .. })), "{older:?}");
    Ok(())
}

#[tokio::test]
async fn who_only_reads_cannot_write_on_a_server_either() -> Result<()> {
    let Some(postgres) = Postgres::start("who_only_reads_cannot_write").await? else {
        return Ok(());
    };
    let url: crate::DatabaseUrl = postgres.url().parse()?;
    let store = made_anew(&Database::new(&url)?).await?;
    let found = Store::attach(&Database::to_read(&url)?, &streams("test")).await?;
    let refused = found.apply(Changes::default(), Progress::default(), after(1)).await;
    assert!(matches!(refused, Err(StoreError::Database(_))), "{refused:?}");
    assert_eq!(store.progress().await?, Progress::default());
    Ok(())
}

#[tokio::test]
async fn text_with_a_nul_in_it_stops_nobody() -> Result<()> {
    for home in homes("text_with_a_nul_in_it").await? {
        let store = empty(&home).await?;
        let mut changes = Changes::default();
        changes.record(Place::of(1, 0), &record(made(delivery(1, 1), 1, 0)));
        for row in changes.attempts.values_mut() {
            row.detail = String::from("a\0b");
            row.response_headers = vec![(String::from("x"), bytes::Bytes::from_static(b"\0\xff"))];
        }
        store.apply(changes.clone(), Progress::default(), after(1)).await?;
        let found = content(&store).await?;
        let row = found.attempts.values().next().context("an attempt")?;
        assert_eq!(row.detail, "a\u{fffd}b");
        assert_eq!(row.response_headers[0].1.as_ref(), b"\0\xff");
    }
    Ok(())
}
