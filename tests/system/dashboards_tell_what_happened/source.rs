//! The database of a delivery log, asked as Grafana asks it.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, PgConnection, Row as _, SqliteConnection,
    TypeInfo as _, ValueRef as _, sqlite::SqliteRow,
};

/// See the module.
pub(super) enum Source {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

impl Source {
    /// Opens the database of a delivery log by its URL.
    pub(super) async fn open(url: &str) -> Result<Self> {
        if url.starts_with("sqlite:") {
            SqliteConnection::connect(url).await.map(Self::Sqlite).context("open the file")
        } else {
            PgConnection::connect(url).await.map(Self::Postgres).context("connect to PostgreSQL")
        }
    }

    /// The dashboard that asks it.
    pub(super) fn board(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "endpoint",
            Self::Sqlite(_) => "endpoint-sqlite",
        }
    }

    /// The one text that a statement finds.
    pub(super) async fn text(&mut self, statement: String) -> Result<String> {
        let asked = AssertSqlSafe(statement);
        let text: Option<String> = match self {
            Self::Postgres(connection) => sqlx::query_scalar(asked).fetch_one(connection).await?,
            Self::Sqlite(connection) => sqlx::query_scalar(asked).fetch_one(connection).await?,
        };
        text.context("a text")
    }

    /// What a statement finds, each row by the names of its columns.
    pub(super) async fn rows(&mut self, statement: String) -> Result<Vec<Value>> {
        match self {
            Self::Postgres(connection) => {
                let whole = format!(
                    "SELECT coalesce(json_agg(rows), '[]')::text FROM ({statement}) AS rows"
                );
                let answer = sqlx::query_scalar::<_, String>(AssertSqlSafe(whole));
                let answer = answer.fetch_one(connection).await.context(statement)?;
                serde_json::from_str(&answer).with_context(|| answer.clone())
            }
            Self::Sqlite(connection) => {
                let asked = sqlx::query(AssertSqlSafe(statement.clone()));
                let found = asked.fetch_all(connection).await.context(statement)?;
                found.iter().map(row).collect()
            }
        }
    }

    /// Closes it.
    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Postgres(connection) => connection.close().await,
            Self::Sqlite(connection) => connection.close().await,
        }
        .context("close the connection")
    }
}

/// A row, each value as what it is: a column has no type of its own.
fn row(row: &SqliteRow) -> Result<Value> {
    let mut found = Map::new();
    for column in row.columns() {
        let place = column.ordinal();
        let value = row.try_get_raw(place)?;
        let kind = String::from(value.type_info().name());
        let value = match kind.as_str() {
            _ if value.is_null() => Value::Null,
            "INTEGER" => row.try_get::<i64, _>(place)?.into(),
            "REAL" => row.try_get::<f64, _>(place)?.into(),
            _ => row.try_get::<String, _>(place)?.into(),
        };
        found.insert(String::from(column.name()), value);
    }
    Ok(Value::Object(found))
}
