//! Endpoints that have to allow us to send before we do are not sent to before they have.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_testkit::receiver::{Behaviour, Received, Receiver, Reply};
use serde_json::{Value, json};

use crate::support::{Expected, Hooks, Options, Refused, Scene, scene::TENANT};

const PATIENCE: Duration = Duration::from_mins(1);
const ORIGIN: &str = "events.example.com";

fn is_question(request: &Received) -> bool {
    request.method == "OPTIONS"
}

/// Answers questions with these headers, and all else with 200.
fn answering(status: u16, headers: &'static [(&str, &str)]) -> Behaviour {
    Behaviour::ask(move |request: &Received| {
        if !is_question(request) {
            return Behaviour::status(200);
        }
        let reply = Reply::new(status);
        Behaviour::Reply(headers.iter().fold(reply, |it, (name, value)| it.header(name, value)))
    })
}

async fn refusal(asked: impl Future<Output = Result<Value>>) -> Result<(u16, String)> {
    let error = asked.await.err().context("it was not refused")?;
    let refused = error.downcast::<Refused>()?;
    Ok((refused.status, String::from(refused.code())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_sent_nothing_before_it_allows_that() -> Result<()> {
    let variables = vec![(String::from("FANFARE_API__WEBHOOK_ORIGIN"), String::from(ORIGIN))];
    let options = Options { variables, ..Options::default() };
    let scene = Scene::set_with(options, Hooks::start().await?).await?;
    let receiver = Receiver::start().await?;
    receiver.answer(answering(405, &[]));
    let new = json!({
        "url": receiver.url("/hook"), "event_types": [">"], "validation": "cloudevents",
        "rate_limit": { "requests": 10, "per": "second" },
        "authentication": { "type": "bearer", "token": "s3cret-of-ours" },
    });
    let made = scene.api().endpoint(TENANT, &new).await?;
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", made.id);
    let shown = scene.api().get(&path).await?;
    assert_eq!((&shown["state"], &shown["pause_mode"]), (&json!("paused"), &json!("hold")));
    assert_eq!(shown["allowed"], json!({ "at": null, "requests_per_minute": null }));
    scene.api().publish(TENANT, "a.b", "{}", "held").await?;
    let act = |action: &'static str| {
        let (api, id) = (scene.api().clone(), made.id.clone());
        async move { api.act(TENANT, &id, action, &json!({})).await }
    };
    let unvalidated = (409, String::from("endpoint_unvalidated"));
    assert_eq!(refusal(act("resume")).await?, unvalidated);
    let refused = (409, String::from("validation_refused"));
    assert_eq!(refusal(act("validate")).await?, refused);
    receiver.answer(answering(200, &[("webhook-allowed-origin", "others.example.com")]));
    assert_eq!(refusal(act("validate")).await?, refused);

    let allowing = &[("WebHook-Allowed-Origin", ORIGIN), ("WebHook-Allowed-Rate", "120")];
    receiver.answer(answering(200, allowing));
    let shown = act("validate").await?;
    assert_eq!(shown["state"], "active", "{shown}");
    assert_eq!(shown["allowed"]["requests_per_minute"], 120, "{shown}");
    let questions = receiver.requests();
    let last = questions.iter().rfind(|it| is_question(it)).context("a question")?;
    assert_eq!(last.header("webhook-request-origin"), Some(ORIGIN));
    assert_eq!(last.header("webhook-request-rate"), Some("600"));
    assert_eq!(last.header("authorization"), Some("Bearer s3cret-of-ours"));
    assert!(last.body.is_empty());

    // What was held meanwhile comes now, and only now.
    let requests = receiver.wait_for(4, PATIENCE).await?;
    let sent: Vec<_> = requests.iter().map(|request| is_question(request)).collect();
    assert_eq!(sent, [true, true, true, false]);
    let elsewhere = json!({ "url": receiver.url("/elsewhere") });
    let moved = scene.api().patch(&path, &elsewhere).await?;
    assert_eq!((&moved["state"], &moved["allowed"]["at"]), (&json!("paused"), &Value::Null));
    assert_eq!(refusal(act("resume")).await?, unvalidated);
    scene.finish(Expected::Calm).await
}
