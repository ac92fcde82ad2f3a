//! A secret is sealed before it enters any stream, and appears in no log, span, number, table, error or
//! answer but the one that gives it: also when things go wrong, and all is told that there is to tell.

mod mishaps;
mod places;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use data_encoding::{BASE64, HEXLOWER};
use fanfare_testkit::receiver::{Behaviour, Certificate, ClientIdentity, Receiver};
use serde_json::{Value, json};

use crate::support::{
    Answer, EAGER, Expected, Hooks, Needles, Options, Route, Scene, Service,
    api::{Made, text},
    scene::TENANT,
    search::forms,
    spans::Collector,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// What a token server gives.
const TOKEN: &str = "access-token-7a1f93c2e8";
/// What is in an event's data: it must be found, or the search finds nothing.
const MARKER: &str = "Zo\u{eb}";
/// Everything that our own code has to say.
const FILTER: &str = "info,fanfare=trace,fanfare_api=trace,fanfare_delivery_log=trace,\
    fanfare_dispatcher=trace,fanfare_domain=trace,fanfare_egress=trace,fanfare_event_log=trace,\
    fanfare_fan_out=trace,fanfare_ingest=trace,fanfare_projector=trace,\
    fanfare_retry_scheduler=trace,fanfare_service=trace";

/// What is looked for.
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// Adds a secret, and what stands behind its prefix.
    fn add(&mut self, name: &str, secret: &str) {
        self.0.extend(forms(name, secret.as_bytes()));
        let Some((_, symbols)) = secret.split_once(['_', ' ']) else { return };
        self.0.extend(forms(&format!("{name} without its prefix"), symbols.as_bytes()));
        let decoded = BASE64.decode(symbols.as_bytes());
        if let Ok(key) = decoded.or_else(|_| HEXLOWER.decode(symbols.as_bytes())) {
            self.0.extend(forms(&format!("the key of {name}"), &key));
        }
    }

    fn needles(&self) -> Needles {
        Needles::new(self.0.clone())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_anything_that_is_written_told_or_answered() -> Result<()> {
    // Failing endpoints too: errors are where secrets slip out.
    let hooks = Hooks::answering(|request, earlier| match (request.path.as_str(), earlier) {
        ("/fails", 0) | ("/never", _) => Answer::Status(500),
        ("/breaks", 0) => Answer::Reset,
        _ => Answer::Status(200),
    });
    let collector = Collector::start().await?;
    let mut variables = collector.variables();
    for (name, value) in [
        ("FANFARE_LOG", FILTER),
        ("OTEL_METRICS_EXPORTER", "otlp"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ] {
        variables.retain(|(known, _)| known != name);
        variables.push((String::from(name), String::from(value)));
    }
    // Its breaker would hold up what the endpoint that always fails is to get.
    let options = Options { variables: variables.clone(), profile: EAGER, ..Options::default() };
    let mut scene = Scene::set_with(options, hooks.await?).await?;
    scene.installation.start_service(Service::Projector).await?;
    let mut secrets = Secrets(Vec::new());
    // Each token is good for as long as it takes to use it, so that there are many requests.
    let given = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 0 });
    let tokens = Receiver::start().await?;
    tokens.answer(Behaviour::text(200, given.to_string()));
    let endpoints = plant(&mut scene, &mut secrets, &tokens).await?;
    let planned = (0..30).map(|_| scene.plan("a.b", Route::Http)).collect::<Result<Vec<_>>>()?;
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    scene.judge().await?;
    // In the midst of things, so that errors are logged.
    scene.installation.nats().kill().await?;
    scene.installation.nats().restart().await?;
    scene.installation.kill(Service::Dispatcher).await?;
    scene.installation.start_service(Service::Dispatcher).await?;
    let planned = vec![scene.plan("a.b", Route::Http)?];
    scene.publish(planned).await?;
    scene.concluded(PATIENCE).await?;
    mishaps::all(&scene, &mut secrets, &variables).await?;
    let needles = secrets.needles();
    places::answers(&scene, &needles, &endpoints).await?;
    places::exports(&scene, &needles, &collector).await?;
    places::streams_and_files(&mut scene, &needles).await?;
    ensure!(tokens.count() > 0, "a token was asked for");
    scene.finish(Expected::Turmoil).await
}

/// Makes everything that is secret.
async fn plant(scene: &mut Scene, secrets: &mut Secrets, tokens: &Receiver) -> Result<Vec<Made>> {
    let mut endpoints = Vec::new();
    for (path, header) in [
        ("/works", "Bearer for-works-5db1c0a7"),
        ("/fails", "Basic dXNlcjpmb3ItZmFpbHMtNWRiMWMwYTc/Kz4="),
        ("/breaks", "token for-breaks-5db1c0a7~%22"),
        ("/never", "Bearer for-never-5db1c0a7"),
        ("/asks", "Bearer for-asks-5db1c0a7"),
        ("/shown", "Bearer for-shown-5db1c0a7"),
    ] {
        let mut new = scene.endpoint(path, &[">"], &["100ms"]);
        new["headers"] = json!({ "authorization": header });
        show(&mut new, path, secrets, tokens)?;
        let made = scene.api().endpoint(TENANT, &new).await?;
        scene.note(path, &[">"], &made, &["100ms"])?;
        secrets.add(&format!("the secret of {path}"), &made.secret);
        secrets.add(&format!("the header of {path}"), header);
        let rotated = scene.api().act(TENANT, &made.id, "rotate-secret", &json!({})).await?;
        secrets.add(&format!("the second secret of {path}"), &text(&rotated, "secret")?);
        endpoints.push(made);
    }
    let made = async |end: &str, body: Value, name: &str| {
        let made = scene.api().post(&format!("/v1/tenants/{TENANT}/{end}"), &body).await?;
        text(&made, name)
    };
    secrets.add("a tenant's key", &made("keys", json!({ "role": "publish" }), "key").await?);
    let token = made("portal-links", json!({ "user": "ada" }), "token").await?;
    let (_, sealed) = token.split_once('.').context("a token has two parts")?;
    secrets.add("what a portal's token holds", sealed);
    secrets.add("a portal's token", &token);
    secrets.add("the operator's key", scene.api().key());
    let sealing = places::sealing_key(scene)?;
    secrets.add("the sealing key", &sealing);
    secrets.0.extend(forms("the sealing key's bytes", &HEXLOWER.decode(sealing.as_bytes())?));
    Ok(endpoints)
}

/// Has requests show a secret where an endpoint has no header for that.
fn show(new: &mut Value, path: &str, secrets: &mut Secrets, tokens: &Receiver) -> Result<()> {
    let secret = format!("secret_for-{}-91d7c3", path.trim_start_matches('/'));
    match path {
        "/asks" => {
            new["authentication"] = json!({
                "type": "oauth2", "token_url": tokens.url("/token"), "client_id": "us",
                "client_secret": secret,
            });
            secrets.add("an access token", TOKEN);
        }
        "/shown" => {
            new["authentication"] = json!({ "type": "bearer", "token": secret });
            let ours = ClientIdentity::self_signed(Certificate::ForClients)?;
            new["tls"] = json!({
                "client_certificate_pem": ours.certificate, "client_key_pem": ours.key,
            });
            let mut lines = ours.key.lines().filter(|line| !line.starts_with('-'));
            secrets.add("the key of a certificate", lines.next().unwrap_or_default());
        }
        _ => return Ok(()),
    }
    new["headers"] = json!({});
    secrets.add(&format!("what {path} is shown"), &secret);
    Ok(())
}
