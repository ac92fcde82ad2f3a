//! A real Prometheus, which reads the metrics of services and is asked over an API of its own.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use fanfare_testkit::wait_until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::boards::observability;

/// How often other ports are tried.
const TRIES: u32 = 5;
/// How long a request to it may take.
const ANSWER: Duration = Duration::from_secs(30);

/// A running Prometheus. Dropping it kills it.
pub(crate) struct Prometheus {
    api: String,
    client: reqwest::Client,
    _held: (Child, TempDir),
}

/// What a query is answered: the values by their labels.
pub(crate) type Answer = BTreeMap<String, f64>;

impl Prometheus {
    /// Starts one that reads from these addresses each second, with our rules, if there is one on
    /// this machine; `None` after saying what is skipped.
    pub(crate) async fn start(what: &str, targets: &[String]) -> Result<Option<Self>> {
        fanfare_service::install_crypto_provider();
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
        for _ in 0..TRIES {
            let directory = tempfile::tempdir().context("make a directory")?;
            let settings = directory.path().join("prometheus.yml");
            // JSON is YAML.
            fs::write(&settings, settings_of(targets).to_string()).context("write settings")?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a port")?;
            let address = listener.local_addr()?;
            drop(listener);
            let mut command = Command::new("prometheus");
            command.arg(format!("--config.file={}", settings.display()));
            command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
            command.arg(format!("--web.listen-address={address}"));
            let log = fs::File::create(directory.path().join("log")).context("make a log")?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    // Not the macro: what that writes is shown for failing tests only.
                    writeln!(std::io::stderr(), "SKIPPED: {what}: there is no prometheus")?;
                    return Ok(None);
                }
                Err(error) => return Err(error).context("run prometheus"),
            };
            let api = format!("http://{address}");
            let lives = wait_until("prometheus to be ready", async || {
                // Somebody else may have taken its port.
                if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return Ok(false);
                }
                let answer = client.get(format!("{api}/-/ready")).send().await;
                let answer = answer.map_err(|error| error.to_string())?;
                if answer.status().is_success() {
                    Ok(true)
                } else {
                    Err(answer.status().to_string())
                }
            })
            .await;
            if lives {
                return Ok(Some(Self { api, client, _held: (child, directory) }));
            }
        }
        bail!("prometheus does not start")
    }

    /// Asks a query, at a time if one is given.
    pub(crate) async fn ask(&self, query: &str, at: Option<f64>) -> Result<Answer> {
        let mut parameters = vec![("query", String::from(query))];
        parameters.extend(at.map(|at| ("time", at.to_string())));
        let answer = self.get("/api/v1/query", &parameters).await?;
        let mut found = Answer::new();
        for one in answer["result"].as_array().context("a vector")? {
            let labels = one["metric"].as_object().context("labels")?;
            let labels = labels.iter().filter(|(name, _)| *name != "__name__");
            let labels: Vec<_> = labels.filter_map(|(_, value)| value.as_str()).collect();
            let value: f64 = one["value"][1].as_str().context("a value")?.parse()?;
            found.insert(labels.join(","), value);
        }
        Ok(found)
    }

    /// Every rule, as it tells of it.
    pub(crate) async fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.get("/api/v1/rules", &[]).await?;
        let groups = answer["groups"].as_array().context("groups")?;
        Ok(groups.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
    }

    async fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.api))?;
        url.query_pairs_mut().extend_pairs(parameters);
        let answer = self.client.get(url).send().await?.text().await?;
        let answer: Value = serde_json::from_str(&answer).context(answer)?;
        if answer["status"] != "success" {
            bail!("{parameters:?}: {answer}");
        }
        Ok(answer["data"].clone())
    }
}

fn settings_of(targets: &[String]) -> Value {
    let rules = observability().join("prometheus/alerts.yml");
    json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [rules],
        "scrape_configs": [
            {"job_name": "fanfare", "static_configs": [{"targets": targets}]},
        ],
    })
}
