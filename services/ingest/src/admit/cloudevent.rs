//! CloudEvents 1.0 over NATS, in binary and structured mode.
//!
//! | of the `CloudEvent` | becomes |
//! | ----------------- | ------- |
//! | `type` | attribute `ce-type` if it is not the subject's event type, which counts |
//! | `id` and `source` | the idempotency key, if no other is given: together they are unique by the specification; also attributes `ce-id` and `ce-source` |
//! | `time` | when it happened |
//! | `subject`, `dataschema` | attributes `ce-subject`, `ce-dataschema` |
//! | extensions `traceparent`, `tracestate` | the trace |
//! | extension `partitionkey` | the ordering key; also attribute `ce-partitionkey` |
//! | any other extension | attribute `ce-<name>` |
//! | `data` | the data, byte for byte; `null` if there is none |
//!
//! Data that is not JSON (`data_base64`, another `datacontenttype`) is refused.

mod binary;
mod structured;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fanfare_domain::{EventType, Timestamp, TraceContext, id::dedupe_key};
use fanfare_event_log::idempotency::IdempotencyKeys;

pub(super) use self::{
    binary::{is_binary, read as read_binary},
    structured::read as read_structured,
};
use super::{
    media,
    metadata::{Metadata, is_key},
    rejection::{Reason, Rejection},
};

/// The context attributes of a `CloudEvent` by their names, which are checked.
#[derive(Debug, Default)]
struct Context(BTreeMap<String, String>);

impl Context {
    fn insert(&mut self, name: &str, value: String) -> Result<(), Rejection> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(malformed(format_args!("attribute name {name:?} is not a-z 0-9")));
        }
        match self.0.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(malformed(format_args!("{name} is given twice"))),
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn required(&mut self, name: &str) -> Result<String, Rejection> {
        self.take(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| malformed(format_args!("{name} is missing or empty")))
    }

    /// Turns the context into what we keep of it.
    fn into_metadata(mut self, event_type: &EventType) -> Result<Metadata, Rejection> {
        let version = self.required("specversion")?;
        if version != "1.0" {
            return Err(malformed(format_args!("specversion {version:?} is not 1.0")));
        }
        if let Some(text) = self.take("datacontenttype") {
            media::json_data(&text)?;
        }
        let (id, source) = (self.required("id")?, self.required("source")?);
        let own_type = self.required("type")?;
        let occurred_at = self.take("time").map(|text| time(&text)).transpose()?;
        let (parent, state) = (self.take("traceparent"), self.take("tracestate"));
        let mut metadata = Metadata {
            occurred_at,
            ordering_key: self.0.get("partitionkey").cloned(),
            idempotency_key: Some(key(&source, &id)),
            attributes: BTreeMap::new(),
            trace: TraceContext::from_headers(parent.as_deref(), state.as_deref()),
        };
        metadata.attribute("ce-id", &id)?;
        metadata.attribute("ce-source", &source)?;
        if own_type != event_type.as_str() {
            metadata.attribute("ce-type", &own_type)?;
        }
        for (name, value) in self.0 {
            metadata.attribute(&format!("ce-{name}"), &value)?;
        }
        Ok(metadata)
    }
}

/// Makes one key of a source and an id. A source is a URI reference, so a blank ends it; what is
/// too long or strange for that is hashed.
fn key(source: &str, id: &str) -> String {
    let key = format!("{source} {id}");
    if !source.contains(' ') && is_key(&key, IdempotencyKeys::LENGTH_MAX) {
        return key;
    }
    format!("cloudevent {}", dedupe_key(&[source.as_bytes(), id.as_bytes()]))
}

fn time(text: &str) -> Result<Timestamp, Rejection> {
    Timestamp::parse(text).ok_or_else(|| malformed(format_args!("time {text:?} is not RFC 3339")))
}

fn malformed(detail: impl std::fmt::Display) -> Rejection {
    Reason::MalformedCloudEvent.because(detail)
}
