//! How large a schema is, written out in full.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Schema, SchemaRefused};

/// How far references and parts may lead into one another: we follow them by recursion.
const DEPTH_MAX: usize = 256;

/// Keywords that make it hard to say what a reference leads to.
const REFUSED: [&str; 6] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
];

/// To find out what nobody has looked at, the parts beside it are looked at again.
const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];

/// How often the parts beside these are counted.
const UNEVALUATED_FACTOR: usize = 3;

/// What stands under a keyword.
enum Holds {
    Part,
    List,
    Map,
    /// Parts that cost nothing unless something refers to them.
    Definitions,
    Reference,
    Nothing,
}

fn holds(keyword: &str) -> Holds {
    match keyword {
        "additionalProperties"
        | "contains"
        | "contentSchema"
        | "else"
        | "if"
        | "items"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Holds::Part,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Holds::List,
        "dependentSchemas" | "patternProperties" | "properties" => Holds::Map,
        "$defs" | "definitions" => Holds::Definitions,
        "$ref" => Holds::Reference,
        _ => Holds::Nothing,
    }
}

/// Refuses a schema that is too large, or endless, written out in full.
pub(super) fn check(schema: &Value) -> Result<(), SchemaRefused> {
    if !(schema.is_object() || schema.is_boolean()) {
        return Err(SchemaRefused::Shape);
    }
    let mut full = Expansion { root: schema, known: BTreeMap::new(), open: BTreeSet::new() };
    full.parts("", schema).map(drop)
}

struct Expansion<'a> {
    root: &'a Value,
    /// How many parts there are below a pointer.
    known: BTreeMap<String, usize>,
    /// What is being looked at.
    open: BTreeSet<String>,
}

impl Expansion<'_> {
    fn parts(&mut self, at: &str, schema: &Value) -> Result<usize, SchemaRefused> {
        let Some(members) = schema.as_object() else { return Ok(1) };
        if let Some(known) = self.known.get(at) {
            return Ok(*known);
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(SchemaRefused::TooLarge);
        }
        if !self.open.insert(String::from(at)) {
            return Err(SchemaRefused::Circle { at: shown(at) });
        }
        let mut parts = 1_usize;
        for (keyword, value) in members {
            if let Some(keyword) = REFUSED.into_iter().find(|refused| refused == keyword) {
                return Err(SchemaRefused::Keyword { at: shown(at), keyword });
            }
            if keyword == "$id" && !at.is_empty() {
                return Err(SchemaRefused::Keyword { at: shown(at), keyword: "$id" });
            }
            parts = parts.saturating_add(self.under(at, keyword, value)?);
        }
        if UNEVALUATED.into_iter().any(|keyword| members.contains_key(keyword)) {
            parts = parts.saturating_mul(UNEVALUATED_FACTOR);
        }
        if parts > Schema::PARTS_MAX {
            return Err(SchemaRefused::TooLarge);
        }
        self.open.remove(at);
        self.known.insert(String::from(at), parts);
        Ok(parts)
    }

    /// Counts the parts under a keyword.
    fn under(&mut self, at: &str, keyword: &str, value: &Value) -> Result<usize, SchemaRefused> {
        let place = step(at, keyword);
        match holds(keyword) {
            Holds::Part => self.parts(&place, value),
            Holds::List => {
                let parts = value.as_array().into_iter().flatten().enumerate();
                self.all(parts.map(|(index, part)| (step(&place, &index.to_string()), part)))
            }
            Holds::Map => self.members(&place, value),
            Holds::Definitions => self.members(&place, value).map(|_parts| 0),
            Holds::Reference => self.reference(at, value),
            Holds::Nothing => Ok(0),
        }
    }

    fn members(&mut self, place: &str, value: &Value) -> Result<usize, SchemaRefused> {
        let parts = value.as_object().into_iter().flatten();
        self.all(parts.map(|(name, part)| (step(place, name), part)))
    }

    fn all<'b>(
        &mut self,
        parts: impl Iterator<Item = (String, &'b Value)>,
    ) -> Result<usize, SchemaRefused> {
        let mut sum = 0_usize;
        for (place, part) in parts {
            sum = sum.saturating_add(self.parts(&place, part)?);
        }
        Ok(sum)
    }

    fn reference(&mut self, at: &str, value: &Value) -> Result<usize, SchemaRefused> {
        // What is no text, the validator refuses.
        let Some(to) = value.as_str() else { return Ok(0) };
        let pointer = to.strip_prefix('#').filter(|pointer| {
            // Others would read an escape; nobody needs one.
            (pointer.is_empty() || pointer.starts_with('/')) && !pointer.contains('%')
        });
        let root = self.root;
        match pointer.and_then(|pointer| Some((pointer, root.pointer(pointer)?))) {
            Some((pointer, part)) => self.parts(pointer, part),
            None => {
                Err(SchemaRefused::Reference { at: shown(at), to: to.chars().take(200).collect() })
            }
        }
    }
}

fn step(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn shown(at: &str) -> String {
    String::from(if at.is_empty() { "the top" } else { at })
}
