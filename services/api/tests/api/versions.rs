//! No change is lost: `ETag` and `If-Match`.

use anyhow::Result;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, World};

async fn change(
    world: &World,
    method: Method,
    path: &str,
    version: &str,
    body: Value,
) -> Result<Answer> {
    let mut request = world.api.request(method, path).bearer_auth(&world.operator);
    request = request.header("if-match", version);
    if !body.is_null() {
        request = request.json(&body);
    }
    Answer::of(request).await
}

#[tokio::test]
async fn a_change_from_an_old_version_is_refused() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let endpoint = format!("/v1/tenants/acme/endpoints/{}", world.endpoint("acme").await?);
    for path in ["/v1/tenants/acme", &endpoint] {
        let old = world.get(path).await?.etag();
        let named = json!({"name": "one"});
        let changed = change(&world, Method::PATCH, path, &old, named.clone()).await?;
        assert_eq!(changed.status, StatusCode::OK);
        assert_ne!(changed.etag(), old);
        let lost = change(&world, Method::PATCH, path, &old, json!({"name": "two"})).await?;
        assert_eq!(
            (lost.status, lost.code()),
            (StatusCode::PRECONDITION_FAILED, "precondition_failed")
        );
        assert_eq!(world.get(path).await?.text("name"), "one");
        let same = change(&world, Method::PATCH, path, &changed.etag(), named).await?;
        assert_eq!(same.etag(), changed.etag(), "what changes nothing makes no version");
    }
    let old = "\"1\"";
    for action in ["pause", "resume", "enable", "disable", "rotate-secret"] {
        let path = format!("{endpoint}/{action}");
        let refused = change(&world, Method::POST, &path, old, Value::Null).await?;
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{action}");
    }
    let refused = change(&world, Method::DELETE, &endpoint, old, Value::Null).await?;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    let any = change(&world, Method::DELETE, &endpoint, "*", Value::Null).await?;
    assert_eq!(any.status, StatusCode::NO_CONTENT);
    Ok(())
}

#[tokio::test]
async fn of_changes_from_one_version_at_the_same_time_one_is_made() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let path = format!("/v1/tenants/acme/endpoints/{}", world.endpoint("acme").await?);
    let version = world.get(&path).await?.etag();
    let changes = (0..10).map(|number| {
        let body = json!({"metadata": {(number.to_string()): "x"}});
        change(&world, Method::PATCH, &path, &version, body)
    });
    let answers: Vec<Answer> = join_all(changes).await.into_iter().collect::<Result<_>>()?;
    let made = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    let refused =
        answers.iter().filter(|answer| answer.status == StatusCode::PRECONDITION_FAILED).count();
    assert_eq!((made, refused), (1, 9));
    Ok(())
}

#[tokio::test]
async fn changes_without_a_version_at_the_same_time_are_all_made() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let path = format!("/v1/tenants/acme/endpoints/{}", world.endpoint("acme").await?);
    let changes = (0..6).map(|number| {
        let body = json!({"metadata": {(number.to_string()): "x"}});
        world.call(Method::PATCH, &path, body)
    });
    for answer in join_all(changes).await {
        assert_eq!(answer?.status, StatusCode::OK);
    }
    let metadata = world.get(&path).await?.body["metadata"].clone();
    assert_eq!(metadata.as_object().map(serde_json::Map::len), Some(6), "{metadata}");
    Ok(())
}

#[tokio::test]
async fn every_change_of_a_thing_can_name_the_version_that_it_is_made_from() -> Result<()> {
    let document: Value = serde_json::from_str(&fanfare_api::openapi_document())?;
    let mut patches = 0;
    for (path, item) in document["paths"].as_object().expect("the document has paths") {
        let Some(patch) = item.get("patch") else { continue };
        patches += 1;
        let parameters = patch["parameters"].as_array().cloned().unwrap_or_default();
        assert!(parameters.iter().any(|one| one["name"] == "If-Match"), "{path}");
        for method in ["get", "patch"] {
            let headers = &item[method]["responses"]["200"]["headers"];
            assert!(headers["ETag"].is_object(), "{method} {path}");
        }
    }
    assert!(patches >= 4, "the document has lost operations");
    Ok(())
}
