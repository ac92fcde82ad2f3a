//! The usual scene of a test: an installation, one tenant, some endpoints, a producer.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_delivery_log::Streams;
use fanfare_domain::{TenantId, TypePattern};
use fanfare_event_log::EventLog;
use fanfare_testkit::wait_until;
use serde_json::{Value, json};

use super::{
    Acknowledged, Api, Evidence, Expected, Hooks, Installation, Options, Planned, Producer, Report,
    Route, Subscriber, api::Made, check, checker::fold, evidence, nemesis::Kill,
};

/// How many deliveries the API is asked about.
const SAMPLE: usize = 20;

/// The tenant of a scene.
pub(crate) const TENANT: &str = "acme";

/// See the module.
pub(crate) struct Scene {
    /// The installation.
    pub(crate) installation: Installation,
    /// The event log, as the services see it.
    pub(crate) log: EventLog,
    /// The endpoints' server.
    pub(crate) hooks: Hooks,
    /// The endpoints that [`Scene::subscribe`] made.
    pub(crate) subscribers: Vec<Subscriber>,
    /// What was acknowledged.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// What was killed.
    pub(crate) kills: Vec<Kill>,
    keys: AtomicUsize,
}

impl Scene {
    /// Sets the scene, with endpoints that answer 200.
    pub(crate) async fn set() -> Result<Self> {
        Self::set_with(Options::default(), Hooks::start().await?).await
    }

    /// Sets the scene.
    pub(crate) async fn set_with(options: Options, hooks: Hooks) -> Result<Self> {
        let profile = options.profile;
        let installation = Installation::start_with(options).await?;
        installation.api().tenant(TENANT, profile).await?;
        let log = installation.log().await?;
        Ok(Self {
            installation,
            log,
            hooks,
            subscribers: Vec::new(),
            acknowledged: Vec::new(),
            kills: Vec::new(),
            keys: AtomicUsize::new(0),
        })
    }

    /// What the delivery log has to be folded from.
    pub(crate) async fn streams(&self) -> Result<Streams> {
        let marks = self.log.marks().await?;
        let (events, journal, config) =
            (marks.events.stream, marks.journal.stream, marks.config.stream);
        Ok(Streams { events, journal, config, inbox: String::from(self.log.inbox_identity()) })
    }

    /// The API.
    pub(crate) fn api(&self) -> &Api {
        self.installation.api()
    }

    /// A producer.
    pub(crate) fn producer(&self) -> Producer {
        Producer::new(&self.log, self.api())
    }

    /// Makes an endpoint at a path of the scene's receiver, with these waits between attempts.
    pub(crate) async fn subscribe(
        &mut self,
        path: &str,
        filters: &[&str],
        delays: &[&str],
    ) -> Result<Made> {
        let made = self.api().endpoint(TENANT, &self.endpoint(path, filters, delays)).await?;
        self.note(path, filters, &made, delays)?;
        Ok(made)
    }

    /// Notes an endpoint that was made otherwise.
    pub(crate) fn note(
        &mut self,
        path: &str,
        filters: &[&str],
        made: &Made,
        delays: &[&str],
    ) -> Result<()> {
        let filters = filters.iter().map(|text| text.parse::<TypePattern>());
        self.subscribers.push(Subscriber {
            id: made.id.parse().context("an endpoint's id")?,
            tenant: tenant()?,
            filters: filters.collect::<Result<_, _>>().context("a filter")?,
            path: String::from(path),
            attempts_max: u32::try_from(delays.len() + 1)?,
        });
        Ok(())
    }

    /// What is sent to the API to make an endpoint.
    pub(crate) fn endpoint(&self, path: &str, filters: &[&str], delays: &[&str]) -> Value {
        json!({
            "url": self.hooks.url(path),
            "event_types": filters,
            "retry": {
                "delays": { "list": delays }, "retry_on": "anything", "retry_after": [429],
            },
            "timeout_ms": 3_000,
        })
    }

    /// Plans an event with data of its own.
    pub(crate) fn plan(&self, event_type: &str, route: Route) -> Result<Planned> {
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        let data =
            format!(r#"{{"number": {number},  "text":"Zoë \u00e9 \"☂\" 1e3","price":98.50}}"#);
        Ok(Planned {
            key: format!("key-{number}"),
            tenant: tenant()?,
            event_type: event_type.parse().context("an event type")?,
            data: Bytes::from(data),
            route,
            ordering_key: None,
        })
    }

    /// Publishes events and notes them.
    pub(crate) async fn publish(&mut self, planned: Vec<Planned>) -> Result<()> {
        let acknowledged = self.producer().publish_all(planned).await?;
        self.acknowledged.extend(acknowledged);
        Ok(())
    }

    /// Waits until all that was published is concluded.
    pub(crate) async fn concluded(&self, patience: Duration) -> Result<()> {
        let at = (&self.installation, &self.log);
        evidence::concluded(at, &self.acknowledged, &self.subscribers, patience).await
    }

    /// Waits until the endpoints have got so many requests together.
    pub(crate) async fn hooks_have(&self, wanted: usize) {
        wait_until("requests to arrive", async || {
            let count = self.hooks.count();
            (count >= wanted).then_some(()).ok_or(count)
        })
        .await;
    }

    /// Gathers the evidence and replays it.
    pub(crate) async fn judge(&self) -> Result<Report> {
        check(&self.evidence().await?).into_result()
    }

    /// Gathers the evidence.
    pub(crate) async fn evidence(&self) -> Result<Evidence> {
        Ok(Evidence {
            acknowledged: self.acknowledged.clone(),
            subscribers: self.subscribers.clone(),
            events: evidence::events(&self.installation, &self.log).await?,
            journal: evidence::journal(&self.log).await?,
            journal_again: evidence::journal(&self.log).await?,
            requests: self.hooks.seen(),
            kills: self.kills.clone(),
        })
    }

    /// Checks that the API tells the same of some deliveries as the journal does.
    pub(crate) async fn api_agrees(&self) -> Result<()> {
        let histories = fold(&evidence::journal(&self.log).await?);
        let step = histories.len().div_ceil(SAMPLE).max(1);
        for (id, history) in histories.iter().step_by(step) {
            let told = self.api().get(&format!("/v1/tenants/{TENANT}/deliveries/{id}")).await?;
            let known = history.conclusion().map(|concluded| concluded.conclusion.as_str());
            ensure!(told["state"].as_str() == known, "{id}: {told}, but {known:?}");
            let attempts = u64::try_from(history.attempts.len())?;
            ensure!(told["attempts"].as_u64() == Some(attempts), "{id}: {told}, but {attempts}");
        }
        Ok(())
    }

    /// Ends the test.
    pub(crate) async fn finish(self, expected: Expected) -> Result<()> {
        self.log.close().await;
        self.installation.finish(expected).await
    }
}

/// The tenant of a scene, as an id.
pub(crate) fn tenant() -> Result<TenantId> {
    TENANT.parse().context("a tenant's id")
}
