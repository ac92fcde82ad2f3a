//! Where the database is.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where the database is: `sqlite:FILE`, or the URL of a PostgreSQL.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of SQLite, which is made if it is not there. Its directory has to be.
    Sqlite(PathBuf),
    /// `postgres://user:password@host/database`, with the parameters that PostgreSQL's own clients
    /// know: `sslmode`, `options[search_path]` and so on.
    Postgres(String),
}

/// Text that names no database. It is not shown, because a password may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sqlite:FILE or postgres://USER:PASSWORD@HOST/DATABASE")]
pub struct MalformedUrl;

impl FromStr for DatabaseUrl {
    type Err = MalformedUrl;

    fn from_str(text: &str) -> Result<Self, MalformedUrl> {
        let text = text.trim();
        if let Some(file) = text.strip_prefix("sqlite:") {
            // `sqlite://FILE` is what others write for the same.
            let file = file.strip_prefix("//").unwrap_or(file);
            let named = !file.is_empty() && file != ":memory:";
            return named.then(|| Self::Sqlite(PathBuf::from(file))).ok_or(MalformedUrl);
        }
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let readable = text.parse::<sqlx::postgres::PgConnectOptions>().is_ok();
        match rest {
            Some(rest) if !rest.is_empty() && readable => Ok(Self::Postgres(String::from(text))),
            Some(_) | None => Err(MalformedUrl),
        }
    }
}

/// Shows where it is, without user and password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
                // What parameters there are may be a password too.
                let rest = rest.split('?').next().unwrap_or(rest);
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_a_server_is_named() {
        for file in ["sqlite:a/b.sqlite", "sqlite://a/b.sqlite"] {
            assert_eq!(file.parse(), Ok(DatabaseUrl::Sqlite(PathBuf::from("a/b.sqlite"))));
        }
        let absolute = DatabaseUrl::Sqlite(PathBuf::from("/a/b"));
        assert_eq!("sqlite:/a/b".parse(), Ok(absolute.clone()));
        assert_eq!("sqlite:///a/b".parse(), Ok(absolute));
        assert!("postgresql://me@db.internal/fanfare".parse::<DatabaseUrl>().is_ok());
        for bad in ["", "sqlite:", "sqlite::memory:", "postgres://", "mysql://a/b", "b.sqlite"] {
            assert_eq!(bad.parse::<DatabaseUrl>(), Err(MalformedUrl), "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url = "postgres://me:secret@db.internal:5432/fanfare?password=secret";
        let url: DatabaseUrl = url.parse().unwrap();
        assert_eq!(url.to_string(), "postgres://db.internal:5432/fanfare");
        assert_eq!(format!("{url:?}"), url.to_string());
    }
}
