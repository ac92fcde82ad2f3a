//! Tenants.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::World;

#[tokio::test]
async fn a_tenant_is_created_shown_changed_and_deleted() -> Result<()> {
    let world = World::new().await?;
    let made = world.post("/v1/tenants", json!({"id": "acme", "name": "Acme"})).await?;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.headers["location"], "/v1/tenants/acme");
    assert_eq!(made.text("profile"), "standard-webhooks");
    let again = world.post("/v1/tenants", json!({"id": "acme"})).await?;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "tenant_exists"));
    let change = json!({"profile": "kyberaccess"});
    let changed = world.call(Method::PATCH, "/v1/tenants/acme", change).await?;
    assert_eq!(
        (changed.text("name"), changed.text("profile")),
        ("Acme".into(), "kyberaccess".into())
    );
    assert_eq!(world.get("/v1/tenants/acme").await?.body, changed.body);
    let gone = world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/v1/tenants/acme").await?.code(), "tenant_not_found");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_a_tenant_is_refused_by_field() -> Result<()> {
    let world = World::new().await?;
    for (body, field) in [
        (json!({"id": "a.b"}), "id"),
        (json!({"id": "acme", "profile": "unknown"}), "profile"),
        (json!({"id": "acme", "name": "n".repeat(257)}), "name"),
    ] {
        let refused = world.post("/v1/tenants", body).await?;
        assert_eq!((refused.code(), refused.text("field").as_str()), ("value_invalid", field));
    }
    Ok(())
}

#[tokio::test]
async fn a_tenants_rate_limit_is_set_changed_and_removed() -> Result<()> {
    let world = World::new().await?;
    let limit = json!({"requests": 20, "per": "second"});
    let made = world.post("/v1/tenants", json!({"id": "acme", "rate_limit": limit})).await?;
    let shown = json!({"requests": 20, "per": "second", "burst": 1});
    assert_eq!(made.body["rate_limit"], shown);
    for (patch, shown) in [
        (json!({"name": "A"}), shown),
        (
            json!({"rate_limit": {"requests": 5, "per": "minute", "burst": 2}}),
            json!({"requests": 5, "per": "minute", "burst": 2}),
        ),
        (json!({"rate_limit": null}), Value::Null),
    ] {
        let changed = world.call(Method::PATCH, "/v1/tenants/acme", patch).await?;
        assert_eq!(changed.body["rate_limit"], shown);
    }
    let none = json!({"rate_limit": {"requests": 0, "per": "second"}});
    let refused = world.call(Method::PATCH, "/v1/tenants/acme", none).await?;
    assert_eq!((refused.code(), &*refused.text("field")), ("value_invalid", "rate_limit.requests"));
    Ok(())
}

#[tokio::test]
async fn a_tenant_with_endpoints_keeps_its_profile_and_its_place() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    world.endpoint("acme").await?;
    let change = json!({"profile": "kyberaccess"});
    let refused = world.call(Method::PATCH, "/v1/tenants/acme", change).await?;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "profile_fixed"));
    let renamed = world.call(Method::PATCH, "/v1/tenants/acme", json!({"name": "A"})).await?;
    assert_eq!(renamed.status, StatusCode::OK);
    let refused = world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "tenant_not_empty"));
    Ok(())
}

#[tokio::test]
async fn a_deleted_tenants_keys_stay_dead_when_its_name_is_used_again() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (_, key) = world.key(Some("acme"), "admin").await?;
    let look = async || {
        let own = "/v1/tenants/acme";
        world.api.call(Method::GET, own, Some(&key), Value::Null).await.map(|own| own.status)
    };
    assert_eq!(look().await?, StatusCode::OK);
    world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    assert_eq!(look().await?, StatusCode::UNAUTHORIZED);
    world.tenant("acme", "kryptos").await?;
    assert_eq!(look().await?, StatusCode::UNAUTHORIZED);
    Ok(())
}

#[tokio::test]
async fn what_one_process_answered_another_one_knows() -> Result<()> {
    let world = World::new().await?;
    let other = world.another().await?;
    for number in 0..50 {
        let id = format!("t{number}");
        world.tenant(&id, "kryptos").await?;
        let (_, key) = world.key(Some(&id), "read").await?;
        let path = format!("/v1/tenants/{id}");
        let seen = other.call(Method::GET, &path, Some(&key), Value::Null).await?;
        assert_eq!(seen.status, StatusCode::OK, "{number}");
    }
    other.stop().await
}
