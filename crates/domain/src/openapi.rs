//! Event types out of an OpenAPI 3.1 document: its `webhooks`.
//!
//! What a webhook's POST takes as JSON becomes the schema of the event type of that name. Schemas
//! that it refers to among the document's components come along, so that it stands by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{EventType, event_type::MalformedEventType, schema::Schema};

/// Where a document keeps the schemas that others refer to.
const COMPONENTS: &str = "#/components/schemas/";

/// How many references may lead from one to the next.
const STEPS_MAX: usize = 16;

/// How long a description and an example may be, in bytes of JSON: nothing longer is copied.
const DESCRIPTION_BYTES_MAX: usize = 8 * 1_024;
const EXAMPLE_BYTES_MAX: usize = 64 * 1_024;

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
    /// It has too many webhooks.
    #[error("it has {count} webhooks, and can have {max}")]
    TooMany {
        /// How many it has.
        count: usize,
        /// How many it can have.
        max: usize,
    },
    /// What a webhook needs is too long, written out with all that it refers to.
    #[error("webhook {webhook}: its {part} is too long with all that it refers to")]
    TooLong {
        /// Which webhook.
        webhook: EventType,
        /// Which part of it.
        part: &'static str,
    },
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

/// Returns the event types of a document, each made when it is asked for. `member` is the property of
/// the bodies that holds the data, if a body is not all data; `max` is how many there may be.
pub fn webhooks<'a>(
    document: &'a Value,
    member: Option<&'a str>,
    max: usize,
) -> Result<impl Iterator<Item = Result<Webhook, OpenApiRefused>> + use<'a>, OpenApiRefused> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.1.") {
        return Err(OpenApiRefused::Version);
    }
    let webhooks = document.get("webhooks").and_then(Value::as_object);
    let webhooks = webhooks.filter(|webhooks| !webhooks.is_empty());
    let webhooks = webhooks.ok_or(OpenApiRefused::NoWebhooks)?;
    if webhooks.len() > max {
        return Err(OpenApiRefused::TooMany { count: webhooks.len(), max });
    }
    let read = move |(name, item): (&'a String, &'a Value)| {
        let malformed = |cause| OpenApiRefused::Name { name: name.clone(), cause };
        let webhook: EventType = name.parse().map_err(malformed)?;
        Reading { document, webhook: &webhook }.webhook(item, member)
    };
    Ok(webhooks.iter().map(read))
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
        if description.len() > DESCRIPTION_BYTES_MAX {
            return Err(self.too_long("description"));
        }
        let mut room = EXAMPLE_BYTES_MAX;
        if example.is_some_and(|example| take(example, &mut room).is_none()) {
            return Err(self.too_long("example"));
        }
        let schema =
            schema.map(|schema| self.standing_alone(schema).ok_or_else(|| self.too_long("schema")));
        Ok(Webhook {
            event_type: self.webhook.clone(),
            description: String::from(description),
            schema: schema.transpose()?.map_or_else(String::new, |schema| schema.to_string()),
            example: example.map_or_else(String::new, Value::to_string),
        })
    }

    fn too_long(&self, part: &'static str) -> OpenApiRefused {
        OpenApiRefused::TooLong { webhook: self.webhook.clone(), part }
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

    /// Returns a schema with all that it refers to among the components; `None` if it is too long for
    /// a schema. Never copies more than that.
    fn standing_alone(&self, schema: &Value) -> Option<Value> {
        let mut wanted = BTreeSet::new();
        let mut room = Schema::BYTES_MAX;
        take(schema, &mut room)?;
        let mut whole = rewritten(schema, &mut wanted);
        let mut definitions = BTreeMap::new();
        while let Some(name) = wanted.pop_first() {
            let found = self.document.pointer(&format!("/components/schemas/{name}"));
            let Some(found) = found else { continue };
            take(found, &mut room)?;
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
        Some(whole)
    }
}

/// Takes the room that a value needs as text; `None` if there is not enough. References to components
/// get shorter.
fn take(value: &Value, room: &mut usize) -> Option<()> {
    const SHORTER: usize = COMPONENTS.len() - "#/$defs/".len();
    let own = match value {
        Value::String(text) if text.starts_with(COMPONENTS) => text.len() - SHORTER + 2,
        Value::String(text) => text.len() + 2,
        Value::Object(members) => {
            for (key, member) in members {
                *room = room.checked_sub(key.len() + 3)?;
                take(member, room)?;
            }
            2
        }
        Value::Array(values) => {
            values.iter().try_for_each(|value| take(value, room))?;
            2
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
    };
    *room = room.checked_sub(own)?;
    Some(())
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

    fn all(document: &Value, member: Option<&str>) -> Result<Vec<Webhook>, OpenApiRefused> {
        webhooks(document, member, 10)?.collect()
    }

    #[test]
    fn a_document_is_not_multiplied() {
        let large: Map<String, Value> =
            (0..4_000).map(|n| (format!("property-{n}"), json!({ "type": "string" }))).collect();
        let item = json!({ "post": { "requestBody": { "content": { "application/json": {
            "schema": { "$ref": "#/components/schemas/Large" },
        } } } } });
        let document = |count: usize, schema: &Value| {
            let hooks: Map<String, Value> =
                (0..count).map(|n| (format!("hook.{n}"), item.clone())).collect();
            json!({
                "openapi": "3.1.0", "webhooks": hooks,
                "components": { "schemas": { "Large": schema } },
            })
        };
        let many = document(11, &json!(true));
        let refused = all(&many, None).unwrap_err();
        assert_eq!(refused, OpenApiRefused::TooMany { count: 11, max: 10 });
        // The first is refused before anything of it is copied, and no other is looked at.
        let large = document(10, &json!({ "properties": large }));
        let mut found = webhooks(&large, None, 10).unwrap();
        assert!(matches!(found.next(), Some(Err(OpenApiRefused::TooLong { part: "schema", .. }))));
        let mut room = Schema::BYTES_MAX;
        assert!(take(&large, &mut room).is_none());
        // What is just short enough for a schema is short enough here.
        let just = |length: usize| json!({ "description": "x".repeat(length) });
        let length = Schema::BYTES_MAX - just(0).to_string().len();
        let mut room = Schema::BYTES_MAX;
        assert!(take(&just(length), &mut room).is_some());
        assert_eq!(room, 0);
        let mut room = Schema::BYTES_MAX;
        assert!(take(&just(length + 1), &mut room).is_none());
    }

    #[test]
    fn a_webhook_becomes_a_type_that_stands_by_itself() {
        let found = all(&document(), Some("data")).unwrap();
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
        let found = all(&document(), None).unwrap();
        let schema = Schema::parse(&found[0].schema).unwrap();
        let violation = schema.check(br#"{"data":{"lines":1}}"#).unwrap_err();
        assert_eq!(violation.path, "/data/lines");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let changed = |pointer: &str, value: Value| {
            let mut document = document();
            *document.pointer_mut(pointer).unwrap() = value;
            all(&document, Some("data")).unwrap_err()
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
