//! What a database has under the names of our tables.

use crate::database::{Dialect, Statement, StoreError, Transaction};

/// What is there.
pub(super) enum Found {
    /// No table of these names.
    Nothing,
    /// The tables of a delivery log.
    Log {
        /// Their version.
        version: i64,
        /// What they were folded from; `None` if nobody said so.
        installation: Option<String>,
    },
    /// Something else, or a part of it.
    Unknown,
}

const SQLITE_TABLES: &str = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') \
    AND name IN ('fanfare_log', 'fanfare_events', 'fanfare_deliveries', 'fanfare_attempts', \
    'fanfare_types', 'fanfare_deleted', 'fanfare_expunged', 'fanfare_counts')";
const SQLITE_COLUMNS: &str = "SELECT name FROM pragma_table_info('fanfare_log')";

const POSTGRES_TABLES: &str = "SELECT name FROM (VALUES ('fanfare_log'), ('fanfare_events'), \
    ('fanfare_deliveries'), ('fanfare_attempts'), ('fanfare_types'), ('fanfare_deleted'), \
    ('fanfare_expunged'), ('fanfare_counts')) \
    AS ours (name) WHERE to_regclass(name) IS NOT NULL";
const POSTGRES_COLUMNS: &str = "SELECT CAST(attname AS TEXT) FROM pg_attribute \
    WHERE attrelid = to_regclass('fanfare_log') AND attnum > 0 AND NOT attisdropped";

/// Looks what is there. The first version of the tables had these columns too.
pub(super) async fn look(transaction: &mut Transaction) -> Result<Found, StoreError> {
    let (tables, columns) = match transaction.dialect() {
        Dialect::Sqlite => (SQLITE_TABLES, SQLITE_COLUMNS),
        Dialect::Postgres => (POSTGRES_TABLES, POSTGRES_COLUMNS),
    };
    if names(transaction, tables).await?.is_empty() {
        return Ok(Found::Nothing);
    }
    let columns = names(transaction, columns).await?;
    if !["version", "installation"].iter().all(|name| columns.iter().any(|it| it == name)) {
        return Ok(Found::Unknown);
    }
    let question = Statement::new("SELECT version, installation FROM fanfare_log");
    let rows = transaction.fetch(question).await?;
    let Some(row) = rows.first() else { return Ok(Found::Unknown) };
    Ok(match row.integer(0)? {
        Some(version) => Found::Log { version, installation: row.text(1)? },
        None => Found::Unknown,
    })
}

async fn names(
    transaction: &mut Transaction,
    question: &'static str,
) -> Result<Vec<String>, StoreError> {
    let rows = transaction.fetch(Statement::new(question)).await?;
    let names = rows.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()?;
    Ok(names.into_iter().flatten().collect())
}
