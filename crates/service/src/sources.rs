//! Where settings come from: compiled-in defaults, then a file, then the environment.
//!
//! Each layer is a map from dotted key to text. TOML tables become dots (`[log] url = "…"` is
//! `log.url`), arrays become lists, and in variable names two underscores stand for the dot:
//! `FANFARE_FAN_OUT__LOG__URL` is `log.url` of the service `fan-out`.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use fanfare_domain::settings::{Effective, Mistakes, Settings, Source, nearest};
use toml::{Table, Value};

/// What the name of every variable of ours begins with.
const PREFIX: &str = "FANFARE_";

/// The layer of compiled-in defaults, as mistakes name it.
const DEFAULTS: &str = "defaults";

/// The layer on top of all others, as mistakes name it.
const COMMAND_LINE: &str = "the command line";

/// The settings of one service, layer on layer.
#[derive(Clone, Debug)]
pub struct Sources {
    service: String,
    source: Source,
}

/// A TOML file of settings, for one service or with a table for each of several.
#[derive(Clone, Debug)]
pub struct SettingsFile {
    origin: String,
    table: Table,
}

/// A layer of settings could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// The file could not be opened or is not text.
    #[error("read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The text is not TOML. The text is not shown, because it may hold secrets.
    #[error("{origin}, line {line}: {message}")]
    NotToml {
        /// The file.
        origin: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A value is neither a scalar nor a list of scalars without commas.
    #[error("{origin}: {key} holds what no setting can be")]
    Unsupported {
        /// The file.
        origin: String,
        /// The key.
        key: String,
    },
    /// Something at the top of a file is none of the tables that it can have.
    #[error("{origin}: unknown table {key}{}: there are {known}", did_you_mean(near.as_deref()))]
    UnknownTable {
        /// The file.
        origin: String,
        /// What stands at the top.
        key: String,
        /// What was probably meant.
        near: Option<String>,
        /// The tables that there can be.
        known: String,
    },
    /// A variable of ours is not Unicode.
    #[error("variable {name} is not Unicode")]
    NotUnicode {
        /// The variable's name.
        name: String,
    },
}

impl Sources {
    /// Begins with a service's compiled-in defaults: the text of `deploy/config/<service>.toml`.
    pub fn new(service: &str, defaults: &str) -> Result<Self, SourcesError> {
        let empty = Self { service: String::from(service), source: Source::default() };
        empty.defaults(defaults)
    }

    /// Lays more compiled-in defaults on top.
    pub fn defaults(self, defaults: &str) -> Result<Self, SourcesError> {
        self.file(&SettingsFile::parse(DEFAULTS, defaults)?)
    }

    /// Lays a file on top that is all about this service.
    pub fn file(self, file: &SettingsFile) -> Result<Self, SourcesError> {
        self.layer(&file.table, &file.origin)
    }

    /// Lays the table of a file on top that bears this service's name, if there is one.
    ///
    /// `up` keeps the settings of all its services in one file this way.
    pub fn table_of(self, file: &SettingsFile) -> Result<Self, SourcesError> {
        match file.table.get(&self.service) {
            Some(Value::Table(table)) => self.layer(table, &file.origin),
            Some(_) => {
                let (origin, key) = (file.origin.clone(), self.service);
                Err(SourcesError::Unsupported { origin, key })
            }
            None => Ok(self),
        }
    }

    /// Lays a table of a file on top that has this section's keys for all services: `[log]` of the
    /// file of `up` holds `log.url` and so on.
    pub fn section_of(self, file: &SettingsFile, section: &str) -> Result<Self, SourcesError> {
        match file.table.get(section) {
            Some(table @ Value::Table(_)) => {
                let section = Table::from_iter([(String::from(section), table.clone())]);
                self.layer(&section, &file.origin)
            }
            Some(_) => {
                let (origin, key) = (file.origin.clone(), String::from(section));
                Err(SourcesError::Unsupported { origin, key })
            }
            None => Ok(self),
        }
    }

    /// Lays this service's variables on top. `variables` is the whole environment, by name.
    #[must_use]
    pub fn env(mut self, variables: &BTreeMap<String, String>) -> Self {
        let service = self.service.replace('-', "_").to_ascii_uppercase();
        let prefix = format!("{PREFIX}{service}__");
        for (name, text) in variables {
            if let Some(key) = name.strip_prefix(&prefix) {
                let key = key.to_ascii_lowercase().replace("__", ".");
                self.source.set(&key, text.clone(), name);
            }
        }
        self
    }

    /// Sets one key on top of everything, as an option of the command line does.
    #[must_use]
    pub fn set(mut self, key: &str, text: impl Into<String>) -> Self {
        self.source.set(key, text, COMMAND_LINE);
        self
    }

    /// Returns each key with its text as it may be logged: secrets are `***`.
    pub fn shown(&self) -> BTreeMap<String, String> {
        self.source.shown()
    }

    /// Returns the file or the variable that a key has its text from; `None` if it is a default,
    /// comes from the command line, or is not set.
    pub fn said_by(&self, key: &str) -> Option<&str> {
        self.source.origin(key).filter(|origin| ![DEFAULTS, COMMAND_LINE].contains(origin))
    }

    /// Reads the settings, and fails with every mistake at once.
    pub fn load<S: Settings>(self) -> Result<S, Mistakes> {
        self.source.load()
    }

    /// Like [`Sources::load`]; also returns every setting in effect, as it may be shown.
    pub fn load_shown<S: Settings>(self) -> Result<(S, Effective), Mistakes> {
        self.source.load_shown()
    }

    fn layer(mut self, table: &Table, origin: &str) -> Result<Self, SourcesError> {
        let mut values = BTreeMap::new();
        for (key, value) in table {
            flatten(key, value, &mut values)
                .map_err(|key| SourcesError::Unsupported { origin: String::from(origin), key })?;
        }
        self.source = self.source.overlay(Source::new(values, origin));
        Ok(self)
    }
}

impl SettingsFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, SourcesError> {
        let unreadable = |cause| SourcesError::Unreadable { path: path.to_owned(), cause };
        Self::parse(&path.display().to_string(), &fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads text; `origin` names it in mistakes.
    pub fn parse(origin: &str, text: &str) -> Result<Self, SourcesError> {
        let origin = String::from(origin);
        match text.parse() {
            Ok(table) => Ok(Self { origin, table }),
            Err(cause) => Err(not_toml(origin, text, &cause)),
        }
    }

    /// Checks that nothing stands at the top but tables of these names.
    pub fn only(&self, tables: &[&str]) -> Result<(), SourcesError> {
        match self.table.keys().find(|key| !tables.contains(&key.as_str())) {
            Some(key) => Err(SourcesError::UnknownTable {
                origin: self.origin.clone(),
                key: key.clone(),
                near: nearest(key, tables.iter().copied()).map(String::from),
                known: tables.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", "),
            }),
            None => Ok(()),
        }
    }
}

/// Returns this process's variables whose name begins with `FANFARE_`.
pub fn process_env() -> Result<BTreeMap<String, String>, SourcesError> {
    let mut variables = BTreeMap::new();
    for (name, text) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let name = String::from(name);
        match text.into_string() {
            Ok(text) => variables.insert(name, text),
            Err(_) => return Err(SourcesError::NotUnicode { name }),
        };
    }
    Ok(variables)
}

/// Adds the scalars under `key` to `values`; fails with the key of what is no setting.
fn flatten(key: &str, value: &Value, values: &mut BTreeMap<String, String>) -> Result<(), String> {
    if let Some(table) = value.as_table() {
        return table
            .iter()
            .try_for_each(|(inner, value)| flatten(&format!("{key}.{inner}"), value, values));
    }
    let elements = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let element = if value.is_array() { element } else { scalar };
    let texts: Option<Vec<_>> = elements.iter().map(element).collect();
    values.insert(String::from(key), texts.ok_or_else(|| String::from(key))?.join(","));
    Ok(())
}

/// Returns an element of an array as text, unless it could not be told apart in a list.
fn element(value: &Value) -> Option<String> {
    scalar(value).filter(|text| !text.contains(','))
}

/// Returns a single value as text, as the environment would have it.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Datetime(instant) => Some(instant.to_string()),
        Value::Array(_) | Value::Table(_) => None,
    }
}

fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean [{near}]?)")).unwrap_or_default()
}

fn not_toml(origin: String, text: &str, cause: &toml::de::Error) -> SourcesError {
    let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    SourcesError::NotToml { origin, line, message: String::from(cause.message()) }
}
