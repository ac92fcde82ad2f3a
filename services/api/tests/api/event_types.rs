//! Catalogues of event types.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::World;

const TYPES: &str = "/v1/tenants/acme/event-types";

#[tokio::test]
async fn a_type_is_made_shown_changed_and_deleted() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let new = json!({
        "type": "invoice.paid", "description": "Paid.", "schema": {"type": "object"},
        "example": {"n": 1}, "validation": "enforce",
    });
    for (types, tenant) in [(TYPES, json!("acme")), ("/v1/event-types", Value::Null)] {
        let made = world.post(types, new.clone()).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let path = format!("{types}/invoice.paid");
        assert_eq!(made.headers["location"], path.as_str());
        let mut expected = new.clone();
        expected["tenant_id"] = tenant;
        assert_eq!(made.body, expected);
        assert_eq!(world.get(&path).await?.body, expected);
        assert_eq!(world.post(types, new.clone()).await?.code(), "event_type_exists");
        let change = json!({"validation": "report", "example": null});
        let changed = world.call(Method::PATCH, &path, change).await?;
        assert_eq!(
            (changed.text("validation").as_str(), &changed.body["example"]),
            ("report", &Value::Null)
        );
        let bad = world.call(Method::PATCH, &path, json!({"schema": null})).await?;
        assert_eq!((bad.code(), bad.text("field").as_str()), ("value_invalid", "validation"));
        for expected in [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND] {
            assert_eq!(world.call(Method::DELETE, &path, Value::Null).await?.status, expected);
        }
        assert_eq!(world.get(&path).await?.code(), "event_type_not_found");
        assert_eq!(world.post(types, new.clone()).await?.status, StatusCode::CREATED, "again");
    }
    Ok(())
}

#[tokio::test]
async fn catalogues_are_listed_a_page_at_a_time() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    for name in ["b", "a.b", "a", "c"] {
        world.post(TYPES, json!({"type": name})).await?;
    }
    world.post("/v1/event-types", json!({"type": "everybodys"})).await?;
    let first = world.get(&format!("{TYPES}?limit=3")).await?;
    let names =
        |page: &[Value]| -> Vec<Value> { page.iter().map(|it| it["type"].clone()).collect() };
    assert_eq!(names(first.data()), ["a", "a.b", "b"]);
    let next = first.next().expect("there is more");
    let second = world.get(&format!("{TYPES}?limit=3{next}")).await?;
    assert_eq!(names(second.data()), ["c"]);
    assert!(second.next().is_none());
    Ok(())
}

#[tokio::test]
async fn who_may_do_what() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    world.tenant("other", "standard-webhooks").await?;
    let (_, admin) = world.key(Some("acme"), "admin").await?;
    let (_, reader) = world.key(Some("acme"), "read").await?;
    let others = "/v1/tenants/other/event-types";
    for (key, path, expected) in [
        (&admin, TYPES, StatusCode::CREATED),
        (&reader, TYPES, StatusCode::FORBIDDEN),
        (&admin, "/v1/event-types", StatusCode::FORBIDDEN),
        (&admin, others, StatusCode::NOT_FOUND),
    ] {
        let new = json!({"type": "a"});
        let answer = world.api.call(Method::POST, path, Some(key), new).await?;
        assert_eq!(answer.status, expected, "{path} {answer:?}");
    }
    let listed = world.api.call(Method::GET, TYPES, Some(&reader), Value::Null).await?;
    assert_eq!(listed.data().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_deleted_tenants_types_are_gone() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    world.post(TYPES, json!({"type": "a"})).await?;
    let deleted = world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    world.tenant("acme", "standard-webhooks").await?;
    assert!(world.get(TYPES).await?.data().is_empty());
    Ok(())
}

#[tokio::test]
async fn webhooks_of_openapi_become_types() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let document = |kind: &str| {
        json!({
            "openapi": "3.1.0",
            "webhooks": {"invoice.paid": {"post": {"summary": "Paid.", "requestBody": {"content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Invoice"}},
            }}}}},
            "components": {"schemas": {"Invoice": {"properties": {"data": {"type": kind}}}}},
        })
    };
    let path = "/v1/tenants/acme/event-type-imports";
    let import = |kind| {
        json!({
            "openapi": document(kind), "data_property": "data", "validation": "enforce",
        })
    };
    for (kind, outcome) in [("object", "created"), ("object", "unchanged"), ("array", "updated")] {
        let answer = world.post(path, import(kind)).await?;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        for name in ["created", "updated", "unchanged"] {
            let expected = if name == outcome { json!(["invoice.paid"]) } else { json!([]) };
            assert_eq!(answer.body[name], expected, "{kind} {name}");
        }
    }
    let entry = world.get(&format!("{TYPES}/invoice.paid")).await?.body;
    assert_eq!(entry["schema"], json!({"type": "array"}));
    assert_eq!(entry["validation"], json!("enforce"));
    let bad = world.post(path, json!({"openapi": {"openapi": "3.0.0"}})).await?;
    assert_eq!((bad.code(), bad.text("field").as_str()), ("value_invalid", "openapi"));
    assert_eq!(world.post(path, json!({})).await?.code(), "value_invalid");
    Ok(())
}

#[tokio::test]
async fn an_import_ends_no_enforcement_and_keeps_the_limit() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let path = "/v1/tenants/acme/event-type-imports";
    let strict = json!({
        "type": "hook.0", "schema": {"type": "object"}, "example": {}, "validation": "enforce",
    });
    world.post(TYPES, strict).await?;
    let bare = |names: std::ops::Range<usize>| {
        let hooks: serde_json::Map<String, Value> = names
            .map(|n| (format!("hook.{n}"), json!({"post": {"description": "of the document"}})))
            .collect();
        json!({"openapi": "3.1.0", "webhooks": hooks})
    };
    let answer = world.post(path, json!({"openapi": bare(0..1)})).await?;
    assert_eq!(answer.body["updated"], json!(["hook.0"]), "{answer:?}");
    let entry = world.get(&format!("{TYPES}/hook.0")).await?.body;
    assert_eq!(entry["description"], json!("of the document"));
    assert_eq!((&entry["schema"], &entry["example"]), (&json!({"type": "object"}), &json!({})));
    assert_eq!(entry["validation"], json!("enforce"));
    let refused = world.post(path, json!({"openapi": bare(0..2), "validation": "enforce"})).await?;
    assert_eq!(refused.code(), "value_invalid");
    let refused = world.post(path, json!({"openapi": bare(0..1_001)})).await?;
    assert_eq!((refused.code(), refused.text("field").as_str()), ("value_invalid", "openapi"));
    let refused = world.post(path, json!({"openapi": bare(1..1_001)})).await?;
    assert_eq!(refused.code(), "event_types_limit");
    let listed = world.get(TYPES).await?;
    assert_eq!(listed.body["data"].as_array().map(Vec::len), Some(1), "{listed:?}");
    Ok(())
}

#[tokio::test]
async fn the_catalogue_of_kryptos_killb_or_kyberaccess_is_taken_over() -> Result<()> {
    let world = World::new().await?;
    for (profile, count) in [("kryptos", 4), ("killb", 15), ("kyberaccess", 21)] {
        world.tenant(profile, profile).await?;
        let path = format!("/v1/tenants/{profile}/event-type-imports");
        let answer = world.post(&path, json!({"profile": profile})).await?;
        assert_eq!(answer.body["created"].as_array().map(Vec::len), Some(count), "{answer:?}");
    }
    // A profile whose types have two words cannot carry one of another.
    let path = "/v1/tenants/killb/event-types";
    assert_eq!(world.post(path, json!({"type": "RAMP"})).await?.code(), "value_invalid");
    Ok(())
}
