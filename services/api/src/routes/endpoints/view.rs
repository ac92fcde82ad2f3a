//! An endpoint as it is shown.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use fanfare_domain::{
    Endpoint, EndpointState, PauseMode, Timestamp,
    endpoint::{Batching, DisableReason, Ordering, RateLimit, RatePeriod, Secret},
    profile::Profile,
    retry::Policy,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    health::HealthView,
    security::{AuthenticationView, tls::TlsView},
    validate::{AllowedView, ValidationName},
};
use crate::error::{ApiError, Code};

/// A URL that wants some event types. Its secrets and the values of its headers are not shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(crate) struct EndpointView {
    /// Identifies the endpoint.
    #[schema(example = "ep_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// Whose it is.
    tenant_id: String,
    /// Where deliveries go, in the canonical form of the URL standard.
    #[schema(example = "https://example.com/webhooks")]
    url: String,
    /// What people call it; may be empty.
    name: String,
    /// For people; may be empty.
    description: String,
    /// Which event types it wants, as the tenant's profile writes them.
    #[schema(example = json!(["invoice.*"]))]
    event_types: Vec<String>,
    /// Which events of these types it wants, by their content: an expression; `null` for all of them.
    #[schema(required, example = "data.amount > 100")]
    filter: Option<String>,
    /// Whether it gets deliveries.
    state: StateName,
    /// What becomes of events while it is paused; `null` if it is not paused.
    #[schema(required)]
    pause_mode: Option<PauseModeName>,
    /// Why it is disabled; `null` if it is not disabled.
    #[schema(required)]
    disabled_reason: Option<DisabledReason>,
    /// The names of the headers that are added to every request.
    headers: Vec<String>,
    /// Replaces the profile's retry policy; `null` if it does not.
    #[schema(required, value_type = Option<Object>)]
    retry: Option<Policy>,
    /// Replaces the profile's time-out, in milliseconds; `null` if it does not.
    #[schema(required)]
    timeout_ms: Option<u64>,
    /// How many requests may be in flight at once; `null` for the default of 16.
    #[schema(required)]
    concurrency: Option<u16>,
    /// How many requests may be begun in a time; `null` for any number.
    #[schema(required)]
    rate_limit: Option<RateLimitView>,
    /// Whether events have to wait for the ones before them.
    ordering: OrderingName,
    /// How many events a request may carry; `null` for one.
    #[schema(required)]
    batch: Option<BatchView>,
    /// Whether requests have the headers `traceparent` and `tracestate` if their event is traced;
    /// `null` for what the profile says.
    #[schema(required)]
    trace_context: Option<bool>,
    /// What requests show, in the header `authorization`; `null` for nothing.
    #[schema(required)]
    authentication: Option<AuthenticationView>,
    /// How TLS is spoken with it; `null` for as with all others.
    #[schema(required)]
    tls: Option<TlsView>,
    /// How it has to allow us to send before we do; `null` for not at all.
    #[schema(required)]
    validation: Option<ValidationName>,
    /// What it has allowed; `null` if it has not to.
    #[schema(required)]
    allowed: Option<AllowedView>,
    /// The caller's own notes.
    metadata: BTreeMap<String, String>,
    /// The secrets that sign requests at this time, newest first.
    secrets: Vec<SecretView>,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// An endpoint with its new secret, at the only time at which that is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndpointWithSecret {
    #[serde(flatten)]
    pub(crate) view: EndpointView,
    /// The secret that requests are signed with from now on: keep it, it is not shown again.
    #[schema(example = "whsec_…")]
    pub(crate) secret: String,
}

/// An endpoint, and how it does at the moment.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndpointWithHealth {
    #[serde(flatten)]
    pub(crate) view: EndpointView,
    /// How it does, as the dispatcher knows that sends to it; `null` if that did not say in time.
    #[schema(required)]
    pub(crate) health: Option<HealthView>,
}

/// A signing secret, without the secret itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub(crate) struct SecretView {
    /// When it came into use.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it stops being used; `null` for the current one.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
}

/// How many requests may be begun in a time, evenly spread over it. What is beyond it waits, and
/// spends no attempt.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RateLimit)]
pub(crate) struct RateLimitView {
    /// How many requests.
    #[schema(minimum = 1, maximum = 10_000, example = 10)]
    requests: u32,
    /// In what time.
    per: RatePeriodName,
    /// How many may be begun at once after a pause; 1 if left out, which keeps them apart.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 1_000, default = 1)]
    burst: u32,
}

/// The time of a rate limit.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RatePeriod)]
pub(crate) enum RatePeriodName {
    /// A second.
    Second,
    /// A minute.
    Minute,
}

/// Which events are sent one after the other, each once the delivery before it has concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Ordering)]
pub(crate) enum OrderingName {
    /// None.
    None,
    /// Those with the same ordering key.
    Key,
    /// All.
    All,
}

/// How events are put together: a request carries up to so many, as a JSON array, and waits for
/// more up to so long. Each element of the array has its event's `id`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Batch)]
pub(crate) struct BatchView {
    /// The most events of a request.
    #[schema(minimum = 2, maximum = 1_000, example = 50)]
    max_events: u16,
    /// How long the first event of a request waits for others, in milliseconds; 0 if left out: a
    /// request then carries what is there.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 60_000, default = 0, example = 200)]
    max_wait_ms: u64,
}

/// Whether an endpoint gets deliveries.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EndpointState)]
enum StateName {
    /// It does.
    Active,
    /// It was paused, and can be resumed.
    Paused,
    /// It gets none until it is enabled.
    Disabled,
}

/// What becomes of events while an endpoint is paused.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PauseMode)]
pub(crate) enum PauseModeName {
    /// They are not delivered, also not later.
    Skip,
    /// They are delivered once it is resumed.
    Hold,
}

/// Why an endpoint is disabled.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DisabledReason {
    /// A person asked for it.
    ByHand,
    /// It answered 410 Gone.
    Gone,
    /// Too many attempts in a row failed.
    Failing,
}

impl EndpointView {
    /// Shows an endpoint at a time.
    pub(crate) fn of(endpoint: &Endpoint, profile: &Profile, now: Timestamp) -> Self {
        let (state, pause_mode, disabled_reason) = names(endpoint.state);
        let pattern = |pattern| String::from(profile.filters().show(pattern));
        Self {
            id: endpoint.id.to_string(),
            tenant_id: endpoint.tenant.to_string(),
            url: endpoint.url.clone(),
            name: endpoint.name.clone(),
            description: endpoint.description.clone(),
            event_types: endpoint.filters.iter().map(pattern).collect(),
            filter: endpoint.condition.clone(),
            state,
            pause_mode,
            disabled_reason,
            headers: endpoint.headers.keys().cloned().collect(),
            retry: endpoint.retry.clone(),
            timeout_ms: endpoint
                .timeout
                .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            concurrency: endpoint.concurrency,
            rate_limit: endpoint.rate_limit.map(RateLimitView::of),
            ordering: OrderingName::of(endpoint.ordering),
            batch: endpoint.batch.map(BatchView::of),
            trace_context: endpoint.trace_context,
            authentication: endpoint.security.authentication.as_ref().map(AuthenticationView::of),
            tls: endpoint.security.tls.as_ref().map(TlsView::of),
            validation: endpoint.security.validation.map(|_| ValidationName::CloudEvents),
            allowed: endpoint.security.validation.as_ref().map(AllowedView::of),
            metadata: endpoint.metadata.clone(),
            secrets: endpoint.live_secrets(now).map(SecretView::of).collect(),
            created_at: endpoint.created_at.to_string(),
            updated_at: endpoint.updated_at.to_string(),
        }
    }
}

impl OrderingName {
    const fn of(ordering: Ordering) -> Self {
        match ordering {
            Ordering::None => Self::None,
            Ordering::Key => Self::Key,
            Ordering::All => Self::All,
        }
    }

    /// Returns what it stands for.
    pub(crate) const fn admit(self) -> Ordering {
        match self {
            Self::None => Ordering::None,
            Self::Key => Ordering::Key,
            Self::All => Ordering::All,
        }
    }
}

impl RateLimitView {
    /// What a caller asked for.
    pub(crate) const fn new(requests: u32, per: RatePeriodName, burst: u32) -> Self {
        Self { requests, per, burst }
    }

    /// Shows a limit.
    pub(crate) fn of(limit: RateLimit) -> Self {
        let RateLimit { requests, per, burst } = limit;
        let per = match per {
            RatePeriod::Second => RatePeriodName::Second,
            RatePeriod::Minute => RatePeriodName::Minute,
        };
        Self { requests: requests.get(), per, burst: burst.get() }
    }

    /// Checks what a caller sent.
    pub(crate) fn admit(&self) -> Result<RateLimit, ApiError> {
        let count = |field, count, max| {
            NonZeroU32::new(count)
                .filter(|count| count.get() <= max)
                .ok_or_else(|| ApiError::value(field, format_args!("it is 1 to {max}")))
        };
        let requests = count("rate_limit.requests", self.requests, RateLimit::REQUESTS_MAX)?;
        let burst = count("rate_limit.burst", self.burst, RateLimit::BURST_MAX)?;
        let per = match self.per {
            RatePeriodName::Second => RatePeriod::Second,
            RatePeriodName::Minute => RatePeriod::Minute,
        };
        Ok(RateLimit { requests, per, burst })
    }
}

impl BatchView {
    fn of(batching: Batching) -> Self {
        let Batching { max_events, max_wait } = batching;
        let max_wait_ms = u64::try_from(max_wait.as_millis()).unwrap_or(u64::MAX);
        Self { max_events: max_events.get(), max_wait_ms }
    }

    /// Checks what a caller sent, for an endpoint of a profile.
    pub(crate) fn admit(&self, profile: &Profile) -> Result<Batching, ApiError> {
        if !profile.has_batches() {
            let name = &profile.name;
            let detail = format!("requests of the profile {name} carry one event each");
            return Err(ApiError::detailed(Code::BatchUnsupported, detail));
        }
        let (min, max) = (Batching::EVENTS_MIN, Batching::EVENTS_MAX);
        let max_events = NonZeroU16::new(self.max_events)
            .filter(|count| (min..=max).contains(&count.get()))
            .ok_or_else(|| {
                ApiError::value("batch.max_events", format_args!("it is {min} to {max}"))
            })?;
        let max_wait = Duration::from_millis(self.max_wait_ms);
        if max_wait > Batching::WAIT_MAX {
            let max = Batching::WAIT_MAX.as_millis();
            return Err(ApiError::value("batch.max_wait_ms", format_args!("it is 0 to {max}")));
        }
        Ok(Batching { max_events, max_wait })
    }
}

const fn one() -> u32 {
    1
}

impl SecretView {
    fn of(secret: &Secret) -> Self {
        Self {
            created_at: secret.created_at.to_string(),
            expires_at: secret.expires_at.map(|end| end.to_string()),
        }
    }
}

impl From<PauseModeName> for PauseMode {
    fn from(name: PauseModeName) -> Self {
        match name {
            PauseModeName::Skip => Self::Skip,
            PauseModeName::Hold => Self::Hold,
        }
    }
}

fn names(state: EndpointState) -> (StateName, Option<PauseModeName>, Option<DisabledReason>) {
    match state {
        EndpointState::Active => (StateName::Active, None, None),
        EndpointState::Paused(mode) => {
            let mode = match mode {
                PauseMode::Skip => PauseModeName::Skip,
                PauseMode::Hold => PauseModeName::Hold,
            };
            (StateName::Paused, Some(mode), None)
        }
        EndpointState::Disabled(reason) => {
            let reason = match reason {
                DisableReason::ByHand => DisabledReason::ByHand,
                DisableReason::Gone => DisabledReason::Gone,
                DisableReason::Failing => DisabledReason::Failing,
            };
            (StateName::Disabled, None, Some(reason))
        }
    }
}
