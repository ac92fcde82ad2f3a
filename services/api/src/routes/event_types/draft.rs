//! An event type as it is sent, kept and shown. Decisions only.

use fanfare_domain::{
    TenantId,
    config::{EventTypeEntry, Validation},
    json::{self, Limits},
    schema::Schema,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    error::ApiError,
    extract::Patched,
    limits::{self, DESCRIPTION_BYTES_MAX},
};

/// The longest example, in bytes.
const EXAMPLE_BYTES_MAX: usize = 64 * 1_024;

/// An entry of a catalogue of event types.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventType)]
pub(crate) struct EventTypeView {
    /// The type.
    #[serde(rename = "type")]
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// Whose catalogue it is in; `null` for the installation's.
    #[schema(required)]
    tenant_id: Option<String>,
    /// For people; may be empty.
    description: String,
    /// What the data looks like: a JSON Schema (2020-12); `null` if there is none.
    #[schema(required, value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    /// An example of the data; `null` if there is none.
    #[schema(required, value_type = Option<serde_json::Value>)]
    example: Option<Box<RawValue>>,
    /// What becomes of events whose data does not follow the schema.
    validation: ValidationName,
}

/// An event type to be added to a catalogue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEventType {
    /// The type: dot-separated words.
    #[serde(rename = "type")]
    #[schema(example = "invoice.paid")]
    event_type: String,
    /// For people; up to 2,048 bytes.
    #[serde(default)]
    description: String,
    /// What the data looks like: a JSON Schema (2020-12) of up to 64 KiB. It refers to nothing but
    /// its own parts (`#/$defs/…`), and not to itself in a circle.
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    /// An example of the data, up to 64 KiB; it has to follow the schema.
    #[schema(value_type = Option<serde_json::Value>)]
    example: Option<Box<RawValue>>,
    /// What becomes of events whose data does not follow the schema; `off` if left out.
    validation: Option<ValidationName>,
}

/// What to change about an event type (RFC 7396): what is left out stays, `null` takes it away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventTypePatch {
    /// For people; up to 2,048 bytes.
    description: Option<String>,
    /// What the data looks like: all of the schema, it is not merged.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    schema: Patched<Box<RawValue>>,
    /// An example of the data.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    example: Patched<Box<RawValue>>,
    /// What becomes of events whose data does not follow the schema.
    validation: Option<ValidationName>,
}

/// What becomes of events whose data does not follow the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Validation)]
pub(super) enum ValidationName {
    /// Nobody looks.
    #[default]
    Off,
    /// They are taken; it is counted, and told in the log.
    Report,
    /// They are refused.
    Enforce,
}

impl ValidationName {
    const fn of(validation: Validation) -> Self {
        match validation {
            Validation::Off => Self::Off,
            Validation::Report => Self::Report,
            Validation::Enforce => Self::Enforce,
        }
    }

    /// Returns what it stands for.
    pub(super) const fn admit(self) -> Validation {
        match self {
            Self::Off => Validation::Off,
            Self::Report => Validation::Report,
            Self::Enforce => Validation::Enforce,
        }
    }
}

impl EventTypeView {
    /// Shows an entry.
    pub(super) fn of(entry: &EventTypeEntry) -> Self {
        Self {
            event_type: entry.event_type.to_string(),
            tenant_id: entry.tenant.as_ref().map(TenantId::to_string),
            description: entry.description.clone(),
            schema: raw(&entry.schema),
            example: raw(&entry.example),
            validation: ValidationName::of(entry.validation),
        }
    }
}

impl NewEventType {
    /// Checks what a caller sent.
    pub(super) fn admit(self, tenant: Option<&TenantId>) -> Result<EventTypeEntry, ApiError> {
        let text =
            |value: Option<Box<RawValue>>| value.as_deref().map_or_else(String::new, compact);
        let entry = EventTypeEntry {
            tenant: tenant.cloned(),
            event_type: self.event_type.parse().map_err(|why| ApiError::value("type", why))?,
            description: self.description,
            schema: text(self.schema),
            example: text(self.example),
            validation: self.validation.unwrap_or_default().admit(),
        };
        check(&entry)?;
        Ok(entry)
    }
}

impl EventTypePatch {
    /// Returns the entry as the patch wants it.
    pub(super) fn apply(&self, entry: &EventTypeEntry) -> Result<EventTypeEntry, ApiError> {
        let mut next = entry.clone();
        if let Some(description) = &self.description {
            next.description.clone_from(description);
        }
        set(&self.schema, &mut next.schema);
        set(&self.example, &mut next.example);
        next.validation = self.validation.map_or(next.validation, ValidationName::admit);
        check(&next)?;
        Ok(next)
    }
}

fn set(patched: &Patched<Box<RawValue>>, text: &mut String) {
    match patched {
        Patched::Absent => {}
        Patched::Null => text.clear(),
        Patched::Value(value) => *text = compact(value),
    }
}

/// Admits an entry.
pub(super) fn check(entry: &EventTypeEntry) -> Result<(), ApiError> {
    limits::text("description", &entry.description, DESCRIPTION_BYTES_MAX)?;
    let schema = match entry.schema.as_str() {
        "" => None,
        text => Some(Schema::parse(text).map_err(|why| ApiError::value("schema", why))?),
    };
    if schema.is_none() && entry.validation != Validation::Off {
        return Err(ApiError::value("validation", "there is no schema to look at"));
    }
    if entry.example.is_empty() {
        return Ok(());
    }
    let refused = |why: &dyn std::fmt::Display| ApiError::value("example", why);
    let limits = Limits { bytes_max: EXAMPLE_BYTES_MAX, ..Limits::default() };
    json::check(entry.example.as_bytes(), &limits).map_err(|why| refused(&why))?;
    match schema {
        Some(schema) => {
            schema.check(entry.example.as_bytes()).map_err(|violation| refused(&violation))
        }
        None => Ok(()),
    }
}

/// Returns a value without white space, and otherwise as it was sent.
fn compact(value: &RawValue) -> String {
    let mut text = String::new();
    match json::Json::parse(value.get().as_bytes()) {
        Ok(json) => json.compact(&mut text),
        Err(_) => text.push_str(value.get()),
    }
    text
}

/// Shows what was admitted.
fn raw(text: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(String::from(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    fn admit(json: &str) -> Result<EventTypeEntry, ApiError> {
        serde_json::from_str::<NewEventType>(json).unwrap().admit(None)
    }

    fn field(refused: Result<EventTypeEntry, ApiError>) -> String {
        let refused = refused.unwrap_err();
        let ApiError::Value { field, .. } = refused else { panic!("{refused}") };
        field
    }

    #[test]
    fn an_entry_is_kept_as_it_was_sent() {
        let json = r#"{"type":"a.b","schema":{ "type": "object" },"example":{"n": 1.50},"validation":"enforce"}"#;
        let entry = admit(json).unwrap();
        assert_eq!(entry.schema, r#"{"type":"object"}"#);
        assert_eq!(entry.example, r#"{"n":1.50}"#);
        let shown = serde_json::to_string(&EventTypeView::of(&entry)).unwrap();
        let expected = r#"{"type":"a.b","tenant_id":null,"description":"","schema":{"type":"object"},"example":{"n":1.50},"validation":"enforce"}"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (json, expected) in [
            (r#"{"type":"a b"}"#, "type"),
            (r#"{"type":"a","validation":"report"}"#, "validation"),
            (r#"{"type":"a","schema":{"type":"objekt"}}"#, "schema"),
            (r#"{"type":"a","schema":{"$ref":"http://127.0.0.1/"}}"#, "schema"),
            (r#"{"type":"a","schema":{"type":"object"},"example":1}"#, "example"),
            (r#"{"type":"a","example":{"a":1,"a":2}}"#, "example"),
        ] {
            assert_eq!(field(admit(json)), expected, "{json}");
        }
        assert_eq!(admit(r#"{"type":""}"#).unwrap_err().code(), Code::ValueInvalid);
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let entry =
            admit(r#"{"type":"a","schema":true,"example":1,"validation":"report"}"#).unwrap();
        let patch = |json: &str| serde_json::from_str::<EventTypePatch>(json).unwrap();
        assert_eq!(patch("{}").apply(&entry).unwrap(), entry);
        let next = patch(r#"{"example":null,"description":"d"}"#).apply(&entry).unwrap();
        assert_eq!((next.example.as_str(), next.description.as_str()), ("", "d"));
        assert_eq!(next.schema, "true");
        assert_eq!(field(patch(r#"{"schema":null}"#).apply(&entry)), "validation");
        assert!(patch(r#"{"schema":null,"validation":"off"}"#).apply(&entry).is_ok());
    }
}
