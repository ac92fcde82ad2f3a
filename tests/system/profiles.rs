//! Each profile's webhooks are what that provider's receivers expect: proven by real HTTP
//! exchanges with receivers in JavaScript and Python that verify by the published recipe, and for
//! Standard Webhooks with the official libraries.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::{receiver::Receiver as Recorder, wait_at_most};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::support::{
    Api, Expected, Installation,
    api::Made,
    foreign::{Language, Receiver},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Data in which whatever can go wrong in a serialisation does.
const DATA: [&str; 3] = [
    r#"{"b":1,"a":"\u00e9","10":"ten","2":"two","price":98.50,"much":1e3,"none":-0,"tiny":1E-7}"#,
    r#"{ "text": "\"quoted\" \/ \u2028 ☂ \ud83d\ude00 <>&\u007f", "empty": [ {}, [], "" ], "deep": {"z": {"y": null}} }"#,
    r#"{"id":"12345","amount":"150.75","list":[true,false,0.1,1000000000000000000000]}"#,
];

/// The Ed25519 key pair of the published vectors.
const ED25519_SECRET: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const ED25519_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

/// What of a profile is tried.
#[derive(Clone, Copy, Debug)]
struct Case {
    profile: &'static str,
    /// The receivers' recipe.
    recipe: &'static str,
    event_type: &'static str,
    /// As the profile's tenants write it.
    filter: &'static str,
    /// The secret, where the caller supplies it.
    secret: Option<&'static str>,
    /// What the receiver verifies with, if it is not the secret.
    public: Option<&'static str>,
}

const KRYPTOS: Case = Case {
    profile: "kryptos",
    recipe: "kryptos",
    event_type: "integration.created",
    filter: "integration.created",
    secret: None,
    public: None,
};
const KILLB: Case = Case {
    profile: "killb",
    recipe: "killb",
    event_type: "RAMP.UPDATE",
    filter: "RAMP",
    secret: Some("a secret of the caller's, long enough"),
    public: None,
};
const KYBERACCESS: Case = Case {
    profile: "kyberaccess",
    recipe: "kyberaccess",
    event_type: "visitor.checked_in",
    filter: "*",
    secret: None,
    public: None,
};
const STANDARD_WEBHOOKS: Case = Case {
    profile: "standard-webhooks",
    recipe: "standard-webhooks",
    event_type: "invoice.paid",
    filter: "invoice.*",
    secret: None,
    public: None,
};
const ED25519: Case = Case {
    recipe: "standard-webhooks-ed25519",
    secret: Some(ED25519_SECRET),
    public: Some(ED25519_PUBLIC),
    ..STANDARD_WEBHOOKS
};

/// Makes a tenant with an endpoint.
async fn subscribe(api: &Api, tenant: &str, url: &str, case: Case) -> Result<Made> {
    api.tenant(tenant, case.profile).await?;
    let mut new = json!({
        "url": url,
        "event_types": [case.filter],
        "retry": { "delays": { "list": ["200ms"] }, "retry_on": "anything" },
    });
    if let Some(secret) = case.secret {
        new["secret"] = json!(secret);
    }
    api.endpoint(tenant, &new).await
}

/// Has a profile verified by receivers in all languages that this machine has.
async fn verified(case: Case) -> Result<()> {
    let installation = Installation::start().await?;
    for language in Language::ALL {
        let Some(mut receiver) = Receiver::start(language).await? else { continue };
        let api = installation.api();
        let tenant = format!("for-{language}");
        let made = subscribe(api, &tenant, &receiver.url("/right"), case).await?;
        let secret = case.public.unwrap_or(&made.secret);
        receiver.know("/right", case.recipe, secret, 1).await?;
        deceive(api, &mut receiver, &tenant, case).await?;
        let mut ids = Vec::new();
        for (number, data) in DATA.iter().enumerate() {
            let key = format!("{number}");
            ids.push(api.publish(&tenant, case.event_type, data, &key).await?);
        }
        let seen = wait_at_most(PATIENCE, "every event to be verified twice", async || {
            let seen = receiver.seen_at("/right");
            if seen.len() >= 2 * DATA.len() { Ok(seen) } else { Err(seen) }
        })
        .await;
        check(case, &seen).with_context(|| format!("{case:?} in {language}"))?;
        let refused = wait_at_most(PATIENCE, "what is not verified to be refused", async || {
            let seen = receiver.seen_at("/wrong");
            if seen.len() >= DATA.len() { Ok(seen) } else { Err(seen) }
        })
        .await;
        for seen in refused {
            ensure!(seen["status"] == 401, "a wrong secret verifies: {seen}");
        }
    }
    installation.finish(Expected::Calm).await
}

/// Makes an endpoint whose receiver was told another secret: what it gets must not verify.
async fn deceive(api: &Api, receiver: &mut Receiver, tenant: &str, case: Case) -> Result<()> {
    let other = match (case.public, case.profile) {
        (Some(_), _) => "whpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        (None, "standard-webhooks") => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        (None, _) => "another secret of more than 32 characters",
    };
    let tenant = format!("{tenant}-deceived");
    subscribe(api, &tenant, &receiver.url("/wrong"), case).await?;
    receiver.know("/wrong", case.recipe, other, 0).await?;
    for (number, data) in DATA.iter().enumerate() {
        api.publish(&tenant, case.event_type, data, &format!("{number}")).await?;
    }
    Ok(())
}

/// Each event came twice, verified, first refused and then accepted, under one id and with its
/// own data.
fn check(case: Case, seen: &[Value]) -> Result<()> {
    for data in DATA {
        let published: Value = serde_json::from_str(data)?;
        let own: Vec<&Value> = seen.iter().filter(|seen| same(&seen["data"], &published)).collect();
        let [first, second] = own.as_slice() else {
            anyhow::bail!("{data} came {} times: {seen:#?}", own.len());
        };
        ensure!(first["status"] == 503 && second["status"] == 200, "{own:#?}");
        ensure!(first["id"].is_string() && first["id"] == second["id"], "{own:#?}");
        ensure!(own.iter().all(|one| one["type"] == case.event_type), "{own:#?}");
        if case.profile == "killb" {
            ensure!(first["attempts"] == 0 && second["attempts"] == 1, "{own:#?}");
        } else {
            ensure!(first["body"] == second["body"], "{own:#?}");
        }
    }
    Ok(())
}

/// Tells whether two documents are the same to JavaScript.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(ones), Value::Array(others)) => {
            let mut pairs = ones.iter().zip(others);
            ones.len() == others.len() && pairs.all(|(one, other)| same(one, other))
        }
        (Value::Object(ones), Value::Object(others)) => {
            let mut members = ones.iter();
            ones.len() == others.len()
                && members.all(|(name, one)| others.get(name).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kryptos_verifies_in_javascript_and_python() -> Result<()> {
    verified(KRYPTOS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killb_verifies_in_javascript_and_python() -> Result<()> {
    verified(KILLB).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kyberaccess_verifies_in_javascript_and_python() -> Result<()> {
    verified(KYBERACCESS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_webhooks_verify_with_the_libraries_of_npm_and_pypi() -> Result<()> {
    verified(STANDARD_WEBHOOKS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_webhooks_with_ed25519_verify_in_javascript_and_python() -> Result<()> {
    verified(ED25519).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_webhooks_verify_with_the_library_of_cargos_registry() -> Result<()> {
    let installation = Installation::start().await?;
    let recorder = Recorder::start().await?;
    let api = installation.api();
    let made = subscribe(api, "acme", &recorder.url("/hook"), STANDARD_WEBHOOKS).await?;
    let first = Webhook::new(&made.secret).context("a secret of the library's form")?;
    for (number, data) in DATA.iter().enumerate() {
        api.publish("acme", "invoice.paid", data, &format!("{number}")).await?;
    }
    for request in recorder.wait_for(DATA.len(), PATIENCE).await? {
        first.verify(&request.body, &request.headers).context("verify")?;
        let mut tampered = request.body.to_vec();
        tampered.push(b' ');
        ensure!(first.verify(&tampered, &request.headers).is_err(), "anything verifies");
    }
    // While a rotation overlaps, whoever has one of the secrets can verify.
    let rotated = api.act("acme", &made.id, "rotate-secret", &json!({ "overlap_s": 3600 })).await?;
    let secret = crate::support::api::text(&rotated, "secret")?;
    let second = Webhook::new(&secret).context("a secret of the library's form")?;
    let mut count = DATA.len();
    // A dispatcher knows of the rotation within a second.
    let last = wait_at_most(PATIENCE, "the new secret to verify", async || {
        count += 1;
        let last = async {
            api.publish("acme", "invoice.paid", "{}", &format!("after-{count}")).await?;
            recorder.wait_for(count, PATIENCE).await?.pop().context("a request")
        };
        let last = last.await.map_err(|error| format!("{error:#}"))?;
        match second.verify(&last.body, &last.headers) {
            Ok(()) => Ok(last),
            Err(error) => Err(format!("{error}: {last:?}")),
        }
    });
    let last = last.await;
    first.verify(&last.body, &last.headers).context("verify with the old secret")?;
    installation.finish(Expected::Calm).await
}
