//! Endpoints that want to know who sends: a token, a password, a certificate, or a signature that
//! anybody can check.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ed25519_dalek::{Signature, VerifyingKey};
use fanfare_domain::{EndpointId, Fault, Outcome, fact::AttemptMade};
use fanfare_testkit::{
    receiver::{Behaviour, Certificate, Received, Receiver, Reply, Transport},
    wait_until,
};
use serde_json::{Value, json};

use crate::support::{Expected, Scene, Service, evidence, scene::TENANT};

const PATIENCE: Duration = Duration::from_mins(1);
const UNAUTHENTICATED: Outcome = Outcome::Failed(Fault::AuthenticationFailed);

/// Gives tokens with the numbers of their requests.
async fn token_server() -> Result<Receiver> {
    let server = Receiver::start().await?;
    server.answer(giving());
    Ok(server)
}

fn giving() -> Behaviour {
    Behaviour::ask(|request: &Received| {
        let token = format!("access-token-{}", request.number);
        let given = json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3_600 });
        Behaviour::Reply(Reply::new(200).body(given.to_string()))
    })
}

fn new(url: &str, delays: &[&str]) -> Value {
    json!({
        "url": url,
        "event_types": [">"],
        "retry": { "delays": { "list": delays }, "retry_on": "anything", "retry_after": [429] },
        "timeout_ms": 30_000,
    })
}

async fn publish(scene: &Scene, key: &str) -> Result<String> {
    scene.api().publish(TENANT, "a.b", r#"{"number":7}"#, key).await
}

/// The attempts for an endpoint, once there are so many.
async fn attempts(scene: &Scene, endpoint: &str, wanted: usize) -> Result<Vec<AttemptMade>> {
    let id: EndpointId = endpoint.parse()?;
    let found = wait_until("attempts to be on record", async || {
        let journal = match evidence::journal(&scene.log).await {
            Ok(journal) => journal,
            Err(error) => return Err(format!("{error:#}")),
        };
        let facts = journal.iter().flat_map(|batch| &batch.facts);
        let made = facts.filter_map(|record| record.fact.attempt_made());
        let made: Vec<_> = made.filter(|made| made.delivery.endpoint == id).cloned().collect();
        if made.len() >= wanted { Ok(made) } else { Err(format!("{} of {wanted}", made.len())) }
    });
    Ok(found.await)
}

/// Publishes until a request is as it has to be after a change: a dispatcher knows of one within a
/// second.
async fn changed(
    scene: &Scene,
    receiver: &Receiver,
    key: &str,
    is_it: impl Fn(&Received) -> bool,
) -> Arc<Received> {
    let mut count = receiver.count();
    wait_until("the change to be in force", async || {
        let known = format!("{key} {count}");
        publish(scene, &known).await.map_err(|error| format!("{error:#}"))?;
        count += 1;
        let mut seen = receiver.wait_for(count, PATIENCE).await.map_err(|it| format!("{it:#}"))?;
        let last = seen.pop().ok_or_else(|| String::from("nothing"))?;
        if is_it(&last) { Ok(last) } else { Err(format!("{last:?}")) }
    })
    .await
}

fn authorization(request: &Received) -> &str {
    request.header("authorization").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_bear_a_token_that_is_fetched_and_replaced() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.installation.start_service(Service::Projector).await?;
    let (tokens, receiver) = (token_server().await?, Receiver::start().await?);
    let mut endpoint = new(&receiver.url("/hook"), &["100ms", "100ms", "100ms"]);
    endpoint["authentication"] = json!({
        "type": "oauth2", "token_url": tokens.url("/token"), "client_id": "us",
        "client_secret": "s3cret-of-ours", "scopes": ["hooks"],
    });
    let made = scene.api().endpoint(TENANT, &endpoint).await?;
    for number in 0..3 {
        publish(&scene, &format!("good-{number}")).await?;
    }
    for request in receiver.wait_for(3, PATIENCE).await? {
        assert_eq!(authorization(&request), "Bearer access-token-1");
    }

    // A token that the endpoint refuses is replaced for the next attempt.
    receiver.answer(Behaviour::ask(|request: &Received| {
        let is_old = authorization(request) == "Bearer access-token-1";
        Behaviour::text(if is_old { 401 } else { 200 }, String::from(authorization(request)))
    }));
    publish(&scene, "refused").await?;
    let requests = receiver.wait_for(5, PATIENCE).await?;
    assert_eq!(authorization(&requests[4]), "Bearer access-token-2");
    let on_record = attempts(&scene, &made.id, 5).await?;
    let refused = on_record.iter().find(|made| made.outcome == UNAUTHENTICATED);
    let refused = refused.context("the refusal is on record")?;
    assert!(refused.detail.contains("401"), "{refused:?}");
    let said = &*refused.response_body;
    assert_eq!(said, b"Bearer ***", "the endpoint says the token back");
    is_shown_without_its_token(&scene, refused).await?;

    // A server that gives no token is a fault of its own, and the endpoint hears nothing.
    tokens.answer(Behaviour::Reply(
        Reply::new(401).body(r#"{"error":"invalid_client","error_description":"s3cret-of-ours"}"#),
    ));
    receiver.answer(Behaviour::status(401));
    publish(&scene, "no token").await?;
    let on_record = attempts(&scene, &made.id, 9).await?;
    let without = "the token endpoint answered 401 (invalid_client)";
    let failed = on_record.iter().filter(|made| made.detail == without);
    assert_eq!(failed.filter(|made| made.outcome == UNAUTHENTICATED).count(), 3, "{on_record:?}");
    assert_eq!(receiver.count(), 6);
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_revoked_ends_no_delivery() -> Result<()> {
    let scene = Scene::set().await?;
    let (tokens, receiver) = (token_server().await?, Receiver::start().await?);
    let mut endpoint = new(&receiver.url("/hook"), &[]);
    // 401 is final, as it is for profiles that list what is tried again.
    endpoint["retry"] = json!({
        "delays": { "list": ["100ms", "100ms"] }, "retry_on": "listed", "listed": [503],
    });
    endpoint["authentication"] = json!({
        "type": "oauth2", "token_url": tokens.url("/token"), "client_id": "us",
        "client_secret": "s3cret-of-ours",
    });
    let made = scene.api().endpoint(TENANT, &endpoint).await?;
    publish(&scene, "good").await?;
    receiver.wait_for(1, PATIENCE).await?;

    // It is revoked: whoever comes with it is refused.
    receiver.answer(Behaviour::ask(|request: &Received| {
        let is_old = authorization(request) == "Bearer access-token-1";
        Behaviour::text(if is_old { 401 } else { 200 }, String::new())
    }));
    publish(&scene, "revoked").await?;
    let on_record = attempts(&scene, &made.id, 3).await?;
    let outcomes: Vec<_> = on_record.iter().map(|made| made.outcome.clone()).collect();
    let accepted = Outcome::Accepted { status: 200 };
    assert_eq!(outcomes, [accepted.clone(), UNAUTHENTICATED, accepted]);
    let revoked = on_record.get(1).context("the second attempt")?;
    assert!(revoked.retry_at.is_some() && revoked.detail.contains("401"), "{revoked:?}");

    // An endpoint that refuses a token which was just given says what it says of anybody.
    receiver.answer(Behaviour::status(401));
    publish(&scene, "refused").await?;
    let on_record = attempts(&scene, &made.id, 5).await?;
    let refused = Outcome::Refused { status: 401, retry_after: None };
    assert_eq!((&on_record[3].outcome, &on_record[4].outcome), (&UNAUTHENTICATED, &refused));
    assert_eq!((on_record[4].attempt, on_record[4].retry_at), (2, None));
    publish(&scene, "refused again").await?;
    let on_record = attempts(&scene, &made.id, 6).await?;
    assert_eq!((on_record[5].attempt, on_record[5].retry_at), (1, None));
    assert_eq!(on_record[5].outcome, refused);
    assert_eq!((tokens.count(), receiver.count()), (4, 6));
    scene.finish(Expected::Calm).await
}

/// Checks that what is shown of an attempt says that there was such a header, and not what stood in
/// it.
async fn is_shown_without_its_token(scene: &Scene, made: &AttemptMade) -> Result<()> {
    let delivery = made.delivery.id;
    let path = format!("/v1/tenants/{TENANT}/deliveries/{delivery}/attempts/{}", made.attempt);
    let shown = wait_until("the attempt to be in the delivery log", async || {
        scene.api().get(&path).await.map_err(|error| format!("{error:#}"))
    });
    let shown = shown.await;
    let headers = shown["request"]["headers"].as_array().context("headers")?;
    let header = headers.iter().find(|header| header["name"] == "authorization");
    let expected = json!({ "name": "authorization", "value": "***", "hidden": true });
    assert_eq!(header, Some(&expected), "{shown}");
    assert_eq!(shown["request"]["fidelity"], "verified", "{shown}");
    assert!(!shown.to_string().contains("access-token"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_show_a_password_until_they_are_to_show_none() -> Result<()> {
    let scene = Scene::set().await?;
    let receiver = Receiver::start().await?;
    let mut endpoint = new(&receiver.url("/hook"), &["100ms"]);
    endpoint["authentication"] = json!({ "type": "basic", "username": "us", "password": "a:b c" });
    let made = scene.api().endpoint(TENANT, &endpoint).await?;
    let sample = json!({ "event_type": "a.b" });
    let tried = scene.api().act(TENANT, &made.id, "test", &sample).await?;
    assert_eq!(tried["request"]["headers"]["authorization"], "***", "{tried}");
    let expected = format!("Basic {}", BASE64.encode(b"us:a:b c"));
    assert_eq!(authorization(&receiver.requests()[0]), expected);
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", made.id);
    for (authentication, expected) in [
        (json!({ "type": "bearer", "token": "s3cret-of-ours" }), "Bearer s3cret-of-ours"),
        (Value::Null, ""),
    ] {
        scene.api().patch(&path, &json!({ "authentication": authentication })).await?;
        let key = format!("with {expected:?}");
        changed(&scene, &receiver, &key, |request| authorization(request) == expected).await;
    }
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_demand_a_certificate_see_their_own() -> Result<()> {
    let scene = Scene::set().await?;
    let receiver = Receiver::start_with(Transport::Mutual(Certificate::Valid)).await?;
    let authority = receiver.authority().context("it speaks TLS")?;
    let ours = receiver.client().context("it speaks TLS")?;
    let mut endpoints = Vec::new();
    for (path, tls) in [
        (
            "/both",
            json!({
                "ca_pem": authority, "client_certificate_pem": ours.certificate,
                "client_key_pem": ours.key,
            }),
        ),
        ("/trusting", json!({ "ca_pem": authority })),
        ("/neither", Value::Null),
    ] {
        let mut endpoint = new(&receiver.url(path), &["1h"]);
        endpoint["tls"] = tls;
        endpoints.push(scene.api().endpoint(TENANT, &endpoint).await?.id);
    }
    publish(&scene, "one").await?;
    let mut outcomes = Vec::new();
    for endpoint in &endpoints {
        outcomes.push(attempts(&scene, endpoint, 1).await?.remove(0).outcome);
    }
    assert_eq!(outcomes[0], Outcome::Accepted { status: 200 });
    let faults = [Fault::TlsFailed, Fault::ConnectionLost, Fault::ConnectFailed];
    let is_refused = |outcome: &Outcome| faults.iter().any(|it| *outcome == Outcome::Failed(*it));
    assert!(is_refused(&outcomes[1]), "{outcomes:?}");
    assert_eq!(outcomes[2], Outcome::Failed(Fault::CertificateInvalid));
    assert_eq!(receiver.count(), 1);

    // Once it has a certificate, it is let in.
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", endpoints[1]);
    let tls = json!({
        "ca_pem": authority, "client_certificate_pem": ours.certificate,
        "client_key_pem": ours.key,
    });
    let shown = scene.api().patch(&path, &json!({ "tls": tls })).await?;
    assert_eq!(shown["tls"]["client_certificate"]["subject"], "CN=127.0.0.1", "{shown}");
    let trial = json!({ "event_type": "a.b" });
    wait_until("it to be let in", async || {
        let tried = scene.api().act(TENANT, &endpoints[1], "test", &trial).await;
        let tried = tried.map_err(|error| format!("{error:#}"))?;
        if tried["attempt"]["status"] == 200 { Ok(()) } else { Err(tried.to_string()) }
    })
    .await;
    publish(&scene, "two").await?;
    let last = attempts(&scene, &endpoints[1], 2).await?.remove(1);
    assert_eq!(last.outcome, Outcome::Accepted { status: 200 });
    scene.finish(Expected::Calm).await
}

/// The public keys of an endpoint, as anybody gets them.
async fn public_keys(scene: &Scene, endpoint: &str) -> Result<(String, BTreeMap<String, Vec<u8>>)> {
    let address = scene.api().address().context("the API's address")?;
    let url = format!("http://{address}/v1/tenants/{TENANT}/endpoints/{endpoint}/jwks.json");
    let answer = reqwest::Client::builder().no_proxy().build()?.get(&url).send().await?;
    ensure!(answer.status() == 200, "{answer:?}");
    ensure!(answer.headers()["cache-control"] == "public, max-age=300", "{answer:?}");
    let tag = String::from(answer.headers()["etag"].to_str()?);
    let again = reqwest::Client::builder().no_proxy().build()?.get(&url);
    let again = again.header("if-none-match", &tag).send().await?;
    ensure!(again.status() == 304, "{again:?}");
    let set: Value = serde_json::from_str(&answer.text().await?)?;
    let mut keys = BTreeMap::new();
    for key in set["keys"].as_array().context("keys")? {
        ensure!(key["kty"] == "OKP" && key["crv"] == "Ed25519" && key["alg"] == "EdDSA", "{key}");
        let text = |name: &str| key[name].as_str().context("a member");
        keys.insert(String::from(text("kid")?), BASE64URL_NOPAD.decode(text("x")?.as_bytes())?);
    }
    Ok((tag, keys))
}

/// Tells how many of a request's signatures the keys confirm.
fn confirmed(request: &Received, keys: &BTreeMap<String, Vec<u8>>) -> Result<usize> {
    let header = |name: &str| request.header(name).context("a header");
    let mut signed = format!("{}.{}.", header("webhook-id")?, header("webhook-timestamp")?);
    signed.push_str(std::str::from_utf8(&request.body)?);
    let mut count = 0;
    for entry in header("webhook-signature")?.split(' ') {
        let signature = entry.strip_prefix("v1a,").context("an Ed25519 signature")?;
        let signature = Signature::from_slice(&BASE64.decode(signature.as_bytes())?)?;
        for key in keys.values() {
            let key = VerifyingKey::from_bytes(&<[u8; 32]>::try_from(&key[..])?)?;
            count += usize::from(key.verify_strict(signed.as_bytes(), &signature).is_ok());
        }
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_knows_an_endpoint_can_check_its_signatures() -> Result<()> {
    let scene = Scene::set().await?;
    let receiver = Receiver::start().await?;
    let mut endpoint = new(&receiver.url("/hook"), &["100ms"]);
    endpoint["secret_kind"] = json!("ed25519");
    let made = scene.api().endpoint(TENANT, &endpoint).await?;
    ensure!(made.secret.starts_with("whsk_"), "{}", made.secret);
    publish(&scene, "one").await?;
    let first = receiver.wait_for(1, PATIENCE).await?.remove(0);
    let (tag, keys) = public_keys(&scene, &made.id).await?;
    assert_eq!((keys.len(), confirmed(&first, &keys)?), (1, 1));
    let mut altered = (*first).clone();
    altered.body = b"{}".to_vec().into();
    assert_eq!(confirmed(&altered, &keys)?, 0);

    // While a rotation overlaps, whoever has one of the keys can check.
    let rotation = json!({ "overlap_s": 3_600, "secret_kind": "ed25519" });
    scene.api().act(TENANT, &made.id, "rotate-secret", &rotation).await?;
    let (other_tag, both) = public_keys(&scene, &made.id).await?;
    ensure!(both.len() == 2 && tag != other_tag, "{both:?}");
    ensure!(keys.keys().all(|known| both.contains_key(known)), "the old key stays");
    let is_signed_twice = |request: &Received| {
        request.header("webhook-signature").is_some_and(|all| all.split(' ').count() == 2)
    };
    let second = changed(&scene, &receiver, "two", is_signed_twice).await;
    assert_eq!((confirmed(&second, &keys)?, confirmed(&second, &both)?), (1, 2));

    // An endpoint with another kind of secret has no public keys, and what is not there none either.
    let hmac = scene.api().endpoint(TENANT, &new(&receiver.url("/hmac"), &["1h"])).await?;
    assert_eq!(public_keys(&scene, &hmac.id).await?.1.len(), 0);
    let unknown = "ep_00000000000000000000000000";
    assert!(public_keys(&scene, unknown).await.is_err());
    scene.finish(Expected::Calm).await
}
