//! No request goes to an address of the operator's own network: the API refuses such a URL, and
//! the dispatcher such a connection, each by itself.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_domain::{Fault, Outcome};
use serde_json::json;

use crate::support::{
    Expected, Hooks, Options, Refused, Route, Scene, checker::fold, evidence, scene::TENANT,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_refuses_urls_that_lead_inside() -> Result<()> {
    let options = Options { api_allows_loopback: false, ..Options::default() };
    let scene = Scene::set_with(options, Hooks::start().await?).await?;
    let own = scene.hooks.url("/inside");
    let port = own.trim_start_matches("http://127.0.0.1:");
    for (url, code) in [
        (own.as_str(), "url_address_forbidden"),
        (&format!("http://2130706433:{port}"), "url_address_forbidden"),
        (&format!("http://0x7f.1:{port}"), "url_address_forbidden"),
        (&format!("http://[::ffff:127.0.0.1]:{port}"), "url_address_forbidden"),
        (&format!("http://[::1]:{port}"), "url_address_forbidden"),
        (&format!("http://localhost:{port}"), "url_localhost_forbidden"),
        ("http://169.254.169.254/latest/meta-data/", "url_address_forbidden"),
        ("http://10.0.0.1/", "url_address_forbidden"),
        ("http://192.168.1.1/", "url_address_forbidden"),
        ("http://100.64.0.1/", "url_address_forbidden"),
        ("http://[fd00::1]/", "url_address_forbidden"),
        ("http://[64:ff9b::7f00:1]/", "url_address_forbidden"),
    ] {
        let made = scene.api().endpoint(TENANT, &json!({ "url": url, "event_types": [">"] })).await;
        let error = made.err().with_context(|| format!("{url} was admitted"))?;
        let refused = error.downcast_ref::<Refused>().with_context(|| format!("{error:#}"))?;
        assert_eq!((refused.status, refused.code()), (400, code), "{url}");
    }
    scene.finish(Expected::Calm).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dispatcher_refuses_to_connect_inside_whatever_the_api_let_pass() -> Result<()> {
    let options = Options { dispatcher_allows_loopback: false, ..Options::default() };
    let mut scene = Scene::set_with(options, Hooks::start().await?).await?;
    scene.subscribe("/inside", &[">"], &["100ms"]).await?;
    let planned = vec![scene.plan("a.b", Route::Inbox)?];
    scene.publish(planned).await?;
    scene.concluded(Duration::from_mins(1)).await?;
    let journal = evidence::journal(&scene.log).await?;
    let histories = fold(&journal);
    let attempts: Vec<_> = histories.values().flat_map(|history| &history.attempts).collect();
    assert_eq!(attempts.len(), 2);
    for made in attempts {
        assert_eq!(made.outcome, Outcome::Failed(Fault::AddressForbidden));
    }
    assert_eq!(scene.hooks.count(), 0);
    scene.finish(Expected::Calm).await
}
