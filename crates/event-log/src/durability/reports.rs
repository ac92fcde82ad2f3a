//! What the servers say of themselves, if they are asked by way of the system account.

use std::time::Duration;

use async_nats::{Client, ServerAddr};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::DurabilityError;
use crate::{Settings, access, topology::inbox};

/// How long answers are waited for.
const GATHER: Duration = Duration::from_secs(1);
/// Where every server of the system answers for JetStream.
pub(crate) const QUESTION: &str = "$SYS.REQ.SERVER.PING.JSZ";

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerReport {
    /// Its name, or its id if it has none.
    pub server: String,
    /// Its version, as it says it.
    pub version: String,
    /// Whether it syncs every write to disk before it acknowledges it.
    pub sync_always: bool,
    /// How many servers its cluster has, those included that are down; `None` if it is alone.
    pub cluster_size: Option<usize>,
}

/// The name of the user of the system account that may ask for this and nothing else.
pub(crate) const CHECK: &str = "check";

/// Asks every server with JetStream, by way of the settings' system account, and takes the answers
/// of one second.
pub async fn gather(settings: &Settings) -> Result<Vec<ServerReport>, DurabilityError> {
    let level = settings.durability.as_str();
    let url = settings.system_url.as_deref().ok_or(DurabilityError::NoSystemUrl { level })?;
    let servers: Vec<ServerAddr> = url
        .split(',')
        .map(|url| url.trim().parse())
        .collect::<Result<_, _>>()
        .map_err(|source| DurabilityError::MalformedUrl { source })?;
    let client = access::begin(&settings.system_login, &settings.tls, &servers)?
        .name("fanfare durability check")
        .custom_inbox_prefix(inbox(&settings.prefix, CHECK))
        .connect(servers)
        .await
        .map_err(|source| DurabilityError::Unreachable { source })?;
    ask(&client).await.map_err(|source| DurabilityError::Unasked { source })
}

async fn ask(client: &Client) -> Result<Vec<ServerReport>, async_nats::Error> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    let options = Bytes::from_static(br#"{"config":true}"#);
    client.publish_with_reply(QUESTION, inbox, options).await?;
    client.flush().await?;
    let until = Instant::now() + GATHER;
    let mut reports = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        match serde_json::from_slice::<Answer>(&answer.payload) {
            Ok(answer) => reports.extend(answer.report()),
            Err(error) => warn!(%error, "a server's answer about JetStream cannot be read"),
        }
    }
    Ok(reports)
}

/// What a server answers: the parts that matter. What is `false` it leaves out.
#[derive(Deserialize)]
struct Answer {
    server: AnswerServer,
    #[serde(default)]
    data: AnswerData,
}

#[derive(Deserialize)]
struct AnswerServer {
    #[serde(default)]
    name: String,
    id: String,
    ver: String,
}

#[derive(Default, Deserialize)]
struct AnswerData {
    #[serde(default)]
    disabled: bool,
    config: Option<AnswerConfig>,
    meta_cluster: Option<AnswerCluster>,
}

#[derive(Deserialize)]
struct AnswerCluster {
    cluster_size: usize,
}

#[derive(Deserialize)]
struct AnswerConfig {
    #[serde(default)]
    sync_always: bool,
}

impl Answer {
    /// `None` for a server that keeps no messages.
    fn report(self) -> Option<ServerReport> {
        let config = self.data.config.filter(|_| !self.data.disabled)?;
        let AnswerServer { name, id, ver } = self.server;
        Some(ServerReport {
            server: if name.is_empty() { id } else { name },
            version: ver,
            sync_always: config.sync_always,
            cluster_size: self.data.meta_cluster.map(|cluster| cluster.cluster_size),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_servers_give_them() {
        let always = r#"{"server":{"name":"n1","host":"h","id":"NDCN","ver":"2.15.1","jetstream":true},
            "data":{"memory":0,"config":{"max_memory":1,"sync_interval":120000000000,"sync_always":true,"strict":true},
            "meta_cluster":{"name":"c","leader":"n2","peer":"x","cluster_size":3,"pending":0}}}"#;
        let lazy = r#"{"server":{"name":"n1","id":"NDCN","ver":"2.15.1"},
            "data":{"config":{"sync_interval":120000000000}}}"#;
        let without = r#"{"server":{"name":"n1","id":"NDCN","ver":"2.15.1"},"data":{"disabled":true,"config":{}}}"#;
        let read = |text| serde_json::from_str::<Answer>(text).unwrap().report();
        let report = |sync_always, cluster_size| {
            let (server, version) = (String::from("n1"), String::from("2.15.1"));
            Some(ServerReport { server, version, sync_always, cluster_size })
        };
        assert_eq!(read(always), report(true, Some(3)));
        assert_eq!(read(lazy), report(false, None));
        assert_eq!(read(without), None);
    }
}
