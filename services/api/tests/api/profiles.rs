//! What the built-in profiles say of managing endpoints, fact by fact.

use std::collections::BTreeSet;

use anyhow::Result;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, World};

const URL: &str = "https://example.com/hook";

/// A tenant of a profile, and the path of its endpoints.
async fn tenant(world: &World, profile: &str) -> Result<String> {
    world.tenant(profile, profile).await?;
    Ok(format!("/v1/tenants/{profile}/endpoints"))
}

/// Shows an endpoint's secrets again, newest first.
async fn secrets(world: &World, endpoint: &str) -> Result<Vec<String>> {
    let new = json!({"role": "admin", "reveals_secrets": true});
    let key = world.post("/v1/keys", new).await?.text("key");
    let request = world.api.request(Method::POST, &format!("{endpoint}/reveal-secrets"));
    let shown = Answer::of(request.bearer_auth(key).header("fanfare-reason", "test")).await?;
    let secrets = shown.body.get("secrets").and_then(Value::as_array).cloned().unwrap_or_default();
    let secret = |one: &Value| one.get("secret").and_then(Value::as_str).map(String::from);
    Ok(secrets.iter().filter_map(secret).collect())
}

async fn refused(world: &World, path: &str, body: Value) -> Result<(String, Value)> {
    let answer = world.post(path, body).await?;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let field = answer.body.get("field").cloned().unwrap_or_default();
    Ok((String::from(answer.code()), field))
}

#[tokio::test]
async fn standard_webhooks_makes_secrets_or_takes_those_of_its_form() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "standard-webhooks").await?;
    let new = json!({"url": URL, "event_types": ["invoice.paid"]});
    let made = world.post(&path, new).await?.text("secret");
    assert!(made.starts_with("whsec_"), "{made}");
    let own = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let new = json!({"url": URL, "event_types": ["invoice.paid"], "secret": own});
    assert_eq!(world.post(&path, new).await?.text("secret"), own);
    for bad in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_!"] {
        let new = json!({"url": URL, "event_types": ["a"], "secret": bad});
        assert_eq!(refused(&world, &path, new).await?, ("value_invalid".into(), json!("secret")));
    }
    Ok(())
}

#[tokio::test]
async fn kryptos_wants_https_and_a_type_and_makes_the_secret() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "kryptos").await?;
    let plain = json!({"url": "http://example.com/", "event_types": ["integration.created"]});
    assert_eq!(refused(&world, &path, plain).await?.0, "url_https_required");
    let nothing = json!({"url": URL, "event_types": []});
    assert_eq!(refused(&world, &path, nothing).await?.1, "event_types");
    let own = json!({"url": URL, "event_types": ["integration.created"], "secret": "x".repeat(40)});
    assert_eq!(refused(&world, &path, own).await?.1, "secret");
    for event_type in ["created", "updated", "deleted", "failed"] {
        let new = json!({"url": URL, "event_types": [format!("integration.{event_type}")]});
        let made = world.post(&path, new).await?;
        assert_eq!((made.status, made.text("description")), (StatusCode::CREATED, String::new()));
        let one = format!("{path}/{}", made.text("id"));
        assert!(world.get(&one).await?.body.get("secret").is_none(), "it is shown once");
        assert_eq!(secrets(&world, &one).await?, [made.text("secret")]);
    }
    Ok(())
}

#[tokio::test]
async fn kryptos_endpoints_are_edited_rotated_disabled_and_deleted() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "kryptos").await?;
    let new = json!({"url": URL, "event_types": ["integration.created"], "description": "one"});
    let made = world.post(&path, new).await?;
    let one = format!("{path}/{}", made.text("id"));
    let change = json!({
        "url": "https://example.com/other",
        "description": "two",
        "event_types": ["integration.failed"],
    });
    let changed = world.call(Method::PATCH, &one, change.clone()).await?;
    for (name, value) in change.as_object().into_iter().flatten() {
        assert_eq!(&changed.body[name], value, "{name}");
    }
    let rotated = world.post(&format!("{one}/rotate-secret"), json!({"overlap_s": 0})).await?;
    assert_ne!(rotated.text("secret"), made.text("secret"));
    let disabled = world.post(&format!("{one}/disable"), Value::Null).await?;
    assert_eq!(
        (&disabled.body["state"], &disabled.body["disabled_reason"]),
        (&json!("disabled"), &json!("by_hand"))
    );
    assert_eq!(world.get(&one).await?.status, StatusCode::OK, "it is still there");
    assert_eq!(world.post(&format!("{one}/enable"), Value::Null).await?.text("state"), "active");
    let gone = world.call(Method::DELETE, &one, Value::Null).await?;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    Ok(())
}

#[tokio::test]
async fn killb_takes_the_callers_secret_of_32_characters_or_more() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "killb").await?;
    let new = |secret: Value| json!({"url": URL, "event_types": ["RAMP"], "secret": secret});
    assert_eq!(refused(&world, &path, new(Value::Null)).await?.1, "secret");
    let short = world.post(&path, new(json!("s".repeat(31)))).await?;
    let detail = short.text("detail");
    assert!(detail.contains("31") && detail.contains("32"), "{detail}");
    let plain =
        json!({"url": "http://example.com/", "event_types": ["RAMP"], "secret": "s".repeat(32)});
    assert_eq!(refused(&world, &path, plain).await?.0, "url_https_required");
    let made = world.post(&path, new(json!("s".repeat(32)))).await?;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let one = format!("{path}/{}", made.text("id"));
    assert_eq!(secrets(&world, &one).await?, ["s".repeat(32)]);
    Ok(())
}

#[tokio::test]
async fn killb_changes_url_secret_types_and_whether_it_is_active() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "killb").await?;
    let new = json!({"url": URL, "event_types": ["RAMP"], "secret": "a".repeat(32)});
    let one = format!("{path}/{}", world.post(&path, new).await?.text("id"));
    let types = json!(["USER", "TRANSACTION", "ACCOUNT", "CUSTODIAL_ACCOUNT"]);
    let change = json!({"url": "https://example.com/b", "event_types": types});
    let changed = world.call(Method::PATCH, &one, change).await?;
    assert_eq!(
        (&changed.body["event_types"], changed.text("url")),
        (&types, "https://example.com/b".into())
    );
    let rotation = json!({"secret": "b".repeat(32), "overlap_s": 0});
    world.post(&format!("{one}/rotate-secret"), rotation).await?;
    assert_eq!(secrets(&world, &one).await?, ["b".repeat(32)]);
    for (action, state) in [("disable", "disabled"), ("enable", "active")] {
        let answer = world.post(&format!("{one}/{action}"), Value::Null).await?;
        assert_eq!(answer.text("state"), state);
    }
    Ok(())
}

#[tokio::test]
async fn kyberaccess_endpoints_have_a_name_https_and_each_a_secret_of_its_own() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "kyberaccess").await?;
    let plain = json!({"name": "a", "url": "http://example.com/", "event_types": ["user.login"]});
    assert_eq!(refused(&world, &path, plain).await?.0, "url_https_required");
    let mut made = BTreeSet::new();
    for name in ["lobby", "gate", "dock"] {
        let new = json!({"name": name, "url": URL, "event_types": ["visitor.checked_in"]});
        let answer = world.post(&path, new).await?;
        assert_eq!((answer.text("name"), answer.text("description")), (name.into(), String::new()));
        made.insert(answer.text("secret"));
    }
    assert_eq!(made.len(), 3, "several endpoints, each with its own secret");
    Ok(())
}

#[tokio::test]
async fn kyberaccess_keeps_the_secret_when_the_url_changes_and_makes_a_new_one_when_asked()
-> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "kyberaccess").await?;
    let new = json!({"name": "a", "url": URL, "event_types": ["user.login"]});
    let made = world.post(&path, new).await?;
    let one = format!("{path}/{}", made.text("id"));
    world.call(Method::PATCH, &one, json!({"url": "https://example.com/b"})).await?;
    assert_eq!(secrets(&world, &one).await?, [made.text("secret")]);
    let rotated = world.post(&format!("{one}/rotate-secret"), json!({"overlap_s": 0})).await?;
    assert_ne!(rotated.text("secret"), made.text("secret"));
    assert_eq!(secrets(&world, &one).await?, [rotated.text("secret")]);
    Ok(())
}

#[tokio::test]
async fn kyberaccess_subscribes_by_type_by_group_or_to_everything_and_pauses_by_skipping()
-> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "kyberaccess").await?;
    for (types, matches, misses) in [
        (json!(["visitor.denied"]), "visitor.denied", Some("visitor.updated")),
        (json!(["emergency.*"]), "emergency.lockdown_activated", Some("user.login")),
        (json!(["*"]), "settings.updated", None),
    ] {
        let new = json!({"name": "a", "url": URL, "event_types": types});
        let made = world.post(&path, new).await?;
        assert_eq!(made.body["event_types"], types, "shown as it was written");
        let one = format!("{path}/{}", made.text("id"));
        for (event_type, expected) in [(Some(matches), true), (misses, false)]
            .into_iter()
            .filter_map(|(it, ok)| Some((it?, ok)))
        {
            let trial = json!({"type": event_type, "data": {}});
            let verdict = world.post(&format!("{one}/filter/test"), trial).await?;
            assert_eq!(verdict.body["matches"], expected, "{types} {event_type}");
        }
        let paused = world.post(&format!("{one}/pause"), Value::Null).await?;
        assert_eq!(paused.text("pause_mode"), "skip");
        assert_eq!(
            world.post(&format!("{one}/resume"), Value::Null).await?.text("state"),
            "active"
        );
    }
    Ok(())
}

#[tokio::test]
async fn killb_subscribes_to_a_type_with_all_its_actions() -> Result<()> {
    let world = World::new().await?;
    let path = tenant(&world, "killb").await?;
    let new = json!({"url": URL, "event_types": ["RAMP", "USER"], "secret": "s".repeat(32)});
    let one = format!("{path}/{}", world.post(&path, new).await?.text("id"));
    for (event_type, expected) in [
        ("RAMP.CREATE", true),
        ("RAMP.UPDATE", true),
        ("RAMP.DELETE", true),
        ("USER.UPDATE", true),
        ("ACCOUNT.UPDATE", false),
    ] {
        let trial = json!({"type": event_type, "data": {}});
        let verdict = world.post(&format!("{one}/filter/test"), trial).await?;
        assert_eq!(verdict.body["matches"], expected, "{event_type}");
    }
    Ok(())
}

#[tokio::test]
async fn kryptos_killb_and_kyberaccess_promise_retries_and_time_that_no_endpoint_extends()
-> Result<()> {
    let world = World::new().await?;
    for (profile, event_type, retries, millis) in [
        ("kryptos", "integration.created", 2, 10_000),
        ("killb", "RAMP", 5, 5_000),
        ("kyberaccess", "user.login", 5, 30_000),
    ] {
        let path = tenant(&world, profile).await?;
        let mut new = json!({"url": URL, "event_types": [event_type]});
        if profile == "killb" {
            new["secret"] = json!("s".repeat(32));
        }
        let delays = |count: usize| json!({"delays": {"list": vec!["1m"; count]}});
        for (name, value) in [("retry", delays(retries + 1)), ("timeout_ms", json!(millis + 1))] {
            let mut beyond = new.clone();
            beyond[name] = value;
            let refused = refused(&world, &path, beyond).await?;
            assert_eq!(refused.0, "profile_forbids", "{profile} {name}");
        }
        (new["retry"], new["timeout_ms"]) = (delays(retries), json!(millis));
        let made = world.post(&path, new).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{profile}: {made:?}");
        let one = format!("{path}/{}", made.text("id"));
        let beyond = json!({"timeout_ms": millis + 1});
        let refused = world.call(Method::PATCH, &one, beyond).await?;
        assert_eq!(refused.code(), "profile_forbids", "{profile}: {refused:?}");
    }
    Ok(())
}
