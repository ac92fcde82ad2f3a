//! A secret is sealed before it enters any stream, and appears in no log and in no answer but the
//! one that gives it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use data_encoding::{BASE64, HEXLOWER};
use fanfare_testkit::receiver::{Behaviour, Certificate, ClientIdentity, Receiver};
use serde_json::{Value, json};

use crate::support::{
    Answer, Expected, Hooks, Needles, Options, Route, Scene, Service, scene::TENANT,
};

const PATIENCE: Duration = Duration::from_mins(1);
/// What a token server gives.
const TOKEN: &str = "access-token-7a1f93c2e8";
/// What is in an event's data: it must be found, or the search finds nothing.
const MARKER: &str = "Zo\u{eb}";

/// A secret, in every form in which it could leave.
fn forms(name: &str, secret: &str) -> Vec<(String, Vec<u8>)> {
    let mut forms = vec![
        (format!("{name} as text"), secret.as_bytes().to_vec()),
        (format!("{name} in hexadecimal"), HEXLOWER.encode(secret.as_bytes()).into_bytes()),
        (format!("{name} in base 64"), BASE64.encode(secret.as_bytes()).into_bytes()),
    ];
    let symbols = secret.split_once('_').map_or(secret, |(_, symbols)| symbols);
    if let Ok(bytes) = BASE64.decode(symbols.as_bytes()) {
        forms.push((format!("the key of {name} in hexadecimal"), HEXLOWER.encode(&bytes).into()));
        forms.push((format!("the key of {name}"), bytes));
    }
    forms.push((format!("{name} without its prefix"), symbols.as_bytes().to_vec()));
    forms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_a_stream_a_file_of_the_server_a_log_or_an_answer() -> Result<()> {
    // A failing endpoint too: errors are where secrets slip out.
    let hooks = Hooks::answering(|request, earlier| match (request.path.as_str(), earlier) {
        ("/fails", 0) => Answer::Status(500),
        ("/breaks", 0) => Answer::Reset,
        _ => Answer::Status(200),
    });
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    // Each token is good for as long as it takes to use it, so that there are many requests.
    let given = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 0 });
    let tokens = Receiver::start().await?;
    tokens.answer(Behaviour::text(200, given.to_string()));
    let mut wanted = Vec::new();
    for path in ["/works", "/fails", "/breaks"] {
        let mut new = scene.endpoint(path, &[">"], &["100ms"]);
        let header = format!("bearer-for-{}-5db1c0a7", path.trim_start_matches('/'));
        new["headers"] = json!({ "authorization": header });
        wanted.extend(show(&mut new, path, &format!("{header}-shown"), &tokens)?);
        let made = scene.api().endpoint(TENANT, &new).await?;
        scene.note(path, &[">"], &made, &["100ms"])?;
        wanted.extend(forms(&format!("the secret of {path}"), &made.secret));
        wanted.extend(forms(&format!("the header of {path}"), &header));
        let rotated = scene.api().act(TENANT, &made.id, "rotate-secret", &json!({})).await?;
        let secret = crate::support::api::text(&rotated, "secret")?;
        wanted.extend(forms(&format!("the second secret of {path}"), &secret));
        let shown = format!("/v1/tenants/{TENANT}/endpoints/{}", made.id);
        let shown = scene.api().get(&shown).await?.to_string();
        check(&Needles::new(wanted.clone()), "the API's answer", shown.as_bytes())?;
    }
    let key = json!({ "role": "publish" });
    let key = scene.api().post(&format!("/v1/tenants/{TENANT}/keys"), &key).await?;
    wanted.extend(forms("a tenant's key", &crate::support::api::text(&key, "key")?));
    wanted.extend(forms("the operator's key", scene.api().key()));
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
    search(&mut scene, &Needles::new(wanted)).await?;
    ensure!(tokens.count() > 0, "a token was asked for");
    scene.finish(Expected::Turmoil).await
}

/// Has requests show a secret where an endpoint has no header for that; returns what must not leave.
fn show(
    new: &mut Value,
    path: &str,
    secret: &str,
    tokens: &Receiver,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut wanted = forms(&format!("what {path} is shown"), secret);
    match path {
        "/works" => {
            new["authentication"] = json!({
                "type": "oauth2", "token_url": tokens.url("/token"), "client_id": "us",
                "client_secret": secret,
            });
            wanted.extend(forms("an access token", TOKEN));
        }
        "/breaks" => {
            new["authentication"] = json!({ "type": "bearer", "token": secret });
            let ours = ClientIdentity::self_signed(Certificate::ForClients)?;
            new["tls"] = json!({
                "client_certificate_pem": ours.certificate, "client_key_pem": ours.key,
            });
            let mut lines = ours.key.lines().filter(|line| !line.starts_with('-'));
            wanted.extend(forms("the key of a certificate", lines.next().unwrap_or_default()));
        }
        _ => return Ok(wanted),
    }
    new["headers"] = json!({});
    Ok(wanted)
}

async fn search(scene: &mut Scene, secrets: &Needles) -> Result<()> {
    let marker = Needles::new(vec![(String::from("the marker"), MARKER.as_bytes().to_vec())]);
    let everything = scene.installation.server().everything().await?;
    let streams: BTreeSet<_> = everything.iter().map(|message| message.stream.as_str()).collect();
    ensure!(streams.contains("FANFARE_CONFIG"), "{streams:?}");
    let mut hits = 0;
    for message in &everything {
        for text in message.texts() {
            hits += usize::from(marker.find(text).is_some());
            check(secrets, &format!("{} {}", message.stream, message.sequence), text)?;
        }
    }
    ensure!(hits > 0, "the search of streams finds nothing at all");
    let store = scene.installation.nats().data_dir().to_owned();
    let logs = scene.installation.logs();
    let mut hits = 0;
    for path in files(&store)?.into_iter().chain(files(&logs)?) {
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        hits += usize::from(marker.find(&bytes).is_some());
        check(secrets, &path.display().to_string(), &bytes)?;
    }
    ensure!(hits > 0, "the search of files finds nothing at all");
    Ok(())
}

fn check(secrets: &Needles, place: &str, text: &[u8]) -> Result<()> {
    match secrets.find(text) {
        Some(name) => anyhow::bail!("{name} is in {place}"),
        None => Ok(()),
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    Ok(found)
}
