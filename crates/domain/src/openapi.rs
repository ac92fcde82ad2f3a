//! Event types out of an OpenAPI 3.1 document: its `webhooks`.
//!
//! What a webhook's POST takes as JSON becomes the schema of the event type of that name. Schemas
//! that it refers to among the document's components come along, so that it stands by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{EventType, event_type::MalformedEventType};

/// Where a document keeps the schemas that others refer to.
const COMPONENTS: &str = "#/components/schemas/";

/// How many references may lead from one to the next.
const STEPS_MAX: usize = 16;

/// An event type as a document describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The type.
    pub event_type: EventType,
    /// For people; may be empty.
    pub description: String,
    /// The schema of the data as text; empty if the document has none.
    pub schema: String,
    /// An example of the data as text; empty if the document has none.
    pub example: String,
}

/// A document that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenApiRefused {
    /// It is no such document.
    #[error("it is no OpenAPI 3.1 document: `openapi` is not 3.1.x")]
    Version,
    /// It has no webhooks.
    #[error("it has no webhooks")]
    NoWebhooks,
    /// A webhook has a name that is no event type.
    #[error("webhook {name:?}")]
    Name {
        /// The name.
        name: String,
        /// What an event type is.
        #[source]
        cause: MalformedEventType,
    },
    /// A reference leads nowhere, or through too many others.
    #[error("webhook {webhook}: {to:?} leads nowhere")]
    Reference {
        /// Which webhook.
        webhook: EventType,
        /// What it refers to.
        to: String,
    },
    /// The body of a webhook does not have the member that holds the data.
    #[error("webhook {webhook}: the body has no property {member:?}")]
    Member {
        /// Which webhook.
        webhook: EventType,
        /// The name that was given.
        member: String,
    },
}

/// Returns the event types of a document. `member` is the property of the bodies that holds the
/// data, if a body is not all data.
pub fn webhooks(document: &Value, member: Option<&str>) -> Result<Vec<Webhook>, OpenApiRefused> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.1.") {
        return Err(OpenApiRefused::Version);
    }
    let webhooks = document.get("webhooks").and_then(Value::as_object);
    let webhooks = webhooks.filter(|webhooks| !webhooks.is_empty());
    let webhooks = webhooks.ok_or(OpenApiRefused::NoWebhooks)?;
    let read = |(name, item): (&String, &Value)| {
        let malformed = |cause| OpenApiRefused::Name { name: name.clone(), cause };
        let webhook: EventType = name.parse().map_err(malformed)?;
        Reading { document, webhook: &webhook }.webhook(item, member)
    };
    webhooks.iter().map(read).collect()
}

struct Reading<'a> {
    document: &'a Value,
    webhook: &'a EventType,
}

impl<'a> Reading<'a> {
    fn webhook(&self, item: &'a Value, member: Option<&str>) -> Result<Webhook, OpenApiRefused> {
        let item = self.resolve(item)?;
        let operation = item.get("post").unwrap_or(&Value::Null);
        let words =
            [operation, item].into_iter().flat_map(|it| [it.get("description"), it.get("summary")]);
        let description = words.flatten().find_map(Value::as_str).unwrap_or_default();
        let body = self.resolve(operation.get("requestBody").unwrap_or(&Value::Null))?;
        let media = body.get("content").and_then(json_of).unwrap_or(&Value::Null);
        let mut schema = media.get("schema");
        let mut example = self.example(media)?;
        if let (Some(member), Some(whole)) = (member, schema) {
            let part = self.resolve(whole)?.get("properties").and_then(|all| all.get(member));
            let missing = || OpenApiRefused::Member {
                webhook: self.webhook.clone(),
                member: String::from(member),
            };
            schema = Some(part.ok_or_else(missing)?);
            example = example.and_then(|example| example.get(member));
        }
        let text = |value: Option<Value>| value.as_ref().map_or_else(String::new, Value::to_string);
        Ok(Webhook {
            event_type: self.webhook.clone(),
            description: String::from(description),
            schema: text(schema.map(|schema| self.standing_alone(schema))),
            example: text(example.cloned()),
        })
    }

    fn example(&self, media: &'a Value) -> Result<Option<&'a Value>, OpenApiRefused> {
        if let Some(example) = media.get("example") {
            return Ok(Some(example));
        }
        let named = media.get("examples").and_then(Value::as_object);
        if let Some(first) = named.and_then(|examples| examples.values().next()) {
            return Ok(self.resolve(first)?.get("value"));
        }
        let Some(schema) = media.get("schema") else { return Ok(None) };
        let schema = self.resolve(schema)?;
        let first = schema.get("examples").and_then(|examples| examples.get(0));
        Ok(first.or_else(|| schema.get("example")))
    }

    /// Follows references until something is none.
    fn resolve(&self, mut value: &'a Value) -> Result<&'a Value, OpenApiRefused> {
        for _ in 0..STEPS_MAX {
            let Some(to) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            let found = to.strip_prefix('#').and_then(|pointer| self.document.pointer(pointer));
            value = found.ok_or_else(|| self.nowhere(to))?;
        }
        Err(self.nowhere(value.get("$ref").and_then(Value::as_str).unwrap_or_default()))
    }

    fn nowhere(&self, to: &str) -> OpenApiRefused {
        OpenApiRefused::Reference {
            webhook: self.webhook.clone(),
            to: to.chars().take(200).collect(),
        }
    }

    /// Returns a schema with all that it refers to among the components.
    fn standing_alone(&self, schema: &Value) -> Value {
        let mut wanted = BTreeSet::new();
        let mut whole = rewritten(schema, &mut wanted);
        let mut definitions = BTreeMap::new();
        while let Some(name) = wanted.pop_first() {
            let found = self.document.pointer(&format!("/components/schemas/{name}"));
            let Some(found) = found else { continue };
            let mut more = BTreeSet::new();
            definitions.insert(name, rewritten(found, &mut more));
            wanted.extend(more.into_iter().filter(|name| !definitions.contains_key(name)));
        }
        if let Some(members) = whole.as_object_mut()
            && !definitions.is_empty()
        {
            let unescaped = |name: &str| name.replace("~1", "/").replace("~0", "~");
            let definitions = definitions.into_iter().map(|(name, part)| (unescaped(&name), part));
            let own = members.entry("$defs").or_insert_with(|| Value::Object(Map::new()));
            if let Some(own) = own.as_object_mut() {
                own.extend(definitions);
            }
        }
        whole
    }
}

/// Returns what stands under the media type of JSON.
fn json_of(content: &Value) -> Option<&Value> {
    content.get("application/json").or_else(|| {
        let all = content.as_object()?.iter();
        all.into_iter().find(|(media, _)| media.ends_with("+json")).map(|(_, value)| value)
    })
}

/// Returns a schema that refers to its own definitions instead of to components, the names of which
/// it notes as they stand in pointers.
fn rewritten(value: &Value, wanted: &mut BTreeSet<String>) -> Value {
    match value {
        Value::Object(members) => {
            let rewrite = |(key, member): (&String, &Value)| {
                let reference = member.as_str().filter(|_| key == "$ref");
                let component = reference.and_then(|to| to.strip_prefix(COMPONENTS));
                let member = match component {
                    Some(component) => {
                        let name = component.split('/').next().unwrap_or(component);
                        wanted.insert(String::from(name));
                        Value::String(format!("#/$defs/{component}"))
                    }
                    None => rewritten(member, wanted),
                };
                (key.clone(), member)
            };
            Value::Object(members.iter().map(rewrite).collect())
        }
        Value::Array(values) => {
            Value::Array(values.iter().map(|value| rewritten(value, wanted)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schema;

    fn document() -> Value {
        json!({
            "openapi": "3.1.0",
            "webhooks": {
                "invoice.paid": { "post": {
                    "summary": "An invoice was paid.",
                    "requestBody": { "$ref": "#/components/requestBodies/Invoice" },
                } },
                "user.created": { "post": { "requestBody": { "content": { "application/json": {
                    "schema": { "type": "object", "properties": { "data": { "type": "integer" } } },
                    "examples": { "first": { "value": { "data": 7 } } },
                } } } } },
            },
            "components": {
                "requestBodies": { "Invoice": { "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/Event" },
                    "example": { "data": { "lines": [{ "price": 1 }] } },
                } } } },
                "schemas": {
                    "Event": { "properties": { "data": { "$ref": "#/components/schemas/Invoice" } } },
                    "Invoice": { "properties": {
                        "lines": { "type": "array", "items": { "$ref": "#/components/schemas/a~1b" } },
                    } },
                    "a/b": { "properties": { "price": { "type": "number" } } },
                    "Unused": { "$ref": "http://127.0.0.1/" },
                },
            },
        })
    }

    #[test]
    fn a_webhook_becomes_a_type_that_stands_by_itself() {
        let found = webhooks(&document(), Some("data")).unwrap();
        let [paid, created] = &found[..] else { panic!("{found:?}") };
        assert_eq!(paid.event_type.as_str(), "invoice.paid");
        assert_eq!(paid.description, "An invoice was paid.");
        assert_eq!(paid.example, r#"{"lines":[{"price":1}]}"#);
        let schema = Schema::parse(&paid.schema).unwrap();
        assert!(schema.check(paid.example.as_bytes()).is_ok());
        let violation = schema.check(br#"{"lines":[{"price":"1"}]}"#).unwrap_err();
        assert_eq!(violation.path, "/lines/0/price");
        assert!(!paid.schema.contains("Unused"), "{}", paid.schema);
        assert_eq!(
            (created.schema.as_str(), created.example.as_str()),
            (r#"{"type":"integer"}"#, "7")
        );
    }

    #[test]
    fn without_a_member_the_body_is_the_data() {
        let found = webhooks(&document(), None).unwrap();
        let schema = Schema::parse(&found[0].schema).unwrap();
        let violation = schema.check(br#"{"data":{"lines":1}}"#).unwrap_err();
        assert_eq!(violation.path, "/data/lines");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let changed = |pointer: &str, value: Value| {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            webhooks(&document, Some("data")).unwrap_err()
        };
        assert_eq!(changed("/openapi", json!("3.0.3")), OpenApiRefused::Version);
        assert_eq!(changed("/webhooks", json!({})), OpenApiRefused::NoWebhooks);
        let bad = json!({ "a b": {} });
        assert!(matches!(changed("/webhooks", bad), OpenApiRefused::Name { .. }));
        let around = json!({ "$ref": "#/components/schemas/Event" });
        let refused = changed("/components/schemas/Event", around);
        assert!(matches!(refused, OpenApiRefused::Reference { .. }));
        let other = changed("/components/schemas/Event", json!({}));
        assert!(matches!(other, OpenApiRefused::Member { .. }));
    }
}
