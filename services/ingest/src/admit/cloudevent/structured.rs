//! Structured mode: the payload is the `CloudEvent` in the JSON event format.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_domain::{
    EventType,
    json::{self, Limits},
};
use serde_json::value::RawValue;

use super::{Context, malformed};
use crate::admit::{
    metadata::Metadata,
    rejection::{Reason, Rejection},
};

/// Reads a `CloudEvent`. The data is a slice of the payload, byte for byte.
///
/// `limits` are those of the whole payload.
pub(in crate::admit) fn read(
    payload: &Bytes,
    event_type: &EventType,
    limits: &Limits,
) -> Result<(Metadata, Bytes), Rejection> {
    // Keys that occur twice are found here, so that none is lost in the map below.
    let text = json::check(payload, limits).map_err(|refused| Rejection::from(&refused))?.json;
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text.as_str())
        .map_err(|cause| malformed(format_args!("not an object: {cause}")))?;
    let mut context = Context::default();
    let mut data = Bytes::from_static(b"null");
    for (name, value) in members {
        match (name.as_str(), value.get()) {
            ("data", raw) => data = payload.slice_ref(raw.as_bytes()),
            (_, "null") => {}
            ("data_base64", _) => {
                let detail = "data_base64 is not JSON: only JSON data is carried";
                return Err(Reason::UnsupportedContentType.because(detail));
            }
            (name, raw) => context.insert(name, text_of(name, raw)?)?,
        }
    }
    Ok((context.into_metadata(event_type)?, data))
}

/// Returns an attribute's canonical string. Strings, integers and booleans are allowed.
fn text_of(name: &str, raw: &str) -> Result<String, Rejection> {
    let value: serde_json::Value = serde_json::from_str(raw)
        .map_err(|cause| malformed(format_args!("{name} cannot be read: {cause}")))?;
    match value {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Bool(_) | serde_json::Value::Number(_) => Ok(raw.to_owned()),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            Err(malformed(format_args!("{name} is neither a string nor a number nor a boolean")))
        }
    }
}
