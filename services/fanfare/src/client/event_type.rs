//! `fanfare event-type`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use fanfare_domain::{EventType, TenantId};
use serde_json::{Map, Value, json};

use super::{
    again::Watch,
    api::{Api, text},
    text::printable,
};
use crate::output::{Output, Tone};

const CREATE_EXAMPLES: &str = "\
Examples:
  fanfare event-type create invoice.paid --tenant acme --description 'An invoice was paid.'
  fanfare event-type create invoice.paid --schema invoice.schema.json --validation enforce";

const IMPORT_EXAMPLES: &str = "\
Examples:
  fanfare event-type import openapi.json --tenant acme --data-property data --validation report
  fanfare event-type import --profile kyberaccess";

/// What can be done with catalogues of event types.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add an event type to a catalogue.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Change),
    /// List the event types of a catalogue.
    List {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show an event type.
    Get {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        watch: Watch,
    },
    /// Change an event type: what is not given stays as it is.
    Update(Change),
    /// Take an event type out of a catalogue.
    Delete(Named),
    /// Add event types from an OpenAPI 3.1 document, or from a profile.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(Import),
}

/// A catalogue.
#[derive(Args, Clone, Debug)]
pub(crate) struct Whose {
    /// The tenant; without it, the catalogue is the installation's, which counts for every tenant
    /// that has no entry of its own.
    #[arg(long)]
    tenant: Option<TenantId>,
}

/// An event type of a catalogue.
#[derive(Args, Clone, Debug)]
pub(crate) struct Named {
    /// The event type: dot-separated words.
    #[arg(value_name = "TYPE")]
    event_type: EventType,
    #[command(flatten)]
    whose: Whose,
}

/// An event type as it is to be.
#[derive(Args, Clone, Debug)]
pub(crate) struct Change {
    #[command(flatten)]
    named: Named,
    /// What people should know.
    #[arg(long)]
    description: Option<String>,
    /// A file with the JSON Schema (2020-12) of the data.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// A file with an example of the data.
    #[arg(long, value_name = "FILE")]
    example: Option<PathBuf>,
    /// What becomes of events whose data does not follow the schema.
    #[arg(long, value_enum)]
    validation: Option<Validation>,
}

/// Where event types come from.
#[derive(Args, Clone, Debug)]
#[group(id = "source", required = true, multiple = false, args = ["file", "profile"])]
pub(crate) struct Import {
    /// An OpenAPI 3.1 document as JSON, with webhooks.
    file: Option<PathBuf>,
    /// The profile whose reference catalogue to take.
    #[arg(long)]
    profile: Option<String>,
    /// The property of the document's bodies that holds the data, if a body is not all data.
    #[arg(long, value_name = "NAME", conflicts_with = "profile")]
    data_property: Option<String>,
    /// What becomes of events whose data does not follow the schema.
    #[arg(long, value_enum)]
    validation: Option<Validation>,
    #[command(flatten)]
    whose: Whose,
}

/// What becomes of events whose data does not follow the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Validation {
    /// Nobody looks.
    Off,
    /// They are taken; it is counted, and told in the log.
    Report,
    /// They are refused.
    Enforce,
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::Create(change) => {
            let mut body = change.members()?;
            body.insert(String::from("type"), json!(change.named.event_type.as_str()));
            let made = api.post(&change.named.whose.path(), &Value::Object(body)).await?;
            show(&made, output);
        }
        Command::List { whose, watch } => {
            watch.list((api, &whose.path()), list, output).await?;
        }
        Command::Get { named, watch } => watch.one((api, &named.path()), show, output).await?,
        Command::Update(change) => {
            let body = Value::Object(change.members()?);
            show(&api.patch(&change.named.path(), &body).await?, output);
        }
        Command::Delete(named) => {
            api.delete(&named.path()).await?;
            if output.json {
                output.document(&json!({ "type": named.event_type.as_str(), "deleted": true }));
            } else {
                output.line(&format!("deleted {}", named.event_type));
            }
        }
        Command::Import(import) => {
            let imported = api.post(&import.path(), &import.body()?).await?;
            show_imported(&imported, output);
        }
    }
    Ok(())
}

impl Whose {
    fn path(&self) -> String {
        format!("{}/event-types", self.place())
    }

    fn place(&self) -> String {
        match &self.tenant {
            Some(tenant) => super::tenant::path(tenant),
            None => String::from("/v1"),
        }
    }
}

impl Named {
    fn path(&self) -> String {
        format!("{}/{}", self.whose.path(), self.event_type)
    }
}

impl Change {
    fn members(&self) -> Result<Map<String, Value>> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        let all = [
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("schema", file(&self.schema)?),
            ("example", file(&self.example)?),
            ("validation", self.validation.map(|validation| json!(validation.name()))),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((String::from(name), value?)));
        Ok(given.collect())
    }
}

impl Import {
    fn path(&self) -> String {
        format!("{}/event-type-imports", self.whose.place())
    }

    fn body(&self) -> Result<Value> {
        let all = [
            ("openapi", self.file.as_deref().map(read).transpose()?),
            ("profile", self.profile.as_ref().map(|name| json!(name))),
            ("data_property", self.data_property.as_ref().map(|name| json!(name))),
            ("validation", self.validation.map(|validation| json!(validation.name()))),
        ];
        let given = all.into_iter().filter_map(|(name, value)| Some((String::from(name), value?)));
        Ok(Value::Object(given.collect()))
    }
}

impl Validation {
    const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Enforce => "enforce",
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn show(entry: &Value, output: Output) {
    if output.json {
        output.document(entry);
        return;
    }
    let json = |name| match entry.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(value) => printable(&value.to_string()),
    };
    let tenant = text(entry, "tenant_id");
    output.fields(&[
        ("type", output.tone(Tone::Strong, text(entry, "type"))),
        ("tenant", String::from(if tenant.is_empty() { "all" } else { tenant })),
        ("description", printable(text(entry, "description"))),
        ("validation", String::from(text(entry, "validation"))),
        ("schema", json("schema")),
        ("example", json("example")),
    ]);
}

fn list(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let found = found.as_array().map_or(&[][..], Vec::as_slice);
    if found.is_empty() {
        output.line("There are no event types in this catalogue.");
        return;
    }
    let row = |entry: &Value| {
        let has_schema = entry.get("schema").is_some_and(|schema| !schema.is_null());
        vec![
            String::from(text(entry, "type")),
            String::from(text(entry, "validation")),
            String::from(if has_schema { "yes" } else { "" }),
            printable(text(entry, "description")),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    output.table(&["type", "validation", "schema", "description"], &rows);
}

fn show_imported(imported: &Value, output: Output) {
    if output.json {
        output.document(imported);
        return;
    }
    for what in ["created", "updated", "unchanged"] {
        let names = imported.get(what).and_then(Value::as_array).into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            output.line(&format!("{what} {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn read_line(words: &str) -> Option<Command> {
        let words = format!("x {words}");
        Line::try_parse_from(words.split_whitespace()).ok().map(|line| line.command)
    }

    #[test]
    fn only_what_is_given_is_sent() {
        let Some(Command::Update(change)) =
            read_line("update a.b --tenant acme --validation report --description d")
        else {
            panic!("it is an update")
        };
        assert_eq!(change.named.path(), "/v1/tenants/acme/event-types/a.b");
        let expected = json!({ "description": "d", "validation": "report" });
        assert_eq!(Value::Object(change.members().unwrap()), expected);
    }

    #[test]
    fn an_import_has_one_source() {
        let Some(Command::Import(import)) = read_line("import --profile killb") else {
            panic!("it is an import")
        };
        assert_eq!(import.path(), "/v1/event-type-imports");
        assert_eq!(import.body().unwrap(), json!({ "profile": "killb" }));
        assert!(read_line("import").is_none());
        assert!(read_line("import openapi.json --profile killb").is_none());
    }
}
