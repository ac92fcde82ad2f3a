//! Replays, as they are shown.

use fanfare_domain::{
    DeliveryId, EndpointId, Replay,
    job::{JobState, Range, Scope, Which},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which events of a time are replayed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Which)]
pub(crate) enum WhichName {
    /// Those whose last delivery to the endpoint failed for good: exhausted, refused, or cancelled
    /// because of the endpoint. What a person cancelled is left out.
    #[default]
    Failed,
    /// Those whose last delivery to the endpoint is a dead letter: exhausted.
    Exhausted,
    /// All that the endpoint wants as it is now.
    All,
    /// Those of them that the endpoint never had a delivery of.
    Missing,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = JobState)]
pub(crate) enum StateName {
    /// It is being done, or waits for its turn.
    Running,
    /// All of it is done: every delivery is made, and goes its way.
    Done,
    /// A person cancelled it; what was made before goes on.
    Cancelled,
    /// It can never be done: `failure` says why. What was made before goes on.
    Failed,
}

/// New deliveries of past events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub(crate) struct ReplayView {
    /// Identifies the replay.
    #[schema(example = "job_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// Whose events are replayed.
    tenant_id: String,
    /// How it stands.
    state: StateName,
    /// Why it failed: `tenant_deleted`, `endpoint_deleted` (every endpoint that it is for), or
    /// `events_gone` (every event that it is of left the log); `null` unless it did.
    #[schema(required, example = "endpoint_deleted")]
    failure: Option<String>,
    /// What tells its deliveries apart from others of the same events.
    generation: u32,
    /// For which endpoint only; `null` for all of the tenant, or if it is of particular deliveries.
    #[schema(required)]
    endpoint_id: Option<String>,
    /// The first instant; `null` if it is of particular deliveries.
    #[schema(required, format = DateTime)]
    since: Option<String>,
    /// The last instant; `null` if it is of particular deliveries.
    #[schema(required, format = DateTime)]
    until: Option<String>,
    /// Of which types only: patterns.
    event_types: Vec<String>,
    /// Which events of the time; `null` if it is of particular deliveries.
    #[schema(required)]
    which: Option<WhichName>,
    /// The deliveries that it makes, if it is of particular ones; in the order of their events.
    delivery_ids: Vec<String>,
    /// How many events were looked at.
    looked_at: u64,
    /// How many deliveries were made.
    made: u64,
    /// Endpoints that are slower than the others, or do not answer: the others do not wait for
    /// them, and they get theirs at their own pace.
    behind_endpoint_ids: Vec<String>,
    /// Who asked for it: a key's id.
    actor: String,
    /// Why, in the words of who asked.
    reason: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it last came on.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<WhichName> for Which {
    fn from(name: WhichName) -> Self {
        match name {
            WhichName::Failed => Self::Failed,
            WhichName::Exhausted => Self::Exhausted,
            WhichName::All => Self::All,
            WhichName::Missing => Self::Missing,
        }
    }
}

impl From<Which> for WhichName {
    fn from(which: Which) -> Self {
        match which {
            Which::Failed => Self::Failed,
            Which::Exhausted => Self::Exhausted,
            Which::All => Self::All,
            Which::Missing => Self::Missing,
        }
    }
}

impl ReplayView {
    /// Shows a replay.
    pub(crate) fn of(replay: &Replay, generation: u32) -> Self {
        let (state, failure) = match &replay.state {
            JobState::Running => (StateName::Running, None),
            JobState::Done => (StateName::Done, None),
            JobState::Cancelled => (StateName::Cancelled, None),
            JobState::Failed(why) => (StateName::Failed, Some(why.clone())),
        };
        let mut view = Self {
            id: replay.id.to_string(),
            tenant_id: replay.tenant.to_string(),
            state,
            failure,
            generation,
            endpoint_id: None,
            since: None,
            until: None,
            event_types: Vec::new(),
            which: None,
            delivery_ids: Vec::new(),
            looked_at: replay.progress.looked_at,
            made: replay.progress.made,
            behind_endpoint_ids: behind(replay),
            actor: replay.actor.clone(),
            reason: replay.reason.clone(),
            created_at: replay.created_at.to_string(),
            updated_at: replay.progress.updated_at.max(replay.created_at).to_string(),
        };
        match &replay.scope {
            Scope::Only(past) => {
                let id = |event, endpoint| DeliveryId::of(event, endpoint, generation).to_string();
                view.delivery_ids = past.iter().map(|it| id(it.event, it.endpoint)).collect();
            }
            Scope::Range(Range { endpoint, since, until, types, which }) => {
                view.endpoint_id = endpoint.map(|endpoint| endpoint.to_string());
                (view.since, view.until) = (Some(since.to_string()), Some(until.to_string()));
                view.event_types = types.iter().map(|it| String::from(it.as_str())).collect();
                view.which = Some((*which).into());
            }
        }
        view
    }
}

/// The endpoints that others do not wait for; nobody waits for a replay that is over.
fn behind(replay: &Replay) -> Vec<String> {
    let endpoints = replay.behind.keys().filter(|_| !replay.is_over());
    endpoints.map(EndpointId::to_string).collect()
}
