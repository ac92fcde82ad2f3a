//! Keys that come with the settings, and those that are made.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{World, holds};

#[tokio::test]
async fn the_operators_key_is_admitted_once_and_deleted_for_good() -> Result<()> {
    let world = World::new().await?;
    let (one, other) = tokio::try_join!(world.another(), world.another())?;
    let admitted = world.get("/v1/keys").await?.ids();
    assert_eq!(admitted.len(), 1);
    one.stop().await?;
    other.stop().await?;
    let (_, new) = world.key(None, "admin").await?;
    let path = format!("/v1/keys/{}", admitted[0]);
    let gone = world.call(Method::DELETE, &path, Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get("/v1/keys").await?.status, StatusCode::UNAUTHORIZED);
    let again = world.another().await?;
    let refused = again.call(Method::GET, "/v1/keys", Some(&world.operator), Value::Null).await?;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "it is not admitted again");
    let left = again.call(Method::GET, "/v1/keys", Some(&new), Value::Null).await?;
    assert_eq!(left.data().len(), 1);
    again.stop().await
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let made =
        world.post("/v1/tenants/acme/keys", json!({"role": "publish", "name": "ci"})).await?;
    let key = made.text("key");
    assert!(key.starts_with("fk_"));
    let list = world.get("/v1/tenants/acme/keys").await?;
    assert!(!list.body.to_string().contains(&key));
    assert_eq!(list.body["data"][0]["name"], "ci");
    assert_eq!(list.body["data"][0]["role"], "publish");
    for message in world.nats.everything().await? {
        assert!(!holds(&message, &key), "{}", message.subject);
        assert!(!holds(&message, &world.operator), "{}", message.subject);
    }
    Ok(())
}

#[tokio::test]
async fn an_operators_key_is_not_among_a_tenants() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (id, _) = world.key(None, "read").await?;
    let path = format!("/v1/tenants/acme/keys/{id}");
    let answer = world.call(Method::DELETE, &path, Value::Null).await?;
    assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, "key_not_found"));
    Ok(())
}

#[tokio::test]
async fn with_other_sealing_keys_than_the_installations_it_does_not_start() -> Result<()> {
    let world = World::new().await?;
    let (first, second) = ("ab".repeat(32), "cd".repeat(32));
    world.another_with_key(&second).await?.stop().await?;
    world.tenant("acme", "standard-webhooks").await?;
    let endpoint = world.endpoint("acme").await?;
    let Err(refused) = world.another_with_key(&second).await else {
        anyhow::bail!("it started with keys that open nothing");
    };
    let refused = format!("{refused:#}");
    assert!(refused.contains(&endpoint), "{refused}");
    assert!(refused.contains("sealed with key ") && refused.contains("Restore"), "{refused}");
    world.another_with_key(&format!("{second}\n{first}")).await?.stop().await
}
