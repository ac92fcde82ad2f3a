//! The tables. The same for both databases, but for the name of the type that holds bytes.
//!
//! Ids are their 16 bytes, whose first six are milliseconds: rows of one time lie together, and the
//! order of ids is the order of time. So each index ends in `id`, and a page is a walk along one.
//! Times are nanoseconds since the Unix epoch.
//!
//! A row of attempts has what lists need before what is long, which SQLite keeps aside.

mod found;
#[cfg(test)]
mod tests;

use self::found::Found;
use crate::{
    audit, counts,
    database::{Dialect, Statement, StoreError, Transaction},
    streams::Streams,
};

/// The version of the tables. One before [`GROWS_FROM`] makes them anew: they are a fold.
pub(crate) const VERSION: i64 = 7;

/// The first version that becomes this one by what is added to it.
pub(crate) const GROWS_FROM: i64 = 4;

/// The version that counts. Tables that come from before it are counted once.
const COUNTS_FROM: i64 = 7;

/// What versions add. What was folded before knows nothing of it, and neither do its facts.
const GROWTH: [(i64, &str); 3] = [
    (5, "ALTER TABLE fanfare_attempts ADD COLUMN connect_after BIGINT"),
    (5, "ALTER TABLE fanfare_attempts ADD COLUMN first_byte_after BIGINT"),
    (6, "ALTER TABLE fanfare_attempts ADD COLUMN trace_sampled BIGINT"),
];

/// The tables, in the order in which they are dropped. That of the audit is not among them: it keeps
/// what CONFIG may have forgotten.
const TABLES: [&str; 8] = [
    "DROP TABLE IF EXISTS fanfare_log",
    "DROP TABLE IF EXISTS fanfare_events",
    "DROP TABLE IF EXISTS fanfare_deliveries",
    "DROP TABLE IF EXISTS fanfare_attempts",
    "DROP TABLE IF EXISTS fanfare_types",
    "DROP TABLE IF EXISTS fanfare_deleted",
    "DROP TABLE IF EXISTS fanfare_expunged",
    "DROP TABLE IF EXISTS fanfare_counts",
];

/// How far it was folded, of what, and up to when it was forgotten. One row.
const LOG: &str = "CREATE TABLE IF NOT EXISTS fanfare_log (
    id BIGINT PRIMARY KEY,
    version BIGINT NOT NULL,
    installation TEXT,
    events BIGINT NOT NULL,
    journal BIGINT NOT NULL,
    config BIGINT NOT NULL,
    forgotten BIGINT NOT NULL
)";

const BLANK: &str =
    "INSERT INTO fanfare_log (id, version, installation, events, journal, config, forgotten)
    VALUES (1, $1, $2, 0, 0, 0, 0)";

const SQLITE: [&str; 5] = [
    SQLITE_COUNTS,
    "CREATE TABLE IF NOT EXISTS fanfare_events (
        id BLOB PRIMARY KEY, tenant TEXT NOT NULL, event_type TEXT NOT NULL,
        sequence BIGINT NOT NULL, accepted_at BIGINT NOT NULL, occurred_at BIGINT NOT NULL,
        data_bytes BIGINT NOT NULL, ordering_key TEXT, trace_id TEXT
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS fanfare_deliveries (
        id BLOB PRIMARY KEY, tenant TEXT NOT NULL, event BLOB NOT NULL,
        event_sequence BIGINT NOT NULL, endpoint BLOB NOT NULL, generation BIGINT NOT NULL,
        event_type TEXT, accepted_at BIGINT, attempts BIGINT NOT NULL, step BIGINT NOT NULL,
        place BIGINT NOT NULL, state TEXT NOT NULL, reason TEXT, next_attempt_at BIGINT,
        since BIGINT NOT NULL
    ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS fanfare_attempts (
        delivery BLOB NOT NULL, number BIGINT NOT NULL, endpoint BLOB NOT NULL,
        place BIGINT NOT NULL,
        outcome TEXT NOT NULL, status BIGINT, fault TEXT, retry_after BIGINT,
        started_at BIGINT NOT NULL, duration BIGINT NOT NULL, config_revision BIGINT NOT NULL,
        retry_at BIGINT, batch BLOB, batch_size BIGINT, truncated BIGINT NOT NULL,
        trace_sampled BIGINT,
        url TEXT NOT NULL, signature TEXT NOT NULL, detail TEXT NOT NULL, headers TEXT NOT NULL,
        body BLOB NOT NULL, connect_after BIGINT, first_byte_after BIGINT,
        PRIMARY KEY (delivery, number)
    )",
    "CREATE TABLE IF NOT EXISTS fanfare_deleted (
        endpoint BLOB PRIMARY KEY, deleted_at BIGINT NOT NULL, purged BIGINT NOT NULL
    ) WITHOUT ROWID",
];

const POSTGRES: [&str; 5] = [
    POSTGRES_COUNTS,
    "CREATE TABLE IF NOT EXISTS fanfare_events (
        id BYTEA PRIMARY KEY, tenant TEXT NOT NULL, event_type TEXT NOT NULL,
        sequence BIGINT NOT NULL, accepted_at BIGINT NOT NULL, occurred_at BIGINT NOT NULL,
        data_bytes BIGINT NOT NULL, ordering_key TEXT, trace_id TEXT
    )",
    "CREATE TABLE IF NOT EXISTS fanfare_deliveries (
        id BYTEA PRIMARY KEY, tenant TEXT NOT NULL, event BYTEA NOT NULL,
        event_sequence BIGINT NOT NULL, endpoint BYTEA NOT NULL, generation BIGINT NOT NULL,
        event_type TEXT, accepted_at BIGINT, attempts BIGINT NOT NULL, step BIGINT NOT NULL,
        place BIGINT NOT NULL, state TEXT NOT NULL, reason TEXT, next_attempt_at BIGINT,
        since BIGINT NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS fanfare_attempts (
        delivery BYTEA NOT NULL, number BIGINT NOT NULL, endpoint BYTEA NOT NULL,
        place BIGINT NOT NULL,
        outcome TEXT NOT NULL, status BIGINT, fault TEXT, retry_after BIGINT,
        started_at BIGINT NOT NULL, duration BIGINT NOT NULL, config_revision BIGINT NOT NULL,
        retry_at BIGINT, batch BYTEA, batch_size BIGINT, truncated BIGINT NOT NULL,
        trace_sampled BIGINT,
        url TEXT NOT NULL, signature TEXT NOT NULL, detail TEXT NOT NULL, headers TEXT NOT NULL,
        body BYTEA NOT NULL, connect_after BIGINT, first_byte_after BIGINT,
        PRIMARY KEY (delivery, number)
    )",
    "CREATE TABLE IF NOT EXISTS fanfare_deleted (
        endpoint BYTEA PRIMARY KEY, deleted_at BIGINT NOT NULL, purged BIGINT NOT NULL
    )",
];

/// What [`crate::counts`] keeps: how many of `what` an endpoint had in so many seconds.
const SQLITE_COUNTS: &str = "CREATE TABLE IF NOT EXISTS fanfare_counts (
    endpoint BLOB NOT NULL, grain BIGINT NOT NULL, begun BIGINT NOT NULL,
    what TEXT NOT NULL, value TEXT NOT NULL, count BIGINT NOT NULL,
    PRIMARY KEY (endpoint, grain, begun, what, value)
) WITHOUT ROWID";

/// The same. Rows change often: there is room beside them for what they become.
const POSTGRES_COUNTS: &str = "CREATE TABLE IF NOT EXISTS fanfare_counts (
    endpoint BYTEA NOT NULL, grain BIGINT NOT NULL, begun BIGINT NOT NULL,
    what TEXT NOT NULL, value TEXT NOT NULL, count BIGINT NOT NULL,
    PRIMARY KEY (endpoint, grain, begun, what, value)
) WITH (fillfactor = 70)";

/// The types that a tenant's events have had: few, so that text is looked for in them.
const TYPES: &str = "CREATE TABLE IF NOT EXISTS fanfare_types (
    tenant TEXT NOT NULL, event_type TEXT NOT NULL, PRIMARY KEY (tenant, event_type)
)";

/// The tenants that were expunged: up to which event, by which revision of CONFIG, and whether all of
/// it is removed here.
const EXPUNGED: &str = "CREATE TABLE IF NOT EXISTS fanfare_expunged (
    tenant TEXT PRIMARY KEY, through BIGINT NOT NULL, revision BIGINT NOT NULL,
    purged BIGINT NOT NULL
)";

/// Every change of the configuration, by the installation that it is of: the table outlives both the
/// others and what CONFIG keeps. Without a tenant, the text is empty.
const AUDIT: &str = "CREATE TABLE IF NOT EXISTS fanfare_audit (
    installation TEXT NOT NULL, revision BIGINT NOT NULL, recorded_at BIGINT NOT NULL,
    tenant TEXT NOT NULL, kind TEXT NOT NULL, entity TEXT NOT NULL, deleted BIGINT NOT NULL,
    actor TEXT NOT NULL, reason TEXT NOT NULL, trace_id TEXT, document TEXT NOT NULL,
    PRIMARY KEY (installation, revision)
)";

/// Each search walks one of these for each state: see [`crate::query`]. From the index of an
/// endpoint's attempts alone dashboards are drawn.
const INDEXES: [&str; 13] = [
    "CREATE INDEX IF NOT EXISTS fanfare_events_tenant ON fanfare_events (tenant, id)",
    "CREATE INDEX IF NOT EXISTS fanfare_events_type ON fanfare_events (tenant, event_type, id)",
    "CREATE INDEX IF NOT EXISTS fanfare_deliveries_event ON fanfare_deliveries (event)",
    "CREATE INDEX IF NOT EXISTS fanfare_deliveries_state ON fanfare_deliveries (tenant, state, id)",
    "CREATE INDEX IF NOT EXISTS fanfare_deliveries_type
        ON fanfare_deliveries (tenant, event_type, state, id)",
    "CREATE INDEX IF NOT EXISTS fanfare_deliveries_endpoint
        ON fanfare_deliveries (endpoint, state, id)",
    "CREATE INDEX IF NOT EXISTS fanfare_deliveries_endpoint_type
        ON fanfare_deliveries (endpoint, event_type, state, id)",
    "CREATE INDEX IF NOT EXISTS fanfare_attempts_batch
        ON fanfare_attempts (batch, number) WHERE batch IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS fanfare_attempts_endpoint
        ON fanfare_attempts (endpoint, started_at, duration, outcome, status, fault)",
    "CREATE INDEX IF NOT EXISTS fanfare_audit_tenant
        ON fanfare_audit (installation, tenant, revision)",
    "CREATE INDEX IF NOT EXISTS fanfare_audit_kind ON fanfare_audit (installation, kind, revision)",
    "CREATE INDEX IF NOT EXISTS fanfare_audit_actor
        ON fanfare_audit (installation, actor, revision)",
    "CREATE INDEX IF NOT EXISTS fanfare_audit_entity
        ON fanfare_audit (installation, kind, tenant, entity, revision)",
];

/// Whose tables may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those that were folded from the same streams.
    Ours,
    /// Any of these names.
    Anybodys,
}

/// A key of advisory locks is ours. Who makes or drops tables has it alone: two that do so at the
/// same time would stumble over each other, and over who writes.
const ALONE: &str = "SELECT pg_advisory_xact_lock(4602958147)";
/// Who writes rows shares it.
const BESIDE_OTHERS: &str = "SELECT pg_advisory_xact_lock_shared(4602958147)";

/// Waits until no table is being made or dropped, and keeps it so until the transaction ends. With
/// SQLite, whoever writes is alone anyway.
pub(crate) async fn beside_others(transaction: &mut Transaction) -> Result<(), StoreError> {
    lock(transaction, BESIDE_OTHERS).await
}

async fn lock(transaction: &mut Transaction, how: &'static str) -> Result<(), StoreError> {
    match transaction.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => transaction.fetch(Statement::new(how)).await.map(drop),
    }
}

/// Makes the tables where there are none; where they are ours and of an older version, adds what they
/// lack, or makes them anew.
pub(crate) async fn prepare(
    transaction: &mut Transaction,
    streams: &Streams,
) -> Result<(), StoreError> {
    lock(transaction, ALONE).await?;
    match found::look(transaction).await? {
        Found::Nothing => make(transaction, streams).await,
        Found::Unknown => Err(StoreError::Unknown),
        Found::Log { version, .. } if version > VERSION => {
            Err(StoreError::Newer { found: version, ours: VERSION })
        }
        Found::Log { installation: Some(other), .. } if !streams.are(&other) => {
            Err(StoreError::Foreign)
        }
        Found::Log { version, installation } => {
            if version < GROWS_FROM {
                drop_all(transaction).await?;
                make(transaction, streams).await?;
            } else {
                grow(transaction, version).await?;
                adopt(transaction, streams).await?;
            }
            keep_audit(transaction, streams, installation.as_deref()).await
        }
    }
}

/// Drops all tables, if they may be, and makes them anew.
pub(crate) async fn renew(
    transaction: &mut Transaction,
    streams: &Streams,
    whose: Whose,
) -> Result<(), StoreError> {
    lock(transaction, ALONE).await?;
    let before = match (found::look(transaction).await?, whose) {
        (Found::Unknown, Whose::Ours) => return Err(StoreError::Unknown),
        (Found::Log { installation: Some(other), .. }, Whose::Ours) if !streams.are(&other) => {
            return Err(StoreError::Foreign);
        }
        (Found::Log { installation, .. }, _) => installation,
        (Found::Nothing | Found::Unknown, _) => None,
    };
    drop_all(transaction).await?;
    make(transaction, streams).await?;
    keep_audit(transaction, streams, before.as_deref()).await
}

async fn drop_all(transaction: &mut Transaction) -> Result<(), StoreError> {
    for table in TABLES {
        transaction.execute(Statement::new(table)).await?;
    }
    Ok(())
}

async fn make(transaction: &mut Transaction, streams: &Streams) -> Result<(), StoreError> {
    let tables = match transaction.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    let own = [TYPES, EXPUNGED, AUDIT];
    for text in [LOG].into_iter().chain(tables).chain(own).chain(INDEXES) {
        transaction.execute(Statement::new(text)).await?;
    }
    let mut blank = Statement::new(BLANK);
    blank.values.push(VERSION.into());
    blank.values.push(streams.installation().as_str().into());
    transaction.execute(blank).await?;
    Ok(())
}

/// Brings tables to this version, with what is in them.
async fn grow(transaction: &mut Transaction, version: i64) -> Result<(), StoreError> {
    if version == VERSION {
        return Ok(());
    }
    for (_, text) in GROWTH.into_iter().filter(|(added, _)| *added > version) {
        transaction.execute(Statement::new(text)).await?;
    }
    if version < COUNTS_FROM {
        let table = match transaction.dialect() {
            Dialect::Sqlite => SQLITE_COUNTS,
            Dialect::Postgres => POSTGRES_COUNTS,
        };
        transaction.execute(Statement::new(table)).await?;
        counts::fill(transaction).await?;
    }
    let mut grown = Statement::new("UPDATE fanfare_log SET version = ");
    grown.bind(VERSION);
    transaction.execute(grown).await.map(drop)
}

/// Says whose the tables are: older versions said it otherwise.
async fn adopt(transaction: &mut Transaction, streams: &Streams) -> Result<(), StoreError> {
    let mut statement = Statement::new("UPDATE fanfare_log SET installation = ");
    statement.bind(streams.installation().as_str());
    transaction.execute(statement).await.map(drop)
}

/// What is in the audit of the same CONFIG stays in it, whatever the tables were called before.
async fn keep_audit(
    transaction: &mut Transaction,
    streams: &Streams,
    before: Option<&str>,
) -> Result<(), StoreError> {
    let (before, now) = match before.filter(|before| streams.have_audit_of(before)) {
        Some(before) => (before, streams.installation()),
        None => return Ok(()),
    };
    if before == now { Ok(()) } else { audit::rename(transaction, before, &now).await }
}
