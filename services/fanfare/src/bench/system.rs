//! The system under test: a throw-away one, with tenants and endpoints at the receiver.

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{lab::Lab, process::resident_bytes, producer::Producer};
use crate::{client::api::Api, throw_away::ThrowAway};

/// The tenant of most events.
pub(crate) const TENANT: &str = "bench";

/// The most requests to one endpoint that the API allows to be in flight.
pub(crate) const CONCURRENCY_MAX: usize = 1_000;

/// How many endpoints are made at once.
const MAKERS: usize = 24;

/// The profile of a tenant whose endpoints have no circuit breaker: every failure is retried on
/// the schedule. All else is as in the default profile.
pub(crate) const NO_BREAKER: &str = "bench-no-breaker";

/// As [`NO_BREAKER`], but a delivery is retried just when its endpoint asks for it with 425, which
/// is about that delivery alone.
pub(crate) const ON_TIME: &str = "bench-on-time";

/// The profiles that the default one is changed to, each with its name.
pub(crate) fn profiles() -> [(&'static str, String); 2] {
    let named = |name| {
        include_str!("../../../../deploy/profiles/standard-webhooks.toml")
            .replacen("name = \"standard-webhooks\"", &format!("name = \"{name}\""), 1)
            .replacen("breaker = \"on\"", "breaker = \"off\"", 1)
    };
    let on_time = named(ON_TIME).replacen("jitter = 100", "jitter = 0", 1).replacen(
        "retry_after = [429, 503]",
        "retry_after = [425]",
        1,
    );
    [(NO_BREAKER, named(NO_BREAKER)), (ON_TIME, on_time)]
}

/// An endpoint to be made.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Whose it is.
    pub(crate) tenant: &'static str,
    /// Where it is.
    pub(crate) url: String,
    /// Which events it wants.
    pub(crate) types: String,
    /// How many requests may be in flight; the default without.
    pub(crate) concurrency: Option<usize>,
}

/// The API of a system, as its operator uses it.
#[derive(Clone)]
pub(crate) struct Site {
    api: Api,
}

impl Site {
    pub(crate) const fn new(api: Api) -> Self {
        Self { api }
    }

    /// Makes a tenant; with the default profile if none is named.
    pub(crate) async fn tenant(&self, id: &str, profile: Option<&str>) -> Result<()> {
        let mut body = json!({ "id": id });
        if let (Some(profile), Some(members)) = (profile, body.as_object_mut()) {
            members.insert(String::from("profile"), json!(profile));
        }
        self.api.post("/v1/tenants", &body).await.context("make a tenant").map(drop)
    }

    /// Makes an endpoint, and returns its path in the API.
    pub(crate) async fn endpoint(&self, endpoint: &Endpoint) -> Result<String> {
        let path = format!("/v1/tenants/{}/endpoints", endpoint.tenant);
        let mut body = json!({ "url": endpoint.url, "event_types": [endpoint.types] });
        if let (Some(concurrency), Some(members)) = (endpoint.concurrency, body.as_object_mut()) {
            members.insert(String::from("concurrency"), json!(concurrency));
        }
        let made = self.api.post(&path, &body).await.context("make an endpoint")?;
        let id = made.get("id").and_then(Value::as_str).context("the endpoint has an id")?;
        Ok(format!("{path}/{id}"))
    }

    /// Makes endpoints, many at once.
    pub(crate) async fn endpoints(&self, all: impl IntoIterator<Item = Endpoint>) -> Result<()> {
        stream::iter(all)
            .map(|endpoint| async move { self.endpoint(&endpoint).await })
            .buffer_unordered(MAKERS)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }

    /// Deletes an endpoint by its path in the API.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.api.delete(path).await.context("delete an endpoint").map(drop)
    }
}

/// A running system, all services in one process. Ends when dropped.
pub(crate) struct System {
    inner: ThrowAway,
    site: Site,
}

impl System {
    /// Starts a system with the tenant [`TENANT`], and as many requests in flight as asked for. It
    /// keeps a delivery log if the laboratory is to have one.
    pub(crate) async fn start(lab: &Lab, in_flight: usize) -> Result<Self> {
        Self::start_with(lab, in_flight, (&[], &[])).await
    }

    /// The same, with more options of `up`, and with variables.
    pub(crate) async fn start_with(
        lab: &Lab,
        in_flight: usize,
        (more, variables): (&[&str], &[(&str, String)]),
    ) -> Result<Self> {
        let mut options = more.to_vec();
        if !lab.delivery_log {
            options.push("--no-delivery-log");
        }
        let (settings, program) = (settings_text(lab, in_flight), lab.binary.path());
        let inner = ThrowAway::start_with(program, &settings, (&options, variables)).await?;
        let site = Site::new(inner.api()?);
        site.tenant(TENANT, None).await?;
        Ok(Self { inner, site })
    }

    /// Its API.
    pub(crate) const fn site(&self) -> &Site {
        &self.site
    }

    /// Where its NATS is.
    pub(crate) fn nats(&self) -> &str {
        &self.inner.running().nats
    }

    /// Where its metrics are, if they are to be read.
    pub(crate) fn metrics(&self) -> Option<&str> {
        self.inner.running().metrics.as_deref()
    }

    /// A producer of events of a type of [`TENANT`].
    pub(crate) async fn producer(&self, lab: &Lab, kind: &str) -> Result<Producer> {
        Producer::connect(self.nats(), TENANT, kind, lab.bytes).await
    }

    /// Its processes: the services, and nats-server.
    pub(crate) fn pids(&self) -> Result<[u32; 2]> {
        let running = self.inner.running();
        Ok([running.pid, running.nats_pid.context("the system runs its own NATS")?])
    }

    /// The resident memory of its processes.
    pub(crate) fn memory(&self) -> Result<[u64; 2]> {
        let [services, nats] = self.pids()?;
        Ok([resident_bytes(services)?, resident_bytes(nats)?])
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.inner.stop().await
    }
}

/// As many requests in flight as the floors have, and the benchmark's own profile.
fn settings_text(lab: &Lab, in_flight: usize) -> String {
    let profiles = lab.profiles().display();
    format!(
        "[ingest]\nprofiles_dir = '{profiles}'\n[retry-scheduler]\nprofiles_dir = '{profiles}'\n\
         [api]\nprofiles_dir = '{profiles}'\n[dispatcher]\nprofiles_dir = '{profiles}'\n\
         in_flight_max = {in_flight}\n[dispatcher.egress]\nidle_max_per_host = {in_flight}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_the_default_one_changed() {
        for (name, text) in profiles() {
            let profile = fanfare_domain::Profile::parse(&text).unwrap();
            assert_eq!(profile.name, name);
            assert!(text.contains("breaker = \"off\""));
            let is_on_time = text.contains("jitter = 0") && text.contains("retry_after = [425]");
            assert_eq!(is_on_time, name == ON_TIME);
        }
    }
}
