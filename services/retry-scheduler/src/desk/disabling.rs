//! Disables endpoints that fail, or that want nothing any more.

use std::sync::Arc;

use anyhow::Context as _;
use fanfare_domain::{Change, Endpoint, EndpointId, EndpointState, Entity, TraceContext};
use fanfare_event_log::ChangeError;
use tracing::{debug, warn};

use super::{Desk, Tools, jobs, jobs::Done};
use crate::{directory::Directory, health::Verdict};

/// Who changed the configuration, for its history.
const ACTOR: &str = "retry-scheduler";

impl Desk {
    /// Has an endpoint disabled, if its attempts are a reason to.
    pub(super) fn judge(&mut self, endpoint: EndpointId) {
        let health = &self.agenda.health;
        let verdict = |directory: &Directory| health.verdict(endpoint, directory);
        let Some(verdict) = self.tools.view.read(verdict) else { return };
        if self.disabling.insert(endpoint) {
            self.jobs.spawn(disable(self.tools.clone(), endpoint, verdict));
        }
    }

    /// Looks at all endpoints that fail: what could not be done before is done now.
    pub(super) fn review(&mut self) {
        let health = &mut self.agenda.health;
        let failing: Vec<_> =
            self.tools.view.read(|directory| health.review(directory).into_iter().collect());
        for endpoint in failing {
            self.judge(endpoint);
        }
    }
}

async fn disable(tools: Tools, id: EndpointId, verdict: Verdict) -> anyhow::Result<Done> {
    // The verdict may have been reached with a view that was behind.
    tools.view.confirm().await.context("confirm the configuration")?;
    let found = tools.view.read(|directory| directory.endpoint(id).cloned());
    let judged = |decide_again| Done::Judged { endpoint: id, decide_again };
    let Some(known) = found else { return Ok(judged(false)) };
    if known.state != EndpointState::Active || verdict.streak.since < known.fresh_since {
        return Ok(judged(false));
    }
    let revision = known.revision;
    let found = tools.log.configured(revision).await.context("read the endpoint")?;
    let Some(Entity::Endpoint(endpoint)) = found.map(|change| change.entity) else {
        debug!(endpoint_id = %id, revision, "the endpoint was changed by somebody else");
        tools.view.confirm().await.context("confirm the configuration")?;
        return Ok(judged(true));
    };
    let state = EndpointState::Disabled(verdict.reason);
    let disabled = Endpoint { state, updated_at: tools.now(), ..(*endpoint).clone() };
    let change = Change {
        entity: Entity::Endpoint(Arc::new(disabled)),
        deleted: false,
        actor: String::from(ACTOR),
        reason: verdict.words(),
        trace: TraceContext::default(),
    };
    match tools.log.change(&change, revision).await {
        Ok(revision) => {
            let tenant = &endpoint.tenant;
            warn!(endpoint_id = %id, tenant_id = %tenant, revision, why = change.reason, "disabled an endpoint");
            tools.counters.disabled.add(1);
        }
        Err(ChangeError::Conflict { actual, .. }) => {
            debug!(endpoint_id = %id, actual, "the endpoint was changed by somebody else");
        }
        Err(ChangeError::Refused(error)) => {
            jobs::full(error).context("disable an endpoint")?;
            return Ok(judged(false));
        }
    }
    // Now the view knows of the change, ours or the other.
    tools.view.confirm().await.context("confirm the configuration")?;
    Ok(judged(true))
}
