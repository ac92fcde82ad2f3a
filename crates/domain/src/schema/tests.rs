//! Schemas of all kinds, and what they say of data.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(value: &Value) -> Schema {
    Schema::parse(&value.to_string()).unwrap()
}

fn refused(value: &Value) -> SchemaRefused {
    Schema::parse(&value.to_string()).unwrap_err()
}

#[test]
fn data_is_told_where_it_leaves_its_schema() {
    let invoice = schema(&json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": { "type": "string" },
            "lines": { "type": "array", "items": { "$ref": "#/$defs/line" } },
        },
        "$defs": { "line": { "properties": { "price": { "type": "number", "minimum": 0 } } } },
    }));
    for (data, path) in [
        (r#"{"id":"1","lines":[{"price":1},{"price":0.5}]}"#, None),
        (r#"{"lines":[]}"#, Some("")),
        (r#"{"id":7}"#, Some("/id")),
        (r#"{"id":"1","lines":[{"price":1},{"price":-1}]}"#, Some("/lines/1/price")),
        (r#"{"id":"\ud800"}"#, Some("")),
        (r#"{"id":"1","lines":[1e400]}"#, Some("")),
    ] {
        let found = invoice.check(data.as_bytes()).err().map(|violation| violation.path);
        assert_eq!(found.as_deref(), path, "{data}");
    }
}

#[test]
fn what_is_wrong_is_said_without_the_data() {
    let violation = schema(&json!({ "maxLength": 3 })).check(br#""a secret""#).unwrap_err();
    assert!(!violation.to_string().contains("secret"), "{violation}");
    assert!(violation.to_string().starts_with("the top: "), "{violation}");
    assert_eq!(violation.keyword, "/maxLength");
    let number = schema(&json!(true)).check(b"1e400").unwrap_err();
    assert!(number.reason.contains("number"), "{number}");
}

#[test]
fn nothing_is_fetched() {
    for reference in [
        "http://127.0.0.1:1/schema",
        "file:///etc/hostname",
        "other.json",
        "https://json-schema.org/draft/2020-12/schema",
        "#anchor",
        "#/$defs/none",
        "#/$defs/%61",
    ] {
        let schema = json!({ "$ref": reference, "$defs": { "a": true } });
        assert!(matches!(refused(&schema), SchemaRefused::Reference { .. }), "{reference}");
    }
    let outer = json!({ "$schema": "http://127.0.0.1:1/meta" });
    assert!(matches!(refused(&outer), SchemaRefused::Draft(_)));
    let inner = json!({ "properties": { "a": { "$id": "http://127.0.0.1:1/", "$ref": "b" } } });
    assert!(matches!(refused(&inner), SchemaRefused::Keyword { keyword, .. } if keyword == "$id"));
    let of_its_own = json!({ "properties": { "a": { "$schema": "http://127.0.0.1:1/meta" } } });
    let refused = refused(&of_its_own);
    assert!(matches!(refused, SchemaRefused::Keyword { keyword, .. } if keyword == "$schema"));
}

#[test]
fn a_schema_in_a_circle_is_refused() {
    for circle in [
        json!({ "$ref": "#" }),
        json!({ "properties": { "child": { "$ref": "#" } } }),
        json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "not": { "$ref": "#/$defs/a" } } } }),
        json!({ "allOf": [{ "$ref": "#/allOf/0" }] }),
    ] {
        assert!(matches!(refused(&circle), SchemaRefused::Circle { .. }), "{circle}");
    }
}

#[test]
fn a_schema_that_explodes_is_refused() {
    let mut levels = serde_json::Map::new();
    levels.insert(String::from("0"), json!({ "type": "string" }));
    for level in 1..40 {
        let below = json!({ "$ref": format!("#/$defs/{}", level - 1) });
        let twice = json!({ "properties": { "a": below.clone() }, "allOf": [below] });
        levels.insert(level.to_string(), twice);
    }
    let bomb = json!({ "$ref": "#/$defs/39", "$defs": levels });
    assert_eq!(refused(&bomb), SchemaRefused::TooLarge);
    let chain: serde_json::Map<String, Value> = (1..2_000)
        .map(|n| (n.to_string(), json!({ "$ref": format!("#/$defs/{}", n - 1) })))
        .collect();
    let long = json!({ "$ref": "#/$defs/1999", "$defs": chain });
    assert!(matches!(refused(&long), SchemaRefused::TooLarge | SchemaRefused::Reference { .. }));
}

/// The n-th level of a schema whose parts double with each.
fn doubled(keyword: &str, levels: usize) -> Value {
    let level = |n: usize| {
        let below = json!({ "$ref": format!("#/$defs/{}", n - 1) });
        let twice = match keyword {
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => json!({ keyword: [below, below] }),
            "properties" | "dependentSchemas" | "patternProperties" | "dependencies" => {
                json!({ keyword: { "a": below, "b": below } })
            }
            _ => json!({ keyword: below, "allOf": [below] }),
        };
        (n.to_string(), twice)
    };
    let mut definitions: serde_json::Map<String, Value> = (1..=levels).map(level).collect();
    definitions.insert(String::from("0"), json!({ "type": "string" }));
    json!({ "$ref": format!("#/$defs/{levels}"), "$defs": definitions })
}

#[test]
fn whatever_keyword_doubles_the_parts_is_counted_or_refused() {
    for keyword in [
        "allOf",
        "anyOf",
        "oneOf",
        "prefixItems",
        "properties",
        "dependentSchemas",
        "not",
        "if",
        "items",
        "contains",
        "additionalProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
        "contentSchema",
        "then",
        "else",
    ] {
        assert_eq!(refused(&doubled(keyword, 30)), SchemaRefused::TooLarge, "{keyword}");
        let small = doubled(keyword, 3);
        assert!(expand::check(&small).unwrap().parts >= 8, "{keyword}");
    }
    assert_eq!(refused(&doubled("patternProperties", 40)), SchemaRefused::TooLarge);
    for keyword in ["dependencies", "additionalItems", "discriminator", "$dynamicRef", "unknown"] {
        let refused = refused(&doubled(keyword, 30));
        assert!(matches!(refused, SchemaRefused::Keyword { .. }), "{keyword}: {refused}");
    }
    assert!(Schema::parse(r#"{"x-own":{"$ref":"nowhere"},"format":"email"}"#).is_ok());
}

#[test]
fn values_and_names_count_as_parts() {
    let many: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    for bomb in [
        json!({ "enum": many }),
        json!({ "const": many }),
        json!({ "required": many }),
        json!({ "dependentRequired": { "a": many } }),
        json!({ "enum": [[many]] }),
    ] {
        assert_eq!(refused(&bomb), SchemaRefused::TooLarge);
    }
    let thousand = json!({ "items": { "enum": &many[..1_000] } });
    let bulk = expand::check(&thousand).unwrap();
    assert!((1_000..1_010).contains(&bulk.load()), "{bulk:?}");
}

#[test]
fn the_work_on_data_is_limited() {
    let many: Vec<u32> = (0..4_000).collect();
    let wide = schema(&json!({ "items": { "enum": many } }));
    assert_eq!(wide.work(1_000) / 1_000, wide.load);
    let large = format!("[{}1]", "1,".repeat(50_000));
    let refused = wide.check(large.as_bytes()).unwrap_err();
    assert!(refused.reason.contains("too many"), "{refused}");
    assert!(wide.check(b"[1,2]").is_ok());
    // Properties look at different values: a schema may have many.
    let properties: serde_json::Map<String, Value> =
        (0..1_000).map(|n| (n.to_string(), json!({ "type": "integer" }))).collect();
    let flat = schema(&json!({ "properties": properties }));
    assert!(flat.load <= 4, "{}", flat.load);
    assert!(flat.check(large.as_bytes()).is_ok());
}

#[test]
fn patterns_are_few_and_small() {
    for pattern in ["(?:x{1000}){1000}", r"\pL{500}", r"[\w]{1000}"] {
        let schema = json!({ "pattern": pattern });
        assert!(matches!(refused(&schema), SchemaRefused::Invalid { .. }), "{pattern}");
        let schema = json!({ "patternProperties": { pattern: true } });
        assert!(matches!(refused(&schema), SchemaRefused::Invalid { .. }), "{pattern}");
    }
    let many: Vec<Value> = (0..65).map(|n| json!({ "pattern": n.to_string() })).collect();
    assert_eq!(refused(&json!({ "allOf": many })), SchemaRefused::Patterns);
    let names: serde_json::Map<String, Value> =
        (0..65).map(|n| (n.to_string(), json!(true))).collect();
    assert_eq!(refused(&json!({ "patternProperties": names })), SchemaRefused::Patterns);
    let long = json!({ "pattern": "x".repeat(4_097) });
    assert_eq!(refused(&long), SchemaRefused::Patterns);
    assert!(Schema::parse(r#"{"pattern":"^[a-z]{2}-[0-9]{1,8}$"}"#).is_ok());
}

#[test]
fn what_is_no_schema_is_refused() {
    for (text, kind) in [
        ("", "json"),
        ("[]", "shape"),
        (r#"{"type":"object","type":"string"}"#, "json"),
        (r#"{"type":"objekt"}"#, "invalid"),
        (r##"{"$dynamicRef":"#x"}"##, "keyword"),
        (r#"{"pattern":"(?=x)x"}"#, "invalid"),
        (r#"{"$schema":"http://json-schema.org/draft-07/schema#"}"#, "draft"),
    ] {
        let found = match Schema::parse(text).unwrap_err() {
            SchemaRefused::Json(_) => "json",
            SchemaRefused::Shape => "shape",
            SchemaRefused::Invalid { .. } => "invalid",
            SchemaRefused::Keyword { .. } => "keyword",
            SchemaRefused::Draft(_) => "draft",
            SchemaRefused::TooLong { .. }
            | SchemaRefused::Reference { .. }
            | SchemaRefused::Circle { .. }
            | SchemaRefused::Patterns
            | SchemaRefused::TooLarge => "",
        };
        assert_eq!(found, kind, "{text}");
    }
    let long = format!("{{\"description\":\"{}\"}}", "x".repeat(Schema::BYTES_MAX));
    assert!(matches!(Schema::parse(&long), Err(SchemaRefused::TooLong { .. })));
    let deep = format!("{}1{}", r#"{"not":"#.repeat(65), "}".repeat(65));
    assert!(matches!(Schema::parse(&deep), Err(SchemaRefused::Json(_))));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        "#(/[$a-z]{1,5}){0,2}".prop_map(Value::from),
    ];
    let keyword = prop_oneof![
        1 => "[a-z$]{0,4}",
        6 => prop::sample::select(
            &[
                "$ref",
                "$defs",
                "properties",
                "items",
                "allOf",
                "not",
                "type",
                "pattern",
                "if",
                "then",
                "anyOf",
                "oneOf",
                "enum",
                "const",
                "required",
                "contains",
                "prefixItems",
                "dependentSchemas",
                "dependentRequired",
                "dependencies",
                "patternProperties",
                "unevaluatedItems",
                "unevaluatedProperties",
                "uniqueItems",
            ][..]
        )
        .prop_map(String::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keyword.clone(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_data_make_it_panic(schema in any_json(), data in any_json()) {
        if let Ok(schema) = Schema::parse(&schema.to_string()) {
            drop(schema.check(data.to_string().as_bytes()));
        }
    }
}
