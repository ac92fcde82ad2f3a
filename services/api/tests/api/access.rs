//! Who may do what: every operation of the document, with every kind of key.

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Operation, World, any_body, operations};

const UNKNOWN: [(&str, &str); 5] = [
    ("endpoint", "ep_00000000000000000000000000"),
    ("key", "key_00000000000000000000000000"),
    ("event", "evt_00000000000000000000000000"),
    ("event_type", "no.such"),
    ("delivery", "dlv_00000000000000000000000000"),
];

fn admits(role: &str, operation: &Operation) -> bool {
    match role {
        "admin" => true,
        "publish" => ["publish_event", "publish_events"].contains(&&*operation.id),
        // Trying a filter changes nothing.
        _ => operation.method == Method::GET || operation.path.ends_with("/filter/test"),
    }
}

async fn call(world: &World, operation: &Operation, tenant: &str, key: &str) -> Result<Answer> {
    let path = operation.path_with(&[&UNKNOWN[..], &[("tenant", tenant)]].concat());
    world.api.call(operation.method.clone(), &path, Some(key), any_body(operation)).await
}

fn refused(answer: &Answer) -> bool {
    [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status)
}

#[tokio::test]
async fn nothing_is_told_without_a_valid_key() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (id, deleted) = world.key(None, "admin").await?;
    let gone = world.call(Method::DELETE, &format!("/v1/keys/{id}"), Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let unknown = fanfare_api::generate_key([7; 32]);
    let other_case = world.operator.to_uppercase();
    let truncated = world.operator.get(..66).unwrap();
    for operation in operations().into_iter().filter(|operation| operation.needs_key) {
        let path = operation.path_with(&[&UNKNOWN[..], &[("tenant", "acme")]].concat());
        for key in [None, Some(&*deleted), Some(&*unknown), Some(&*other_case), Some(truncated)] {
            let answer =
                world.api.call(operation.method.clone(), &path, key, any_body(&operation)).await?;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{operation:?} {answer:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_operators_role_decides_on_every_operation() -> Result<()> {
    let world = World::new().await?;
    for role in ["admin", "publish", "read"] {
        let (_, key) = world.key(None, role).await?;
        for operation in operations().into_iter().filter(|operation| operation.needs_key) {
            let answer = call(&world, &operation, "ghost", &key).await?;
            // The tenant is not there: that comes before what takes a key made for it.
            if admits(role, &operation) {
                assert!(!refused(&answer), "{role} {operation:?} {answer:?}");
            } else {
                assert_eq!(answer.code(), "forbidden", "{role} {operation:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_tenants_role_decides_within_the_tenant() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    for role in ["admin", "publish", "read"] {
        let (_, key) = world.key(Some("acme"), role).await?;
        for operation in operations().into_iter().filter(|operation| operation.needs_key) {
            let answer = call(&world, &operation, "acme", &key).await?;
            let of_tenant = operation.path.contains("{tenant}");
            let by_operator = [
                "update_tenant",
                "delete_tenant",
                "expunge_tenant",
                "get_expunge",
                "reveal_secrets",
            ];
            let by_operator = by_operator.contains(&&*operation.id);
            if of_tenant && !by_operator && admits(role, &operation) {
                assert!(!refused(&answer), "{role} {operation:?} {answer:?}");
            } else {
                assert_eq!(answer.code(), "forbidden", "{role} {operation:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_key_stops_working_when_it_expires() -> Result<()> {
    use fanfare_service::Clock as _;

    let world = World::new().await?;
    let now = fanfare_service::SystemClock.now();
    let end = now.saturating_add(std::time::Duration::from_secs(6)).to_string();
    let made = world.post("/v1/keys", json!({"role": "read", "expires_at": end})).await?;
    let key = made.text("key");
    let look = async || {
        let answer = world.api.call(Method::GET, "/v1/tenants", Some(&key), Value::Null).await;
        answer.map(|answer| answer.status).map_err(|error| format!("{error:#}"))
    };
    assert_eq!(look().await, Ok(StatusCode::OK));
    fanfare_testkit::wait_until("the key to expire", async || match look().await {
        Ok(StatusCode::UNAUTHORIZED) => Ok(()),
        other => Err(other),
    })
    .await;
    let past = world.post("/v1/keys", json!({"role": "read", "expires_at": end})).await?;
    assert_eq!((past.code(), past.body["field"].as_str()), ("value_invalid", Some("expires_at")));
    Ok(())
}
