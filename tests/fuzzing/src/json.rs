//! JSON that is rewritten without being understood: it means the same afterwards.
//!
//! Checked against a parser that builds values, and against another way to look for depth and keys.

use std::{collections::BTreeSet, fmt};

use fanfare_domain::json::{Json, Limits, Refused, check};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

/// How far two doubles may be apart that were read from two ways to write one number: the other
/// parser does not round correctly.
const APART: f64 = 1e-14;

/// Reads an input as JSON.
pub fn run(input: &[u8]) {
    // Deeper than this the other parser does not go.
    let limits = Limits { bytes_max: 16 * 1_024, depth_max: 100 };
    let checked = match check(input, &limits) {
        Ok(checked) => checked,
        Err(refused) => return refused_rightly(input, &refused),
    };
    let text = checked.json.as_str();
    assert_eq!(checked.depth, depth(text), "the depth");
    assert_ne!(distinct(text), Some(false), "a key occurs twice");
    let mut compact = String::new();
    checked.json.compact(&mut compact);
    let mut again = String::new();
    Json::parse(compact.as_bytes()).expect("what is compact is JSON").compact(&mut again);
    assert_eq!(again, compact, "what is compact is left as it is");
    assert!(same(text, &compact), "what is compact means the same");
    let mut form = String::new();
    if checked.ecmascript(&mut form).is_ok() {
        let checked = check(form.as_bytes(), &limits).expect("ECMAScript's form is admitted");
        let mut again = String::new();
        checked.ecmascript(&mut again).expect("its numbers are carried");
        assert_eq!(again, form, "it is its own form");
        assert!(same(text, &form), "it means the same");
    }
}

/// What is refused for its keys has such keys, and what is no JSON is none for others.
fn refused_rightly(input: &[u8], refused: &Refused) {
    assert!(!refused.to_string().is_empty());
    match refused {
        Refused::TooLarge { .. } | Refused::TooDeep { .. } => {}
        Refused::DuplicateKey { .. } => {
            let text = std::str::from_utf8(input).expect("keys were read");
            assert_ne!(distinct(text), Some(true), "{refused}");
        }
        Refused::Malformed(_) => {
            let read = serde_json::from_slice::<Value>(input);
            assert!(read.is_err(), "{refused}");
        }
    }
}

/// Tells whether two texts mean the same; also if the other parser takes one of them for none: a
/// number may be too large for it, or a text no Unicode.
fn same(one: &str, other: &str) -> bool {
    match (serde_json::from_str(one), serde_json::from_str(other)) {
        (Ok(one), Ok(other)) => equal(&one, &other),
        (Err(_), _) | (_, Err(_)) => true,
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let [one, other] = [one, other].map(|number| number.as_f64().unwrap_or_default());
            (one - other).abs() <= APART * one.abs()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let in_other = |(key, one): (&String, &Value)| {
                other.get(key).is_some_and(|other| equal(one, other))
            };
            one.len() == other.len() && one.iter().all(in_other)
        }
        (one, other) => one == other,
    }
}

/// How many arrays and objects are within one another, by the brackets outside of texts.
fn depth(text: &str) -> usize {
    let (mut open, mut most, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => open += 1,
            b']' | b'}' => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// Tells whether no object has a key twice; `None` if a key is no Unicode.
fn distinct(text: &str) -> Option<bool> {
    let parts: Vec<&RawValue> = match text.trim_start().as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(text).ok()?;
            let names: BTreeSet<_> = members.iter().map(|(name, _)| name).collect();
            if names.len() < members.len() {
                return Some(false);
            }
            members.into_iter().map(|(_, part)| part).collect()
        }
        Some(b'[') => serde_json::from_str(text).ok()?,
        _ => Vec::new(),
    };
    let found: Vec<_> = parts.into_iter().map(|part| distinct(part.get())).collect();
    if found.contains(&Some(false)) {
        return Some(false);
    }
    found.into_iter().collect::<Option<Vec<bool>>>().map(|_| true)
}

/// An object's members, however often each occurs.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        source.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_way_to_look_sees_the_same() {
        assert_eq!(depth(r#"[{"[[":"\"["},[[]]]"#), 3);
        assert_eq!(distinct(r#"{"a":1,"b":[{"a":1}]}"#), Some(true));
        assert_eq!(distinct(r#"[{"b":[{"a":1,"\u0061":1e400}]}]"#), Some(false));
        assert_eq!(distinct(r#"{"\ud800":1}"#), None);
        assert!(same("[1.50,-0]", "[1.5,0]") && !same("[1]", "[2]"));
    }
}
