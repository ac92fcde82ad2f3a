//! The database: SQLite or PostgreSQL, behind one small face.
//!
//! Both take the same statements, with parameters `$1`, `$2` …; what differs is in [`crate::schema`].

mod connection;
mod statement;
mod url;

pub use connection::{Database, HeldUp, StoreError};
pub(crate) use connection::{Row, Transaction};
pub(crate) use statement::{Statement, Value};
pub use url::{DatabaseUrl, MalformedUrl};

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A file, written by one connection at a time.
    Sqlite,
    /// A server.
    Postgres,
}
