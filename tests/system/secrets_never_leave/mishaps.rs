//! What goes wrong for people: a wrong key, servers that refuse, requests that are none.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use data_encoding::HEXLOWER;
use fanfare_service::random_bytes;
use fanfare_testkit::wait_until;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    process::Command,
    task::JoinSet,
};

use super::{Secrets, places};
use crate::support::{Process, Refused, Scene, Service, binary, logs, scene::TENANT};

/// What a server says that lets nobody in.
const INFO: &str = "INFO {\"server_id\":\"A\",\"version\":\"2.15.1\",\"proto\":1,\"headers\":true,\
    \"max_payload\":1048576,\"auth_required\":true,\"jetstream\":true}\r\n";
const REFUSAL: &str = "-ERR 'Authorization Violation'\r\n";

/// Does all of it.
pub(super) async fn all(
    scene: &Scene,
    secrets: &mut Secrets,
    variables: &[(String, String)],
) -> Result<()> {
    wrong_key(scene, secrets, variables).await?;
    refused_by_servers(scene, secrets, variables).await?;
    malformed(scene, secrets).await?;
    on_the_command_line(scene, secrets).await
}

/// A service that has another key than secrets were sealed with.
async fn wrong_key(
    scene: &Scene,
    secrets: &mut Secrets,
    variables: &[(String, String)],
) -> Result<()> {
    let key = HEXLOWER.encode(&random_bytes::<32>());
    secrets.add("another sealing key", &key);
    let path = scene.installation.logs().with_file_name("other.key");
    fs::write(&path, key).context("write a key")?;
    let mut settings = scene.installation.settings(Service::Api);
    settings.insert(String::from("sealing_key_file"), path.display().to_string());
    settings.insert(String::from("listen"), String::from("127.0.0.1:0"));
    let log = scene.installation.logs().join("api-wrong-key.log");
    let binary = binary::fanfare().await?;
    let process = Process::start_with(&binary, Service::Api, (&settings, variables), &log)?;
    ensure!(!process.ended().await?, "an API with another key does not start");
    Ok(())
}

/// A service that servers do not let in.
async fn refused_by_servers(
    scene: &Scene,
    secrets: &mut Secrets,
    variables: &[(String, String)],
) -> Result<()> {
    let password = format!("password-{}", HEXLOWER.encode(&random_bytes::<8>()));
    secrets.add("a password for servers", &password);
    let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a server")?;
    let address = listener.local_addr()?;
    let (said, mut heard) = tokio::sync::mpsc::channel::<String>(8);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (reading, mut writing) = stream.split();
            writing.write_all(INFO.as_bytes()).await.ok();
            let mut line = String::new();
            BufReader::new(reading).read_line(&mut line).await.ok();
            writing.write_all(REFUSAL.as_bytes()).await.ok();
            // Whoever listens has heard enough.
            said.try_send(line).ok();
        }
    });
    let mut settings = scene.installation.settings(Service::FanOut);
    let url = format!("nats://fanfare:{password}@{address}");
    settings.insert(String::from("log.url"), url);
    let log = scene.installation.logs().join("fan-out-refused.log");
    let binary = binary::fanfare().await?;
    let process = Process::start_with(&binary, Service::FanOut, (&settings, variables), &log)?;
    let connect = tokio::time::timeout(super::PATIENCE, heard.recv()).await?;
    ensure!(connect.is_some_and(|line| line.contains(&password)), "it shows the password");
    wait_until("the service to say that it is not let in", async || {
        let lines = logs::read(&log).unwrap_or_default();
        let told = lines.iter().any(|line| line.level > logs::Level::Normal);
        if told { Ok(()) } else { Err(lines.last().map(|line| line.text.clone())) }
    })
    .await;
    drop(process);
    Ok(())
}

/// Requests that are refused, with secrets wherever people put them by mistake.
async fn malformed(scene: &Scene, secrets: &mut Secrets) -> Result<()> {
    let slip = format!("slip-{}", HEXLOWER.encode(&random_bytes::<8>()));
    secrets.add("what was put in the wrong place", &slip);
    let bodies = [
        json!({ "url": 7, "secret": slip }).to_string(),
        json!({ "url": "https://example.com/", "event_types": [">"], "headers": slip }).to_string(),
        json!({ "url": "https://example.com/", "headers": { "a": [slip] } }).to_string(),
        format!("{{\"secret\":\"{slip}\""),
    ];
    let path = format!("/v1/tenants/{TENANT}/endpoints");
    let needles = secrets.needles();
    let address = scene.api().address().context("the API's address")?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let key = scene.api().key();
    for body in bodies {
        let request = client.post(format!("http://{address}{path}")).bearer_auth(key);
        let request = request.header("content-type", "application/json").body(body.clone());
        let answer = request.send().await?;
        ensure!(answer.status() == 400, "{body}: {}", answer.status());
        places::check(&needles, "the refusal of a body", &answer.bytes().await?)?;
    }
    let wrong = key.replace(|digit: char| digit.is_ascii_digit(), "a");
    for request in [
        client.get(format!("http://{address}{path}?key={key}&token={slip}")),
        client.get(format!("http://{address}/{slip}/{key}")),
        client.get(format!("http://{address}{path}")).basic_auth(&slip, Some(key)),
        client.get(format!("http://{address}{path}")).bearer_auth(format!("{key}{slip}")),
        client.get(format!("http://{address}{path}")).bearer_auth(wrong),
        client.get(format!("http://{address}{path}?cursor={slip}")).bearer_auth(key),
        client.post(format!("http://{address}{path}")).bearer_auth(key).body(slip.clone()),
        client.delete(format!("http://{address}{path}")).bearer_auth(key).body(slip.clone()),
    ] {
        let answer = request.send().await?;
        ensure!(answer.status().is_client_error(), "{}", answer.status());
        places::check(&needles, "a refusal", &answer.bytes().await?)?;
    }
    let refused = scene.api().get(&format!("{path}/{slip}")).await;
    ensure!(refused.is_err_and(|error| error.is::<Refused>()), "there is no such endpoint");
    Ok(())
}

/// The command line, where it cannot do what it is asked to.
async fn on_the_command_line(scene: &Scene, secrets: &Secrets) -> Result<()> {
    let address = format!("http://{}", scene.api().address().context("the API's address")?);
    let (key, sealing) = (scene.api().key(), places::sealing_key(scene)?);
    let operator = format!("operator_key={key}");
    let url = format!("log.url=nats://me:{sealing}@127.0.0.1:1");
    let file = scene.installation.settings(Service::Api);
    let file = file.get("sealing_key_file").context("the file's path")?;
    let file = format!("sealing_key_file={file}");
    let needles = secrets.needles();
    for arguments in [
        &["--api", &address, "--key", key, "endpoint", "list", "nobody"][..],
        &["--api", &address, "--key", key, "key", "list"],
        &["--api", "http://127.0.0.1:1", "--key", key, "tenant", "list"],
        &["--api", &address, "--key", &format!("{key}0"), "tenant", "list"],
        &["run", "api", "--check", "--set", &operator, "--set", &url, "--set", &file],
        &["run", "api", "--check", "--set", &operator, "--set", "listen=7", "--set", &file],
    ] {
        let mut command = Command::new(binary::fanfare().await?);
        let output = command.args(arguments).output().await.context("run the client")?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(!said.is_empty(), "{arguments:?} says nothing");
        places::check(&needles, &format!("what {:?} says", arguments.first()), &said)?;
    }
    Ok(())
}
