//! The system under test: a throw-away one, with a tenant and its endpoints.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Options;
use crate::throw_away::ThrowAway;

/// The tenant of all events.
pub(crate) const TENANT: &str = "bench";

/// A running system. Ends when dropped.
pub(crate) struct System {
    inner: ThrowAway,
}

impl System {
    /// Starts a system with that many endpoints, all at the receiver.
    pub(crate) async fn start(
        options: &Options,
        nats_server: &Path,
        receiver: &str,
        endpoints: u64,
    ) -> Result<Self> {
        let inner = ThrowAway::start(nats_server, &settings_text(options)).await?;
        let system = Self { inner };
        system.make_endpoints(options, receiver, endpoints).await?;
        Ok(system)
    }

    async fn make_endpoints(&self, options: &Options, receiver: &str, count: u64) -> Result<()> {
        let api = self.inner.api()?;
        api.post("/v1/tenants", &json!({ "id": TENANT })).await.context("make a tenant")?;
        let path = format!("/v1/tenants/{TENANT}/endpoints");
        for number in 0..count {
            let endpoint = json!({
                "url": format!("{receiver}/{number}"),
                "event_types": [">"],
                "concurrency": options.in_flight.min(CONCURRENCY_MAX),
            });
            api.post(&path, &endpoint).await.context("make an endpoint")?;
        }
        Ok(())
    }

    /// Where its NATS is.
    pub(crate) fn nats(&self) -> &str {
        &self.inner.running().nats
    }

    /// Its processes: the services, and nats-server.
    pub(crate) fn pids(&self) -> Result<[u32; 2]> {
        let running = self.inner.running();
        Ok([running.pid, running.nats_pid.context("the system runs its own NATS")?])
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.inner.stop().await
    }
}

/// The most requests to one endpoint that the API allows to be in flight.
const CONCURRENCY_MAX: usize = 1_000;

/// As many requests in flight as the floors have, and endpoints on this machine.
fn settings_text(options: &Options) -> String {
    format!(
        "[dispatcher]\nin_flight_max = {0}\n[dispatcher.egress]\nidle_max_per_host = {0}\n",
        options.in_flight
    )
}
