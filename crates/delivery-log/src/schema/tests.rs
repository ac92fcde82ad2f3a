//! Tables are dropped by those whose they are, or who say that it does not matter.

use std::time::Duration;

use anyhow::Result;
use fanfare_domain::{Conclusion, Timestamp, fact::Timing};

use super::*;
use crate::{
    audit::AuditFilter,
    fold::{
        Changes,
        tests::{concluded, delivery, made, record, routed, stored},
    },
    rows::Place,
    store::{
        Progress, Store,
        tests::{Home, content, homes, made_anew, streams},
    },
};

const JOURNAL_AT_1: Progress = Progress { events: 0, journal: 1, config: 0 };

fn some() -> Changes {
    let mut changes = Changes::default();
    changes.event(&stored(1));
    let facts = [
        routed(1, &[1], &[]),
        made(delivery(1, 1), 1, 200),
        concluded(delivery(1, 1), 1, Conclusion::Delivered),
    ];
    changes.journal(1, &facts.map(record));
    changes.fill();
    changes
}

async fn execute(home: &Home, statements: &[&'static str]) -> Result<()> {
    let mut transaction = home.database.begin().await?;
    for text in statements {
        transaction.execute(Statement::new(text)).await?;
    }
    Ok(transaction.commit().await?)
}

async fn renewed(home: &Home, name: &str, whose: Whose) -> Result<Store, StoreError> {
    Store::renew(&home.database, &streams(name), whose, Timestamp::EPOCH).await
}

#[tokio::test]
async fn another_installations_tables_are_dropped_only_on_purpose() -> Result<()> {
    for home in homes("another_installations_tables").await? {
        let theirs = made_anew(&home.database).await?;
        theirs.apply(some(), Progress::default(), JOURNAL_AT_1).await?;
        for version in [VERSION, VERSION - 1] {
            let mut older = Statement::new("UPDATE fanfare_log SET version = ");
            older.bind(version);
            let mut transaction = home.database.begin().await?;
            transaction.execute(older).await?;
            transaction.commit().await?;
            let refused = Store::open(&home.database, &streams("other")).await;
            assert!(matches!(refused, Err(StoreError::Foreign)), "{refused:?}");
            let refused = renewed(&home, "other", Whose::Ours).await;
            assert!(matches!(refused, Err(StoreError::Foreign)), "{refused:?}");
            assert_eq!(content(&theirs).await?, some());
        }
        let ours = renewed(&home, "other", Whose::Anybodys).await?;
        assert_eq!(content(&ours).await?, Changes::default());
        assert_eq!(ours.progress().await?, Progress::default());
    }
    Ok(())
}

#[tokio::test]
async fn tables_that_are_none_of_a_delivery_log_are_dropped_only_on_purpose() -> Result<()> {
    for home in homes("tables_that_are_none").await? {
        for stranger in [
            "CREATE TABLE fanfare_events (note TEXT)",
            "CREATE TABLE fanfare_log (note TEXT)",
            "DELETE FROM fanfare_log",
        ] {
            execute(&home, &[stranger]).await?;
            let refused = Store::open(&home.database, &streams("test")).await;
            assert!(matches!(refused, Err(StoreError::Unknown)), "{stranger}: {refused:?}");
            let refused = renewed(&home, "test", Whose::Ours).await;
            assert!(matches!(refused, Err(StoreError::Unknown)), "{stranger}: {refused:?}");
            renewed(&home, "test", Whose::Anybodys).await?;
            let store = Store::open(&home.database, &streams("test")).await?;
            store.apply(some(), Progress::default(), JOURNAL_AT_1).await?;
            assert_eq!(content(&store).await?, some());
            if stranger.starts_with("CREATE TABLE fanfare_events") {
                execute(&home, &TABLES).await?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn tables_of_an_older_version_that_knew_an_installation_by_inbox_go_on() -> Result<()> {
    for home in homes("tables_of_an_older_version").await? {
        let streams = streams("test");
        let store = made_anew(&home.database).await?;
        store.apply(audit::tests::changes(), Progress::default(), JOURNAL_AT_1).await?;
        for table in ["fanfare_log", "fanfare_audit"] {
            let mut as_before = Statement::new("UPDATE ");
            as_before.push(table).push(" SET installation = ").bind(streams.inbox.as_str());
            let mut transaction = home.database.begin().await?;
            transaction.execute(as_before).await?;
            transaction.commit().await?;
        }
        let before = Store::attach(&home.database, &streams).await?;
        let audit = before.audit(&AuditFilter::default(), None, 10).await?;
        assert!(!audit.entries.is_empty());
        let store = Store::open(&home.database, &streams).await?;
        assert_eq!(store.progress().await?, JOURNAL_AT_1);
        assert_eq!(store.audit(&AuditFilter::default(), None, 10).await?, audit);
        // They are of these streams now, whatever becomes of INBOX.
        let moved = Streams { inbox: String::from("INBOX@2"), ..streams };
        let store = Store::open(&home.database, &moved).await?;
        assert_eq!(store.progress().await?, JOURNAL_AT_1);
        // CONFIG has the same changes still: their audit is kept.
        let replaced = Streams { events: String::from("EVENTS@2"), ..moved };
        let refused = Store::open(&home.database, &replaced).await;
        assert!(matches!(refused, Err(StoreError::Foreign)), "{refused:?}");
        let anew =
            Store::renew(&home.database, &replaced, Whose::Anybodys, Timestamp::EPOCH).await?;
        assert_eq!(anew.progress().await?, Progress::default());
        assert_eq!(anew.audit(&AuditFilter::default(), None, 10).await?, audit);
    }
    Ok(())
}

#[tokio::test]
async fn tables_that_lack_columns_get_them_and_keep_what_is_in_them() -> Result<()> {
    for home in homes("tables_that_lack_columns").await? {
        let store = made_anew(&home.database).await?;
        store.apply(some(), Progress::default(), JOURNAL_AT_1).await?;
        execute(
            &home,
            &[
                "ALTER TABLE fanfare_attempts DROP COLUMN connect_after",
                "ALTER TABLE fanfare_attempts DROP COLUMN first_byte_after",
                "ALTER TABLE fanfare_attempts DROP COLUMN trace_sampled",
                "DROP TABLE fanfare_counts",
                "UPDATE fanfare_log SET version = 4",
            ],
        )
        .await?;
        let store = Store::open(&home.database, &streams("test")).await?;
        assert_eq!(store.progress().await?, JOURNAL_AT_1, "nothing is folded again");
        let mut kept = some();
        for row in kept.attempts.values_mut() {
            row.timing = Timing::default();
            row.trace_sampled = None;
        }
        assert_eq!(content(&store).await?, kept);
        let mut later = Changes::default();
        later.record(Place::of(2, 0), &record(made(delivery(1, 1), 2, 200)));
        let journal_at_2 = Progress { journal: 2, ..JOURNAL_AT_1 };
        store.apply(later, JOURNAL_AT_1, journal_at_2).await?;
        let timings = content(&store).await?.attempts.into_values().map(|row| row.timing);
        let expected = Timing { connect: None, first_byte: Some(Duration::from_micros(2_500)) };
        assert_eq!(timings.collect::<Vec<_>>(), [Timing::default(), expected]);
        Store::open(&home.database, &streams("test")).await?;
        assert_eq!(store.progress().await?, journal_at_2, "and only once");
    }
    Ok(())
}

#[tokio::test]
async fn who_folds_into_tables_that_were_taken_over_writes_nothing() -> Result<()> {
    for home in homes("tables_that_were_taken_over").await? {
        let theirs = made_anew(&home.database).await?;
        let ours = renewed(&home, "other", Whose::Anybodys).await?;
        let written = theirs.apply(some(), Progress::default(), JOURNAL_AT_1).await;
        assert!(matches!(written, Err(StoreError::Moved)), "{written:?}");
        let forgotten = theirs.forget(Timestamp::from_millis(u64::MAX >> 24), 10).await;
        assert!(matches!(forgotten, Err(StoreError::Moved)), "{forgotten:?}");
        assert_eq!(content(&ours).await?, Changes::default());
        ours.apply(some(), Progress::default(), JOURNAL_AT_1).await?;
        assert_eq!(content(&ours).await?, some());
    }
    Ok(())
}

#[tokio::test]
async fn who_makes_tables_anew_and_who_writes_wait_for_each_other() -> Result<()> {
    /// How often each does what it does.
    const TIMES: usize = 12;
    for home in homes("who_makes_tables_anew_and_who_writes").await? {
        let store = made_anew(&home.database).await?;
        let making = async {
            for _ in 0..TIMES {
                made_anew(&home.database).await?;
            }
            anyhow::Ok(())
        };
        let writing = async {
            for _ in 0..TIMES {
                let before = store.progress().await?;
                let after = Progress { journal: before.journal + 1, ..before };
                match store.apply(some(), before, after).await {
                    Ok(()) | Err(StoreError::Moved) => {}
                    Err(other) => return Err(other.into()),
                }
            }
            anyhow::Ok(())
        };
        let forgetting = async {
            for _ in 0..TIMES {
                store.purge(5).await?;
                store.forget(Timestamp::from_millis(1), 5).await?;
            }
            anyhow::Ok(())
        };
        let again = async {
            for _ in 0..TIMES {
                Store::open(&home.database, &streams("test")).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(making, writing, forgetting, again)?;
    }
    Ok(())
}
