//! The installation that all rows are played against, and the strangers around it.
//!
//! Loopback stands for the Internet: of it, dispatchers are allowed the ports of the receivers, and
//! nothing else. What is at another address of it, or another port, is inside.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_domain::{EndpointId, Fact, fact::AttemptMade};
use fanfare_event_log::{
    EventLog, JournalReader,
    journal::{From, JournalFilter},
};
use fanfare_testkit::{
    NameServer,
    receiver::{Behaviour, Hostile, Receiver, Trick, tricks},
    wait_until,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Mutex, task::JoinSet};

use crate::support::{
    Api, EAGER, Expected, Installation, Options, Process, Refused, Service, binary, logs,
};

/// How often an address is looked for that has a port which is free twice.
const PORTS_TRIED: usize = 32;
/// How old connections of the dispatcher get.
pub(crate) const CONNECTION_AGE_MAX: &str = "2s";

/// See the module.
pub(crate) struct World {
    /// The services. Their API takes any address, so that the dispatcher is on its own.
    pub(crate) installation: Installation,
    /// An API with the rules that it has by default.
    pub(crate) strict: Api,
    /// The log, as the services see it.
    pub(crate) log: EventLog,
    /// Whom the dispatcher asks for names.
    pub(crate) names: NameServer,
    /// A receiver that behaves, and that may be sent to.
    pub(crate) receiver: Receiver,
    /// Another one, which may be sent to by one rule and may not by another.
    pub(crate) denied: Receiver,
    /// What listens inside, at the receiver's port of [`INSIDE`].
    pub(crate) sink: Sink,
    /// The receivers that misbehave.
    pub(crate) hostile: Vec<(Trick, Hostile)>,
    strict_process: Process,
    decoy: Sink,
    facts: Mutex<Facts>,
    _directory: TempDir,
}

/// An address that stands for one inside.
pub(crate) const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The address that stands for the Internet.
pub(crate) const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Counts who connects.
pub(crate) struct Sink {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// What the journal has said so far.
struct Facts {
    reader: JournalReader,
    attempts: BTreeMap<EndpointId, Vec<AttemptMade>>,
}

impl Sink {
    async fn start(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.context("bind a sink")?;
        let address = listener.local_addr().context("read a sink's address")?;
        let connections = Arc::new(AtomicU64::new(0));
        let (count, mut tasks) = (Arc::clone(&connections), JoinSet::new());
        tasks.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                drop(connection);
            }
        });
        Ok(Self { address, connections, _tasks: tasks })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many came.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl World {
    /// Starts everything.
    pub(crate) async fn begin() -> Result<Self> {
        fanfare_service::install_crypto_provider();
        let (receiver, sink) = receiver_and_sink().await?;
        receiver.answer(Behaviour::status(200));
        let denied = Receiver::start().await?;
        let names = NameServer::start().await?;
        let decoy = Sink::start(SocketAddr::new(OUTSIDE, 0)).await?;
        let mut hostile = Vec::new();
        for trick in tricks() {
            let server = Hostile::start(&trick).await?;
            hostile.push((trick, server));
        }
        let directory = tempfile::tempdir().context("make a directory")?;
        let roots = directory.path().join("authorities.pem");
        let trusted = hostile.iter().filter_map(|(_, server)| server.authority());
        fs::write(&roots, trusted.collect::<String>()).context("write the authorities")?;

        let ports = hostile.iter().map(|(_, server)| server.address().port());
        let own = [&receiver, &denied].map(|receiver| receiver.address().port());
        let allowed = ports.chain(own);
        let allowed: Vec<_> = allowed.map(|port| format!("{OUTSIDE}/32:{port}")).collect();
        let proxy = format!("http://{}", decoy.address());
        let variables = [
            ("FANFARE_DISPATCHER__EGRESS__ALLOW", allowed.join(",")),
            (
                "FANFARE_DISPATCHER__EGRESS__DENY",
                format!("{OUTSIDE}/32:{}", denied.address().port()),
            ),
            ("FANFARE_DISPATCHER__EGRESS__ROOT_FILES", roots.display().to_string()),
            ("FANFARE_DISPATCHER__EGRESS__NAME_SERVERS", names.address().to_string()),
            ("FANFARE_DISPATCHER__EGRESS__CONNECTION_AGE_MAX", String::from(CONNECTION_AGE_MAX)),
            ("FANFARE_API__ALLOW", String::from("0.0.0.0/0,::/0")),
            ("FANFARE_API__WEBHOOK_ORIGIN", String::from("events.example.com")),
            ("http_proxy", proxy.clone()),
            ("https_proxy", proxy.clone()),
            ("HTTP_PROXY", proxy.clone()),
            ("HTTPS_PROXY", proxy.clone()),
            ("ALL_PROXY", proxy),
        ];
        let variables = variables.map(|(name, value)| (String::from(name), value));
        let options = Options {
            api_allows_loopback: false,
            dispatcher_allows_loopback: false,
            profile: EAGER,
            variables: variables.into(),
            ..Options::default()
        };
        let mut installation = Installation::start_with(options).await?;
        installation.start_service(Service::Projector).await?;
        let (strict, strict_process) = strict_api(&installation).await?;
        let log = installation.log().await?;
        let reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
        let facts = Mutex::new(Facts { reader, attempts: BTreeMap::new() });
        Ok(Self {
            installation,
            strict,
            log,
            names,
            receiver,
            denied,
            sink,
            hostile,
            strict_process,
            decoy,
            facts,
            _directory: directory,
        })
    }

    /// Ends everything.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { installation, log, strict_process, hostile, receiver, .. } = self;
        // Requests that hang end with those who hold them.
        drop((hostile, receiver));
        log.close().await;
        strict_process.stop().await?;
        installation.finish(Expected::Calm).await
    }

    /// The API that takes any address.
    pub(crate) fn api(&self) -> &Api {
        self.installation.api()
    }

    /// How many connections there were to the proxy that the environment names.
    pub(crate) fn decoy_connections(&self) -> u64 {
        self.decoy.connections()
    }

    /// Makes an endpoint for all events, with one attempt for each and no more for an hour.
    pub(crate) async fn endpoint(&self, tenant: &str, url: &str) -> Result<EndpointId> {
        let made = self.api().endpoint(tenant, &new_endpoint(url)).await;
        let made = made.with_context(|| format!("make an endpoint of {url}"))?;
        made.id.parse().context("an endpoint's id")
    }

    /// Returns the attempts for an endpoint, once there are so many.
    pub(crate) async fn attempts(&self, id: EndpointId, count: usize) -> Vec<AttemptMade> {
        wait_until("attempts to be on record", async || match self.attempts_now(id).await {
            Ok(attempts) if attempts.len() >= count => Ok(attempts),
            Ok(attempts) => Err(format!("{} of {count} for {id}", attempts.len())),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// Returns the attempts for an endpoint that are on record.
    pub(crate) async fn attempts_now(&self, id: EndpointId) -> Result<Vec<AttemptMade>> {
        let mut facts = self.facts.lock().await;
        let last = self.log.journal_last().await?;
        while let Some(batch) = facts.reader.next_until(last).await? {
            for record in batch.facts {
                if let Fact::AttemptMade(made) = record.fact {
                    facts.attempts.entry(made.delivery.endpoint).or_default().push(*made);
                }
            }
        }
        Ok(facts.attempts.get(&id).cloned().unwrap_or_default())
    }
}

/// What is sent to the API to make an endpoint.
pub(crate) fn new_endpoint(url: &str) -> Value {
    json!({
        "url": url,
        "event_types": [">"],
        "retry": { "delays": { "list": ["1h"] }, "retry_on": "anything", "retry_after": [429] },
        "timeout_ms": 2_500,
    })
}

/// Says what came of a call: a code, or `taken`.
pub(crate) fn told<T>(answer: Result<T>) -> Result<String> {
    match answer {
        Ok(_) => Ok(String::from("taken")),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) => Ok(format!("{} {}", refused.status, refused.code())),
            None => Err(error),
        },
    }
}

/// Starts a receiver, and a sink at the same port of the address inside.
async fn receiver_and_sink() -> Result<(Receiver, Sink)> {
    for _ in 0..PORTS_TRIED {
        let receiver = Receiver::start().await?;
        let inside = SocketAddr::new(INSIDE, receiver.address().port());
        if let Ok(sink) = Sink::start(inside).await {
            return Ok((receiver, sink));
        }
    }
    bail!("no port is free at both {OUTSIDE} and {INSIDE}")
}

/// Starts another API, with the rules for URLs that it has by default, but for HTTPS.
async fn strict_api(installation: &Installation) -> Result<(Api, Process)> {
    let mut settings = installation.settings(Service::Api);
    for key in ["allow", "endpoint_ports"] {
        settings.remove(key);
    }
    settings.insert(String::from("listen"), String::from("127.0.0.1:0"));
    let log = installation.logs().join("api-strict.log");
    let process = Process::start(&binary::fanfare().await?, Service::Api, &settings, &log)?;
    let mut api = Api::new(installation.api().key())?;
    let address = wait_until("the strict API to listen", async || {
        let lines = logs::read(&log).unwrap_or_default();
        let address = lines.iter().find_map(|line| line.field("address")).map(String::from);
        address.ok_or_else(|| lines.last().map(|line| line.text.clone()).unwrap_or_default())
    })
    .await;
    api.set_address(&address);
    wait_until("the strict API to be ready", async || api.ready().await).await;
    ensure!(api.address().is_some(), "the strict API listens");
    Ok((api, process))
}
