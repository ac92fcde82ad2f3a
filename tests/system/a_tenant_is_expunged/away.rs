//! The same while nobody folds, or nothing can be written into the delivery log: what it has of the
//! tenant goes as soon as that is back, and does not come again.

use fanfare_testkit::Postgres;

use super::*;

/// A scene with a tenant that is in the delivery log, and another one.
async fn folded(postgres: Option<&Postgres>) -> Result<Scene> {
    let scene = scene_with(postgres.map(Postgres::url)).await?;
    let good = endpoint(&scene, TENANT, "/good", &["1s"]).await?;
    let bad = endpoint(&scene, TENANT, "/bad", &["100ms"]).await?;
    endpoint(&scene, OTHER, "/other", &["1s"]).await?;
    publish(&scene, TENANT, 4).await?;
    publish(&scene, OTHER, 4).await?;
    concluded(&scene, &good.id, 4).await;
    concluded(&scene, &bad.id, 4).await;
    listed(&scene, &own("/deliveries"), 8).await;
    listed(&scene, &own("/events"), 4).await;
    listed(&scene, &others(), 4).await;
    Ok(scene)
}

fn others() -> String {
    format!("/v1/tenants/{OTHER}/deliveries?state=delivered")
}

/// Expunges the tenant, of whom there is also something that was never folded; returns once nothing
/// but the delivery log is waited for.
async fn expunge(scene: &Scene) -> Result<Value> {
    for key in ["late-1", "late-2"] {
        let data = format!("\"{MARKER}\"");
        scene.api().publish(TENANT, "invoice.paid", &data, key).await?;
    }
    scene.api().post(&own("/expunge"), &json!({ "confirm": TENANT })).await?;
    let stands = wait_until("everything else to be removed", async || {
        let stands = scene.api().get(&own("/expunge")).await;
        let stands = stands.map_err(|error| format!("{error:#}"))?;
        let found = streams_with_marker(scene).await.map_err(|error| format!("{error:#}"))?;
        // What the audit has to take first.
        let is_left = |stream: &String| stream != "FANFARE_CONFIG";
        let waits = stands["waits_for"] == "delivery_log";
        if waits && !found.keys().any(is_left) { Ok(stands) } else { Err(format!("{found:?}")) }
    })
    .await;
    ensure!(stands["state"] == "running", "{stands}");
    assert_eq!(refusal(scene, &own("/deliveries")).await?, "tenant_not_found");
    Ok(stands)
}

/// Once the log is back, it has nothing of the tenant, nor after it was made anew; the other tenant
/// has everything.
async fn check(scene: &Scene) -> Result<()> {
    gone(scene).await;
    let found = streams_with_marker(scene).await?;
    ensure!(found.is_empty(), "it is left in {found:?}");
    forgotten(scene).await?;
    listed(scene, &others(), 4).await;
    rebuild(scene).await?;
    forgotten(scene).await?;
    listed(scene, &others(), 4).await;
    let page = scene.api().get(&format!("/v1/audit?tenant={TENANT}&limit=250")).await?;
    let is_known = page["data"].as_array().is_some_and(|entries| entries.len() >= 6);
    ensure!(is_known && !page.to_string().contains(MARKER), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_expunged_while_nobody_folds_is_forgotten_afterwards() -> Result<()> {
    let mut scene = folded(None).await?;
    scene.installation.kill(Service::Projector).await?;
    let stands = expunge(&scene).await?;
    assert_eq!(stands["delivery_log_forgot"], json!(false), "{stands}");
    scene.installation.start_service(Service::Projector).await?;
    check(&scene).await?;
    scene.finish(Expected::Turmoil).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_expunged_while_the_database_is_stopped_is_forgotten_afterwards() -> Result<()> {
    let what = "who_is_expunged_while_the_database_is_stopped_is_forgotten_afterwards";
    let Some(mut postgres) = Postgres::start(what).await? else { return Ok(()) };
    let scene = folded(Some(&postgres)).await?;
    postgres.stop();
    let stands = expunge(&scene).await?;
    assert_eq!(stands["delivery_log_forgot"], Value::Null, "{stands}");
    postgres.restart().await?;
    check(&scene).await?;
    scene.finish(Expected::Turmoil).await
}
