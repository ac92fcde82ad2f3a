//! Where secrets are looked for: everything that is written, told or answered.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_testkit::wait_until;

use super::MARKER;
use crate::support::{
    Needles, Scene, Service,
    api::{Made, text},
    scene::TENANT,
    spans::Collector,
};

pub(super) fn check(secrets: &Needles, place: &str, text: &[u8]) -> Result<()> {
    match secrets.find(text) {
        Some(name) => bail!("{name} is in {place}"),
        None => Ok(()),
    }
}

/// The key that seals, as it stands in its file.
pub(super) fn sealing_key(scene: &Scene) -> Result<String> {
    let settings = scene.installation.settings(Service::Api);
    let path = settings.get("sealing_key_file").context("the key has a file")?;
    Ok(String::from(fs::read_to_string(path).context("read the key")?.trim()))
}

/// What is shown of what has secrets.
pub(super) async fn answers(scene: &Scene, secrets: &Needles, endpoints: &[Made]) -> Result<()> {
    let own = format!("/v1/tenants/{TENANT}");
    let mut paths: Vec<_> =
        endpoints.iter().map(|made| format!("{own}/endpoints/{}", made.id)).collect();
    for list in ["endpoints", "keys", "audit", "events", "deliveries", "dead-letters", "replays"] {
        paths.push(format!("{own}/{list}"));
    }
    paths.extend(["/v1/keys", "/v1/audit", "/v1/tenants"].map(String::from));
    let failed = format!("{own}/dead-letters");
    let dead = wait_until("the delivery log to have them", async || {
        let found = scene.api().get(&failed).await.map_err(|error| format!("{error:#}"))?;
        let first = found["data"][0].clone();
        if first.is_object() { Ok(first) } else { Err(found.to_string()) }
    })
    .await;
    let delivery = format!("{own}/deliveries/{}", text(&dead, "id")?);
    for end in ["", "/facts", "/attempts", "/attempts/1", "/trace"] {
        paths.push(format!("{delivery}{end}"));
    }
    for path in paths {
        let answer = scene.api().get(&path).await.with_context(|| path.clone())?;
        check(secrets, &format!("the answer of {path}"), answer.to_string().as_bytes())?;
    }
    Ok(())
}

/// What goes to those who watch: spans and numbers.
pub(super) async fn exports(scene: &Scene, secrets: &Needles, collector: &Collector) -> Result<()> {
    wait_until("spans and numbers to be exported", async || {
        let paths: BTreeSet<_> = collector.bodies().into_iter().map(|(path, _)| path).collect();
        let wanted = ["/v1/metrics", "/v1/traces"];
        if wanted.iter().all(|path| paths.contains(*path)) { Ok(()) } else { Err(paths) }
    })
    .await;
    let mut hits = 0;
    for (path, body) in collector.bodies() {
        hits += usize::from(body.windows(TENANT.len()).any(|window| window == TENANT.as_bytes()));
        check(secrets, &format!("what is exported to {path}"), &body)?;
    }
    ensure!(hits > 0, "the search of what is exported finds nothing at all");
    let address = scene.api().address().context("the API's address")?;
    let request = reqwest::Client::new().get(format!("http://{address}/metrics"));
    let numbers = request.bearer_auth(scene.api().key()).send().await?.error_for_status()?;
    check(secrets, "the API's metrics", &numbers.bytes().await?)
}

/// What lies in streams, in the servers' files, in logs, and in the delivery log.
pub(super) async fn streams_and_files(scene: &mut Scene, secrets: &Needles) -> Result<()> {
    let marker = Needles::new(vec![(String::from("the marker"), MARKER.as_bytes().to_vec())]);
    let everything = scene.installation.server().everything().await?;
    let streams: BTreeSet<_> = everything.iter().map(|message| message.stream.as_str()).collect();
    for wanted in ["FANFARE_CONFIG", "FANFARE_EVENTS", "FANFARE_JOURNAL"] {
        ensure!(streams.contains(wanted), "{streams:?}");
    }
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
    let said = fs::read_to_string(logs.join("api.log")).context("read what the API logs")?;
    ensure!(said.contains("\"level\":\"TRACE\"") || said.contains("\"level\":\"DEBUG\""));
    tables(scene, secrets)
}

/// The files of the delivery log.
fn tables(scene: &Scene, secrets: &Needles) -> Result<()> {
    let settings = scene.installation.settings(Service::Api);
    let database = settings.get("database").context("there is a delivery log")?;
    let path = Path::new(database.strip_prefix("sqlite:").context("it is a file")?);
    let (directory, name) = (path.parent().context("a directory")?, path.file_name());
    let name = name.and_then(|name| name.to_str()).context("a name")?;
    let tenant = Needles::new(vec![(String::from("the tenant"), TENANT.as_bytes().to_vec())]);
    let mut hits = 0;
    for entry in fs::read_dir(directory).context("look for the delivery log")? {
        let path = entry?.path();
        let is_part = path.file_name().and_then(|own| own.to_str());
        // With its log, and what is shared of it.
        if is_part.is_some_and(|own| own.starts_with(name)) {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            hits += usize::from(tenant.find(&bytes).is_some());
            check(secrets, &path.display().to_string(), &bytes)?;
        }
    }
    ensure!(hits > 0, "the search of the delivery log finds nothing at all");
    Ok(())
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
