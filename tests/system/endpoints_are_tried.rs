//! A sample event is sent to an endpoint once, as any other request, and what comes of it is shown.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::{
    Answer, Expected, Hooks, Options, Scene, api::Refused, evidence, scene::TENANT,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_shows_what_is_sent_and_what_comes_back() -> Result<()> {
    let hooks = Hooks::answering(|request, _| {
        Answer::Status(if request.path == "/works" { 200 } else { 418 })
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    let works = scene.subscribe("/works", &["a.b"], &["1h"]).await?;
    let fails = scene.subscribe("/fails", &["a.b"], &["1h"]).await?;
    let sample = json!({ "event_type": "any.type", "data": { "number": 7 } });
    for (endpoint, outcome, status) in [(&works, "accepted", 200), (&fails, "refused", 418)] {
        let tried = scene.api().act(TENANT, &endpoint.id, "test", &sample).await?;
        let attempt = &tried["attempt"];
        ensure!(attempt["outcome"] == outcome && attempt["status"] == status, "{tried}");
        let seen = scene.hooks.requests();
        let request = seen.last().context("a request")?;
        ensure!(tried["request"]["body"].as_str().map(str::as_bytes) == Some(&*request.body));
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            ensure!(tried["request"]["headers"][name].as_str() == request.header(name), "{tried}");
        }
        let body: Value = serde_json::from_slice(&request.body)?;
        ensure!(body["type"] == "any.type" && body["data"] == json!({ "number": 7 }), "{body}");
    }
    assert_eq!(scene.hooks.count(), 2, "no more than one attempt each");
    let journal = evidence::journal(&scene.log).await?;
    let mut facts = journal.iter().flat_map(|batch| &batch.facts);
    assert!(facts.all(|record| record.fact.delivery().is_none()), "no delivery is on record");
    scene.api().act(TENANT, &works.id, "disable", &json!({})).await?;
    let refused = scene.api().act(TENANT, &works.id, "test", &sample).await.unwrap_err();
    let refused = refused.downcast_ref::<Refused>().context("a refusal")?;
    assert_eq!((refused.status, refused.code()), (409, "endpoint_disabled"));
    assert_eq!(scene.hooks.count(), 2);
    scene.finish(Expected::Calm).await
}
