//! Portal links: what their tokens allow, and when they end.

use anyhow::Result;
use fanfare_domain::Change;
use fanfare_event_log::{ConfigFold, ConfigView};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, World, any_body, operations};

const LINKS: &str = "/v1/tenants/acme/portal-links";
const NOTHING: [(&str, &str); 6] = [
    ("tenant", "acme"),
    ("endpoint", "ep_00000000000000000000000000"),
    ("key", "key_00000000000000000000000000"),
    ("event", "evt_00000000000000000000000000"),
    ("event_type", "no.such"),
    ("delivery", "dlv_00000000000000000000000000"),
];

/// The last change.
#[derive(Default)]
struct Last(Option<Change>);

impl ConfigFold for Last {
    fn apply(&mut self, _: u64, _: fanfare_domain::Timestamp, change: &Change) {
        self.0 = Some(change.clone());
    }
}

#[tokio::test]
async fn a_link_allows_what_its_role_says_and_nothing_that_outlives_it() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    for role in ["read", "admin"] {
        let token = world.post(LINKS, json!({"role": role})).await?.text("token");
        for operation in operations().into_iter().filter(|operation| operation.needs_key) {
            let path = operation.path_with(&NOTHING);
            let method = operation.method.clone();
            let answer = world.api.call(method, &path, Some(&token), any_body(&operation)).await?;
            let of_tenant = operation.path.contains("{tenant}");
            let never = ["/keys", "/events", "/events/batch", "/portal-links"]
                .iter()
                .any(|end| operation.path.trim_end_matches("/{key}").ends_with(end))
                && (operation.method != Method::GET || operation.path.contains("/keys"));
            let by_operator = ["update_tenant", "delete_tenant", "reveal_secrets"];
            let looks = operation.method == Method::GET || operation.path.ends_with("/filter/test");
            let allowed = of_tenant
                && !never
                && !by_operator.contains(&&*operation.id)
                && (role == "admin" || looks);
            if allowed {
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                assert!(!refused.contains(&answer.status), "{role} {operation:?} {answer:?}");
            } else {
                assert_eq!(answer.code(), "forbidden", "{role} {operation:?}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_changed_by_a_link_names_its_user_and_the_key_that_made_it() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let (view, follow) = ConfigView::<Last>::start(&world.log, CancellationToken::new()).await?;
    let mut following = tokio::task::JoinSet::new();
    following.spawn(follow);
    let (key_id, key) = world.key(Some("acme"), "admin").await?;
    let link = json!({"role": "admin", "user": "ada@example.com"});
    let made = world.api.call(Method::POST, LINKS, Some(&key), link).await?;
    assert_eq!((made.status, made.text("tenant_id")), (StatusCode::CREATED, "acme".into()));
    let body = json!({"url": "https://example.com/hook", "event_types": ["a"]});
    let path = "/v1/tenants/acme/endpoints";
    let answer = world.api.call(Method::POST, path, Some(&made.text("token")), body).await?;
    assert_eq!(answer.status, StatusCode::CREATED);
    view.confirm().await?;
    let actor = view.read(|last| last.0.as_ref().map(|change| change.actor.clone()));
    let expected = format!("{key_id} by {} for ada@example.com", made.text("id"));
    assert_eq!(actor, Some(expected));
    for message in world.nats.everything().await? {
        assert!(!crate::support::holds(&message, &made.text("token")), "{}", message.subject);
    }
    Ok(())
}

#[tokio::test]
async fn a_link_ends_with_its_key_and_with_its_tenant() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let other = world.another().await?;
    let status = async |token: &str| {
        let own = "/v1/tenants/acme";
        anyhow::Ok(other.call(Method::GET, own, Some(token), Value::Null).await?.status)
    };
    let (key_id, key) = world.key(Some("acme"), "admin").await?;
    let by_key = world.api.call(Method::POST, LINKS, Some(&key), json!({})).await?.text("token");
    let by_operator = world.post(LINKS, Value::Null).await?.text("token");
    assert_eq!(
        (status(&by_key).await?, status(&by_operator).await?),
        (StatusCode::OK, StatusCode::OK)
    );
    world.call(Method::DELETE, &format!("/v1/tenants/acme/keys/{key_id}"), Value::Null).await?;
    assert_eq!(status(&by_key).await?, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&by_operator).await?, StatusCode::OK);
    world.call(Method::DELETE, "/v1/tenants/acme", Value::Null).await?;
    world.tenant("acme", "kryptos").await?;
    assert_eq!(status(&by_operator).await?, StatusCode::UNAUTHORIZED, "it is another tenant");
    other.stop().await
}

#[tokio::test]
async fn a_token_that_was_touched_or_made_up_opens_nothing() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let token = world.post(LINKS, json!({})).await?.text("token");
    let mut altered = token.clone().into_bytes();
    let place = altered.len() / 2;
    altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered)?;
    let last = token.chars().next_back().unwrap_or_default();
    let long = format!("{token}{}", "A".repeat(4_096));
    for token in ["fp_", "fp_00000000.AAAA", &altered, token.trim_end_matches(last), &long] {
        let request = world.api.request(Method::GET, "/v1/tenants/acme").bearer_auth(token);
        let answer = Answer::of(request).await?;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{token}");
    }
    for (body, field) in [
        (json!({"expires_in_s": 59}), "expires_in_s"),
        (json!({"expires_in_s": 86_401}), "expires_in_s"),
        (json!({"user": "a\nb"}), "user"),
    ] {
        let refused = world.post(LINKS, body).await?;
        assert_eq!((refused.code(), &*refused.text("field")), ("value_invalid", field));
    }
    Ok(())
}
