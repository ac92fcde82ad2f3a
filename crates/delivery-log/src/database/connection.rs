//! Connections, transactions and rows of either kind.

#[cfg(unix)]
use std::os::unix::fs::OpenOptionsExt as _;
use std::{fs::OpenOptions, path::Path, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Pool, Postgres, Row as _, Sqlite,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
    sqlite::{
        SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{DatabaseUrl, Dialect, Statement, Value};

/// How many connections there may be.
const CONNECTIONS_MAX: u32 = 5;
/// How long to wait for one.
const ACQUIRE: Duration = Duration::from_secs(5);
/// The same, for those who only read: somebody waits for their answer.
const ACQUIRE_TO_READ: Duration = Duration::from_secs(2);
/// How long SQLite waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// The delivery log could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no, or nothing. It may be otherwise the next time.
    #[error("the database does not do what it is asked")]
    Database(#[from] sqlx::Error),
    /// Somebody else has folded on from there: another projector, or a rebuild.
    #[error("the delivery log has moved on: somebody else folds too")]
    Moved,
    /// A newer version made the tables.
    #[error("the delivery log was made by a newer version: its schema is {found}, ours {ours}")]
    Newer {
        /// What is there.
        found: i64,
        /// What this version knows.
        ours: i64,
    },
    /// An older version made the tables, and no projector of this one has made them anew yet.
    #[error("the delivery log is of an older version: its schema is {found}, ours {ours}")]
    Older {
        /// What is there.
        found: i64,
        /// What this version knows.
        ours: i64,
    },
    /// Nothing was folded into the tables yet.
    #[error("the delivery log is empty: no projector has begun to keep it")]
    Unmade,
    /// The tables are of other streams.
    #[error(
        "the delivery log is of another installation, or its streams were replaced: name another \
         database, or drop this one's tables and fold these streams with \
         `fanfare delivery-log rebuild --take-over`"
    )]
    Foreign,
    /// Something has the names of our tables.
    #[error(
        "the database has tables with the names of the delivery log's, which are none: name another \
         database, or drop them with `fanfare delivery-log rebuild --take-over`"
    )]
    Unknown,
    /// A pattern chooses more types than are looked for at once, or is held against too many.
    #[error("the tenant has too many event types for this pattern")]
    TooManyTypes,
    /// What is in a row is nothing that was ever put there.
    #[error("a row of the delivery log is malformed: {what}")]
    Malformed {
        /// The column.
        what: &'static str,
    },
}

impl StoreError {
    /// Tells whether there is no delivery log at all, as far as one can see from here.
    pub fn is_absent(&self) -> bool {
        // SQLite cannot open the file, or there is no such table; PostgreSQL has no such table.
        let missing = |cause: &dyn sqlx::error::DatabaseError| match cause.code().as_deref() {
            Some("14" | "42P01") => true,
            Some("1") => cause.message().starts_with("no such table"),
            Some(_) | None => false,
        };
        match self {
            Self::Unmade => true,
            Self::Database(cause) => cause.as_database_error().is_some_and(missing),
            Self::Moved
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Foreign
            | Self::Unknown
            | Self::TooManyTypes
            | Self::Malformed { .. } => false,
        }
    }

    /// Tells whether it may go away by itself.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Database(_) | Self::Moved | Self::Older { .. } | Self::Unmade => true,
            Self::Newer { .. }
            | Self::Foreign
            | Self::Unknown
            | Self::TooManyTypes
            | Self::Malformed { .. } => false,
        }
    }
}

/// A database. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Database(Connections);

#[derive(Clone, Debug)]
enum Connections {
    Sqlite(Pool<Sqlite>),
    Postgres(Pool<Postgres>),
}

/// What is done in one go, or not at all: dropping it undoes it.
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

/// Who writes waits for it to be dropped.
#[doc(hidden)]
pub struct HeldUp {
    transaction: Transaction,
}

impl HeldUp {
    /// Tells whether somebody waits in the middle of a transaction; with SQLite nobody can.
    pub async fn holds_somebody(&mut self) -> Result<bool, StoreError> {
        if self.transaction.dialect() == Dialect::Sqlite {
            return Ok(false);
        }
        let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted \
            AND relation = to_regclass('fanfare_attempts')";
        let rows = self.transaction.fetch(Statement::new(waiting)).await?;
        let waiting = rows.first().map(|row| row.integer(0)).transpose()?.flatten();
        Ok(waiting.is_some_and(|count| count > 0))
    }
}

/// A row of an answer. Columns count from 0.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Binds the parameters and runs a query of either kind.
macro_rules! run {
    ($statement:expr, $on:expr, $how:ident) => {{
        let Statement { text, values } = $statement;
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query.$how($on).await?
    }};
}

/// Makes the file where it is missing, for nobody else to read: it holds whole URLs and answers. The
/// files that SQLite puts beside it get the same mode. What goes wrong, SQLite says better.
fn make_private(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let _made_or_there = options.open(path);
}

impl Database {
    /// Prepares to connect, and does not: the database may be away.
    pub fn new(url: &DatabaseUrl) -> Result<Self, StoreError> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                make_private(path);
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    // What a power failure takes is folded again.
                    .synchronous(SqliteSynchronous::Normal)
                    .foreign_keys(false)
                    .busy_timeout(BUSY)
                    .disable_statement_logging();
                let pool = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(ACQUIRE);
                Ok(Self(Connections::Sqlite(pool.connect_lazy_with(options))))
            }
            DatabaseUrl::Postgres(url) => {
                let pool =
                    PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE);
                let options: PgConnectOptions = url.parse()?;
                // Not a word about tables that are there already.
                let options = options.options([("client_min_messages", "warning")]);
                let options = options.disable_statement_logging();
                Ok(Self(Connections::Postgres(pool.connect_lazy_with(options))))
            }
        }
    }

    /// The same for those who only read: nothing is made or changed through it.
    pub fn to_read(url: &DatabaseUrl) -> Result<Self, StoreError> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .read_only(true)
                    .busy_timeout(ACQUIRE_TO_READ)
                    .disable_statement_logging();
                let pool = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(ACQUIRE_TO_READ);
                Ok(Self(Connections::Sqlite(pool.connect_lazy_with(options))))
            }
            DatabaseUrl::Postgres(url) => {
                let pool = PgPoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(ACQUIRE_TO_READ);
                let options: PgConnectOptions = url.parse()?;
                let options = options
                    .options([("default_transaction_read_only", "on")])
                    .disable_statement_logging();
                Ok(Self(Connections::Postgres(pool.connect_lazy_with(options))))
            }
        }
    }

    /// Holds up who writes until what is returned is dropped: with SQLite before a transaction begins,
    /// with PostgreSQL in its middle. So a test knows where a writer is when it kills it.
    #[doc(hidden)]
    pub fn hold_up(&self) -> BoxFuture<'_, Result<HeldUp, StoreError>> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            if transaction.dialect() == Dialect::Postgres {
                let lock = "LOCK TABLE fanfare_attempts IN ACCESS EXCLUSIVE MODE";
                transaction.execute(Statement::new(lock)).await?;
            }
            Ok(HeldUp { transaction })
        })
    }

    /// How many connections are in use, and how many may be: whoever needs another one waits.
    pub fn levels(&self) -> (usize, usize) {
        let (open, idle, max) = match &self.0 {
            Connections::Sqlite(pool) => {
                (pool.size(), pool.num_idle(), pool.options().get_max_connections())
            }
            Connections::Postgres(pool) => {
                (pool.size(), pool.num_idle(), pool.options().get_max_connections())
            }
        };
        let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        (number(open).saturating_sub(idle), number(max))
    }

    /// Closes all connections.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match &self.0 {
                Connections::Sqlite(pool) => pool.close().await,
                Connections::Postgres(pool) => pool.close().await,
            }
        })
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(&self) -> BoxFuture<'_, Result<Transaction, StoreError>> {
        Box::pin(async move {
            Ok(match &self.0 {
                // Otherwise it could find out too late that somebody else writes.
                Connections::Sqlite(pool) => {
                    Transaction::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)
                }
                Connections::Postgres(pool) => Transaction::Postgres(pool.begin().await?),
            })
        })
    }

    /// Begins a transaction that only reads, and sees nothing of what happens meanwhile.
    pub(crate) fn snapshot(&self) -> BoxFuture<'_, Result<Transaction, StoreError>> {
        Box::pin(async move {
            const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            Ok(match &self.0 {
                Connections::Sqlite(pool) => Transaction::Sqlite(pool.begin().await?),
                Connections::Postgres(pool) => {
                    Transaction::Postgres(pool.begin_with(SNAPSHOT).await?)
                }
            })
        })
    }

    /// Runs a query outside of transactions.
    pub(crate) fn fetch(
        &self,
        statement: Statement,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            Ok(match &self.0 {
                Connections::Sqlite(pool) => {
                    run!(statement, pool, fetch_all).into_iter().map(Row::Sqlite).collect()
                }
                Connections::Postgres(pool) => {
                    run!(statement, pool, fetch_all).into_iter().map(Row::Postgres).collect()
                }
            })
        })
    }
}

impl Transaction {
    pub(crate) const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(
        &mut self,
        statement: Statement,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            Ok(match self {
                Self::Sqlite(transaction) => {
                    run!(statement, &mut **transaction, execute).rows_affected()
                }
                Self::Postgres(transaction) => {
                    run!(statement, &mut **transaction, execute).rows_affected()
                }
            })
        })
    }

    /// Runs a query.
    pub(crate) fn fetch(
        &mut self,
        statement: Statement,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        Box::pin(async move {
            Ok(match self {
                Self::Sqlite(transaction) => {
                    let rows = run!(statement, &mut **transaction, fetch_all);
                    rows.into_iter().map(Row::Sqlite).collect()
                }
                Self::Postgres(transaction) => {
                    let rows = run!(statement, &mut **transaction, fetch_all);
                    rows.into_iter().map(Row::Postgres).collect()
                }
            })
        })
    }

    pub(crate) fn commit(self) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async move {
            match self {
                Self::Sqlite(transaction) => transaction.commit().await?,
                Self::Postgres(transaction) => transaction.commit().await?,
            }
            Ok(())
        })
    }
}

impl Row {
    pub(crate) fn integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn text(&self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn bytes(&self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}
