//! An event as a condition sees it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{Context, Env, Value};
use serde_json::Value as Json;

use super::{Failed, cost::Size};
use crate::{Event, json::Unread};

/// One event, made ready for any number of conditions.
pub struct Subject(Result<(Context<'static, 'static>, Size), Failed>);

impl Subject {
    /// Makes an event ready. Reads all of its data: once is enough.
    pub fn of(event: &Event) -> Self {
        Self::new(event.event_type.as_str(), &event.attributes, &event.data)
    }

    /// The same of the parts of an event that is none yet.
    pub fn new(event_type: &str, attributes: &BTreeMap<String, String>, data: &[u8]) -> Self {
        Self(ready(event_type, attributes, data))
    }

    pub(super) fn parts(&self) -> Result<(&Context<'static, 'static>, Size), Failed> {
        self.0.as_ref().map(|(context, size)| (context, *size)).map_err(Clone::clone)
    }
}

fn ready(
    event_type: &str,
    attributes: &BTreeMap<String, String>,
    data: &[u8],
) -> Result<(Context<'static, 'static>, Size), Failed> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    let json: Json =
        serde_json::from_slice(data).map_err(|error| Failed::Data(Unread::of(&error)))?;
    let texts = attributes.iter().map(|(name, text)| name.len() + text.len());
    let bytes = texts.fold(data.len().saturating_add(event_type.len()), usize::saturating_add);
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let mut size = Size { bytes, ..Size::default() };
    size.note(attributes.len());
    let attributes: HashMap<String, Value> =
        attributes.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str()))).collect();
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_variable_from_value("type", event_type);
    context.add_variable_from_value("attributes", attributes);
    context.add_variable_from_value("data", value(json, &mut size));
    Ok((context, size))
}

impl Size {
    fn note(&mut self, elements: usize) {
        let elements = u64::try_from(elements).unwrap_or(u64::MAX);
        self.longest = self.longest.max(elements);
        self.elements = self.elements.saturating_add(elements);
    }
}

/// Numbers without a fraction are integers, so that they can be compared with those of an
/// expression as they are written.
fn value(json: Json, size: &mut Size) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(bool),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => Value::Int(signed),
            (None, Some(unsigned)) => Value::UInt(unsigned),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text)),
        Json::Array(values) => {
            size.note(values.len());
            Value::List(Arc::new(values.into_iter().map(|one| value(one, size)).collect()))
        }
        Json::Object(members) => {
            size.note(members.len());
            let members: HashMap<String, Value> =
                members.into_iter().map(|(name, member)| (name, value(member, size))).collect();
            Value::from(members)
        }
    }
}
