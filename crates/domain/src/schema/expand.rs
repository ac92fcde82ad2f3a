//! How large a schema is, written out in full.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Schema, SchemaRefused};

/// What a schema comes to, written out in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bulk {
    /// How many parts it has, with the values that data may be compared to one by one.
    pub(super) parts: usize,
    /// How many of them look at the value itself.
    here: usize,
    /// How many look at any one value within it, at most.
    below: usize,
}

impl Bulk {
    /// How many parts look at any one value, at most: looking at data costs so much for each value.
    pub(super) fn load(self) -> usize {
        self.here.max(self.below)
    }

    fn of_itself(parts: usize) -> Self {
        Self { parts, here: parts, below: 0 }
    }

    /// The same parts, if they look at what is within the value.
    fn within(self) -> Self {
        Self { parts: self.parts, here: 0, below: self.load() }
    }

    /// Together with others that look at the same.
    fn and(self, other: Self) -> Self {
        Self {
            parts: self.parts.saturating_add(other.parts),
            here: self.here.saturating_add(other.here),
            below: self.below.saturating_add(other.below),
        }
    }

    /// Beside others that look at something else.
    fn or(self, other: Self) -> Self {
        Self {
            parts: self.parts.saturating_add(other.parts),
            here: self.here.max(other.here),
            below: self.below.max(other.below),
        }
    }

    fn times(self, factor: usize) -> Self {
        Self {
            parts: self.parts.saturating_mul(factor),
            here: self.here.saturating_mul(factor),
            below: self.below.saturating_mul(factor),
        }
    }
}

/// How far references and parts may lead into one another: we follow them by recursion.
const DEPTH_MAX: usize = 256;

/// Keywords that make it hard to say what a reference leads to,
/// and what earlier versions had for keywords of this one.
const REFUSED: [&str; 9] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "additionalItems",
    "dependencies",
    "discriminator",
];

/// To find out what nobody has looked at, the parts beside it are looked at again.
const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];

/// How often the parts beside these are counted.
const UNEVALUATED_FACTOR: usize = 3;

/// Keywords that stand at the top only.
const AT_THE_TOP: [&str; 2] = ["$id", "$schema"];

/// The most patterns, and how long they may be together, in bytes.
const PATTERNS_MAX: usize = 64;
const PATTERN_BYTES_MAX: usize = 4_096;

/// What stands under a keyword.
enum Holds {
    /// A part that looks at the same value.
    Part,
    /// The same, of what is within the value.
    Within,
    /// Parts that look at the same value.
    List,
    Map,
    /// Parts that look each at something else within the value.
    ListWithin,
    MapWithin,
    /// Parts that look at what is within the value; their names are patterns.
    Patterns,
    /// Parts that cost nothing unless something refers to them.
    Definitions,
    Reference,
    Pattern,
    /// Values that data is compared to, or names that are looked for.
    Values,
    /// Something of no size, or that nobody looks at.
    Nothing,
}

/// `None` for what is unknown.
fn holds(keyword: &str) -> Option<Holds> {
    Some(match keyword {
        "contentSchema" | "else" | "if" | "not" | "then" => Holds::Part,
        "additionalProperties"
        | "contains"
        | "items"
        | "propertyNames"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Holds::Within,
        "allOf" | "anyOf" | "oneOf" => Holds::List,
        "prefixItems" => Holds::ListWithin,
        "dependentSchemas" => Holds::Map,
        "properties" => Holds::MapWithin,
        "patternProperties" => Holds::Patterns,
        "$defs" | "definitions" => Holds::Definitions,
        "$ref" => Holds::Reference,
        "pattern" => Holds::Pattern,
        "const" | "dependentRequired" | "enum" | "required" => Holds::Values,
        // Each takes one step at most.
        "exclusiveMaximum" | "exclusiveMinimum" | "maxContains" | "maxItems" | "maxLength"
        | "maxProperties" | "maximum" | "minContains" | "minItems" | "minLength"
        | "minProperties" | "minimum" | "multipleOf" | "type" | "uniqueItems"
        // Nobody looks at these.
        | "$comment" | "$id" | "$schema" | "contentEncoding" | "contentMediaType" | "default"
        | "deprecated" | "description" | "example" | "examples" | "externalDocs" | "format"
        | "nullable" | "readOnly" | "title" | "writeOnly" | "xml" => Holds::Nothing,
        own if own.starts_with("x-") => Holds::Nothing,
        _unknown => return None,
    })
}

/// Refuses a schema that is too large, or endless, written out in full.
pub(super) fn check(schema: &Value) -> Result<Bulk, SchemaRefused> {
    if !(schema.is_object() || schema.is_boolean()) {
        return Err(SchemaRefused::Shape);
    }
    let mut full = Expansion {
        root: schema,
        known: BTreeMap::new(),
        open: BTreeSet::new(),
        patterns: 0,
        pattern_bytes: 0,
    };
    full.bulk("", schema)
}

struct Expansion<'a> {
    root: &'a Value,
    /// What a pointer leads to.
    known: BTreeMap<String, Bulk>,
    /// What is being looked at.
    open: BTreeSet<String>,
    patterns: usize,
    pattern_bytes: usize,
}

impl Expansion<'_> {
    fn bulk(&mut self, at: &str, schema: &Value) -> Result<Bulk, SchemaRefused> {
        let Some(members) = schema.as_object() else { return Ok(Bulk::of_itself(1)) };
        if let Some(known) = self.known.get(at) {
            return Ok(*known);
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(SchemaRefused::TooLarge);
        }
        if !self.open.insert(String::from(at)) {
            return Err(SchemaRefused::Circle { at: shown(at) });
        }
        let mut bulk = Bulk::of_itself(1);
        for (keyword, value) in members {
            let is_refused = REFUSED.contains(&keyword.as_str())
                || (AT_THE_TOP.contains(&keyword.as_str()) && !at.is_empty());
            let held = holds(keyword).filter(|_| !is_refused);
            let held = held.ok_or_else(|| SchemaRefused::Keyword {
                at: shown(at),
                keyword: keyword.chars().take(100).collect(),
            })?;
            bulk = bulk.and(self.under(at, keyword, &held, value)?);
        }
        if UNEVALUATED.into_iter().any(|keyword| members.contains_key(keyword)) {
            bulk = bulk.times(UNEVALUATED_FACTOR);
        }
        if bulk.parts > Schema::PARTS_MAX {
            return Err(SchemaRefused::TooLarge);
        }
        self.open.remove(at);
        self.known.insert(String::from(at), bulk);
        Ok(bulk)
    }

    /// Counts the parts under a keyword.
    fn under(
        &mut self,
        at: &str,
        keyword: &str,
        held: &Holds,
        value: &Value,
    ) -> Result<Bulk, SchemaRefused> {
        let place = step(at, keyword);
        match held {
            Holds::Part => self.bulk(&place, value),
            Holds::Within => self.bulk(&place, value).map(Bulk::within),
            Holds::List => self.list(&place, value, Bulk::and),
            Holds::ListWithin => self.list(&place, value, Bulk::or).map(Bulk::within),
            Holds::Map => self.map(&place, value, Bulk::and),
            Holds::MapWithin => self.map(&place, value, Bulk::or).map(Bulk::within),
            Holds::Definitions => self.map(&place, value, Bulk::or).map(|_unused| Bulk::default()),
            Holds::Patterns => {
                for pattern in value.as_object().into_iter().flat_map(|parts| parts.keys()) {
                    self.pattern(pattern)?;
                }
                self.map(&place, value, Bulk::and).map(Bulk::within)
            }
            Holds::Reference => self.reference(at, value),
            Holds::Pattern => {
                value.as_str().map_or(Ok(()), |pattern| self.pattern(pattern))?;
                Ok(Bulk::of_itself(1))
            }
            Holds::Values => Ok(Bulk::of_itself(values(value))),
            Holds::Nothing => Ok(Bulk::default()),
        }
    }

    fn pattern(&mut self, pattern: &str) -> Result<(), SchemaRefused> {
        self.patterns += 1;
        self.pattern_bytes = self.pattern_bytes.saturating_add(pattern.len());
        if self.patterns > PATTERNS_MAX || self.pattern_bytes > PATTERN_BYTES_MAX {
            return Err(SchemaRefused::Patterns);
        }
        Ok(())
    }

    fn list(
        &mut self,
        place: &str,
        value: &Value,
        join: fn(Bulk, Bulk) -> Bulk,
    ) -> Result<Bulk, SchemaRefused> {
        let mut all = Bulk::default();
        for (index, part) in value.as_array().into_iter().flatten().enumerate() {
            all = join(all, self.bulk(&step(place, &index.to_string()), part)?);
        }
        Ok(all)
    }

    fn map(
        &mut self,
        place: &str,
        value: &Value,
        join: fn(Bulk, Bulk) -> Bulk,
    ) -> Result<Bulk, SchemaRefused> {
        let mut all = Bulk::default();
        for (name, part) in value.as_object().into_iter().flatten() {
            all = join(all, self.bulk(&step(place, name), part)?);
        }
        Ok(all)
    }

    fn reference(&mut self, at: &str, value: &Value) -> Result<Bulk, SchemaRefused> {
        // What is no text, the validator refuses.
        let Some(to) = value.as_str() else { return Ok(Bulk::default()) };
        let pointer = to.strip_prefix('#').filter(|pointer| {
            // Others would read an escape; nobody needs one.
            (pointer.is_empty() || pointer.starts_with('/')) && !pointer.contains('%')
        });
        let root = self.root;
        match pointer.and_then(|pointer| Some((pointer, root.pointer(pointer)?))) {
            Some((pointer, part)) => self.bulk(pointer, part),
            None => {
                Err(SchemaRefused::Reference { at: shown(at), to: to.chars().take(200).collect() })
            }
        }
    }
}

/// How many values there are, within others too.
fn values(value: &Value) -> usize {
    let within: usize = match value {
        Value::Array(all) => all.iter().map(values).sum(),
        Value::Object(all) => all.values().map(values).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    within + 1
}

fn step(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn shown(at: &str) -> String {
    String::from(if at.is_empty() { "the top" } else { at })
}
