//! A running API, and a client of it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fanfare_api::{EndpointHttps, Rate, Settings, TraceTrust, generate_key};
use fanfare_delivery_log::{Changes, Database, DatabaseUrl, Progress, Store, Streams};
use fanfare_domain::{AddressPolicy, StoredEvent, address::AddressRule, seal::Clear, url::Ports};
use fanfare_event_log::{EventLog, JournalFilter, journal::From};
use fanfare_service::{Context, Failure, random_bytes};
use fanfare_testkit::{NatsServer, Proxy, StoredMessage};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long requests in flight may take once the service stops.
const GRACE: Duration = Duration::from_secs(20);

/// A server, a log on it, and one API.
pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) log: EventLog,
    /// An operator's key with every right.
    pub(crate) operator: String,
    pub(crate) api: Api,
    /// The delivery log, which nobody folds into.
    pub(crate) database: Database,
    sealing_key_file: PathBuf,
    _directory: TempDir,
}

/// A running API.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Failure>>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body; `null` if it is empty.
    pub(crate) body: Value,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        fanfare_service::install_crypto_provider();
        let nats = NatsServer::start().await?;
        let log = nats.log().await?;
        let directory = tempfile::tempdir()?;
        let sealing_key_file = directory.path().join("sealing.key");
        std::fs::write(&sealing_key_file, "ab".repeat(32))?;
        let operator = generate_key(random_bytes());
        // The projector would make the tables.
        let database = Database::new(&delivery_log(&sealing_key_file))?;
        Store::open(&database, &streams(&log).await?).await?;
        let api = Api::start(settings(&nats, sealing_key_file.clone(), &operator)).await?;
        Ok(Self { nats, log, operator, api, database, sealing_key_file, _directory: directory })
    }

    /// Has the delivery log take in what was configured, as the projector would.
    pub(crate) async fn fold_config(&self) -> Result<Store> {
        let store = Store::open(&self.database, &streams(&self.log).await?).await?;
        let (before, last) = (store.progress().await?, self.log.config_last().await?);
        if last > before.config {
            let mut config = self.log.follow_config(before.config + 1).await?;
            let mut changes = Changes::default();
            let mut reached = before.config;
            while reached < last {
                let stored = config.next().await?;
                reached = stored.revision;
                changes.config(reached, stored.stored_at, &stored.change);
            }
            store.apply(changes, before, Progress { config: reached, ..before }).await?;
        }
        Ok(store)
    }

    /// Starts one more API on the same log.
    pub(crate) async fn another(&self) -> Result<Api> {
        Api::start(settings(&self.nats, self.sealing_key_file.clone(), &self.operator)).await
    }

    /// Starts one more API on the same log, which it reaches by way of a proxy.
    pub(crate) async fn another_by(&self, proxy: &Proxy) -> Result<Api> {
        let mut settings = settings(&self.nats, self.sealing_key_file.clone(), &self.operator);
        settings.log.url = proxy.url();
        Api::start(settings).await
    }

    /// Starts one more API on the same log, with other settings.
    pub(crate) async fn another_with(&self, change: impl FnOnce(&mut Settings)) -> Result<Api> {
        let mut settings = settings(&self.nats, self.sealing_key_file.clone(), &self.operator);
        change(&mut settings);
        Api::start(settings).await
    }

    /// Starts one more API on the same log, with other keys that seal secrets.
    pub(crate) async fn another_with_key(&self, line: &str) -> Result<Api> {
        let path = self.sealing_key_file.with_extension("other");
        std::fs::write(&path, line)?;
        Api::start(settings(&self.nats, path, &self.operator)).await
    }

    /// The path of a file of the test's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.sealing_key_file.with_file_name(name)
    }

    /// Starts one more API on the same log, with another delivery log.
    pub(crate) async fn another_on(&self, database: &Path) -> Result<Api> {
        let settings = settings(&self.nats, self.sealing_key_file.clone(), &self.operator);
        let database = DatabaseUrl::Sqlite(database.to_owned());
        Api::start(Settings { database, ..settings }).await
    }

    /// Starts one more API on the same log, which reads so many messages of the journal for a request,
    /// with the delivery log, or with one that is not there.
    pub(crate) async fn another_reading(
        &self,
        journal_read_max: usize,
        database: Option<&Path>,
    ) -> Result<Api> {
        let settings = settings(&self.nats, self.sealing_key_file.clone(), &self.operator);
        let database = match database {
            Some(path) => DatabaseUrl::Sqlite(path.to_owned()),
            None => settings.database,
        };
        Api::start(Settings { database, journal_read_max, ..settings }).await
    }

    /// Has the delivery log take in the journal so far, as the projector would.
    pub(crate) async fn fold_journal(&self) -> Result<()> {
        let store = Store::open(&self.database, &streams(&self.log).await?).await?;
        let (before, last) = (store.progress().await?, self.log.journal_last().await?);
        let from = From::Sequence(before.journal + 1);
        let mut journal = self.log.journal(JournalFilter::All, from).await?;
        let mut changes = Changes::default();
        while let Some(batch) = journal.next_until(last).await? {
            changes.journal(batch.sequence, &batch.facts);
        }
        Ok(store.apply(changes, before, Progress { journal: last, ..before }).await?)
    }

    /// Has the delivery log take in an event, as the projector would.
    pub(crate) async fn fold_event(&self, stored: &StoredEvent) -> Result<()> {
        let store = Store::open(&self.database, &streams(&self.log).await?).await?;
        let before = store.progress().await?;
        let mut changes = Changes::default();
        changes.event(stored);
        let events = stored.sequence.max(before.events);
        Ok(store.apply(changes, before, Progress { events, ..before }).await?)
    }

    /// Calls as the operator.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Value) -> Result<Answer> {
        self.api.call(method, path, Some(&self.operator), body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.call(Method::POST, path, body).await
    }

    /// Creates a tenant of a profile.
    pub(crate) async fn tenant(&self, id: &str, profile: &str) -> Result<()> {
        let made = self.post("/v1/tenants", json!({"id": id, "profile": profile})).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        Ok(())
    }

    /// Creates an endpoint and returns its id.
    pub(crate) async fn endpoint(&self, tenant: &str) -> Result<String> {
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let body = json!({"url": "https://example.com/hook", "event_types": ["a.b"]});
        let made = self.post(&path, body).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        Ok(made.text("id"))
    }

    /// Makes a key; for a tenant, or for the operator.
    pub(crate) async fn key(&self, tenant: Option<&str>, role: &str) -> Result<(String, String)> {
        let place = tenant.map_or_else(String::new, |tenant| format!("/tenants/{tenant}"));
        let made = self.post(&format!("/v1{place}/keys"), json!({"role": role})).await?;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        Ok((made.text("id"), made.text("key")))
    }
}

/// What the projector would fold the delivery log from.
pub(crate) async fn streams(log: &EventLog) -> Result<Streams> {
    let marks = log.marks().await?;
    let (events, journal, config) =
        (marks.events.stream, marks.journal.stream, marks.config.stream);
    Ok(Streams { events, journal, config, inbox: String::from(log.inbox_identity()) })
}

/// Where the delivery log is: beside the key.
fn delivery_log(beside: &Path) -> DatabaseUrl {
    DatabaseUrl::Sqlite(beside.with_file_name("delivery-log.sqlite"))
}

fn settings(nats: &NatsServer, sealing_key_file: PathBuf, operator: &str) -> Settings {
    Settings {
        log: nats.log_settings(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        database: delivery_log(&sealing_key_file),
        sealing_key_file,
        operator_key_file: None,
        operator_key: Some(Clear::new(String::from(operator))),
        profiles_dir: None,
        endpoint_https: EndpointHttps::ByProfile,
        endpoint_ports: Ports::default(),
        endpoint_addresses: AddressPolicy {
            allow: AddressRule::LOOPBACK.to_vec(),
            deny: Vec::new(),
        },
        trace_context: TraceTrust::default(),
        journal_read_max: Settings::JOURNAL_READ_MAX,
        webhook_origin: None,
        tenant_key_rate: Settings::TENANT_KEY_RATE,
        portal_link_rate: Settings::PORTAL_LINK_RATE,
        // Some tests show everybody's keys to everything.
        stranger_rate: Rate(None),
        connections_per_address: Settings::CONNECTIONS_PER_ADDRESS,
    }
}

impl Api {
    pub(crate) async fn start(settings: Settings) -> Result<Self> {
        let mut context = Context::new("api");
        let address = fanfare_api::bind_and_start(&mut context, settings).await?;
        let stop = context.stop();
        let mut tasks = JoinSet::new();
        tasks.spawn(context.run_until_cancelled(GRACE));
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { address, client, stop, tasks })
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        Ok(self.tasks.join_next().await.context("it runs")???)
    }

    /// Begins a request.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Calls with a key, or without; a `null` body is none.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Value,
    ) -> Result<Answer> {
        let mut request = self.request(method, path);
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        Answer::of(request).await
    }
}

impl Answer {
    /// Sends a request.
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let has_end =
            headers.get("content-type").is_none_or(|it| it.as_bytes() != b"text/event-stream");
        let bytes = if has_end { response.bytes().await?.to_vec() } else { Vec::new() };
        let is_text =
            headers.get("content-type").is_some_and(|it| it.as_bytes().starts_with(b"text/"));
        let body = match &*bytes {
            [] => Value::Null,
            text if is_text => Value::String(String::from_utf8(text.to_vec())?),
            json => serde_json::from_slice(json)?,
        };
        Ok(Self { status, headers, body })
    }

    /// Returns a member of the body that is text.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        let text = self.body.get(name).and_then(Value::as_str);
        assert!(text.is_some(), "no {name}: {self:?}");
        String::from(text.unwrap_or_default())
    }

    /// Returns the code of the problem.
    #[track_caller]
    pub(crate) fn code(&self) -> &str {
        let code = self.body.get("code").and_then(Value::as_str);
        assert!(code.is_some(), "no problem: {self:?}");
        code.unwrap_or_default()
    }

    /// Returns the version.
    #[track_caller]
    pub(crate) fn etag(&self) -> String {
        let etag = self.headers.get("etag").and_then(|etag| etag.to_str().ok());
        assert!(etag.is_some(), "no version: {self:?}");
        String::from(etag.unwrap_or_default())
    }

    /// Returns what is on the page.
    #[track_caller]
    pub(crate) fn data(&self) -> &[Value] {
        let data = self.body.get("data").and_then(Value::as_array);
        assert!(data.is_some(), "no page: {self:?}");
        data.map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the ids of what is on the page.
    #[track_caller]
    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |one: &Value| one.get("id").and_then(Value::as_str).map(String::from);
        self.data().iter().filter_map(id).collect()
    }

    /// Returns the query that gives the next page, to stand after others.
    pub(crate) fn next(&self) -> Option<String> {
        let cursor = self.body.get("next_cursor").and_then(Value::as_str)?;
        Some(format!("&cursor={cursor}"))
    }
}

/// Tells whether the text occurs anywhere in a message as it is stored.
pub(crate) fn holds(message: &StoredMessage, text: &str) -> bool {
    let occurs = |part: &[u8]| part.windows(text.len()).any(|window| window == text.as_bytes());
    message.texts().any(occurs)
}

/// An operation of the API, as the document has it.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) needs_key: bool,
}

impl Operation {
    /// Fills in the path's parameters.
    pub(crate) fn path_with(&self, values: &[(&str, &str)]) -> String {
        let mut path = self.path.clone();
        for (name, value) in values {
            path = path.replace(&format!("{{{name}}}"), value);
        }
        path
    }
}

/// Returns every operation of the document.
pub(crate) fn operations() -> Vec<Operation> {
    let document: Value =
        serde_json::from_str(&fanfare_api::openapi_document()).expect("the document is JSON");
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut operations = Vec::new();
    for (path, item) in members(document.get("paths").unwrap_or(&Value::Null)) {
        for (method, operation) in members(&item) {
            let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
            operations.push(Operation {
                method: method.to_uppercase().parse().expect("the document has methods of HTTP"),
                path: path.clone(),
                id: String::from(id),
                needs_key: operation.get("security").is_none(),
            });
        }
    }
    assert!(operations.len() > 25, "the document has lost operations");
    operations
}

/// Returns a body for an operation that takes one.
pub(crate) fn any_body(operation: &Operation) -> Value {
    let takes_one = [Method::POST, Method::PATCH].contains(&operation.method);
    match &*operation.id {
        "test_endpoint_filter" => json!({"type": "a", "data": 1}),
        "test_endpoint" => json!({"event_type": "a"}),
        "replay_endpoint" => json!({"since": "2026-01-01T00:00:00Z"}),
        _ if takes_one => json!({}),
        _ => Value::Null,
    }
}
