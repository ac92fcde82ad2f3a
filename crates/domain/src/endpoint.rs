//! Endpoints: URLs of a tenant that want some event types.

mod security;

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

pub use security::{
    Authentication, Certificate, ClientCertificate, ClientCredentials, Consent, CredentialsPlace,
    Security, Tls, authentication_owner, client_key_owner,
};

use crate::{EndpointId, EventType, TenantId, Timestamp, TypePattern, retry::Policy, seal::Sealed};

/// A URL of a tenant, with what it wants, its secrets and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Identifies the endpoint.
    pub id: EndpointId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where deliveries go, in the canonical form of the URL standard; up to 2,048 bytes.
    pub url: String,
    /// What people call it; may be empty.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// Which event types it wants. At least one; up to 100.
    pub filters: Vec<TypePattern>,
    /// Which events of these types it wants, by their content: an expression, see
    /// [`crate::condition`]. All of them if not set.
    pub condition: Option<String>,
    /// What it is to be reached with, newest first. More than one while a rotation overlaps.
    pub secrets: Vec<Secret>,
    /// Headers added to every request; names in lower case, values sealed.
    pub headers: BTreeMap<String, Sealed>,
    /// Whether it gets deliveries.
    pub state: EndpointState,
    /// Replaces the profile's retry policy.
    pub retry: Option<Policy>,
    /// Replaces the profile's time-out: connect, TLS, head and body together.
    pub timeout: Option<Duration>,
    /// How many requests may be in flight at once; 16 if not set.
    pub concurrency: Option<u16>,
    /// How many requests may be begun in a time; any number if not set.
    pub rate_limit: Option<RateLimit>,
    /// Whether events have to wait for the ones before them.
    pub ordering: Ordering,
    /// How many events a request may carry; one if not set.
    pub batch: Option<Batching>,
    /// Deliveries of events accepted before this were cancelled by hand.
    pub cancelled_before: Option<Timestamp>,
    /// Whether requests say which trace they belong to; as the profile has it if not set.
    pub trace_context: Option<bool>,
    /// How it and we make sure of each other, beside signatures.
    pub security: Security,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Which events of an endpoint are sent one after the other: the next one only once the delivery
/// before it has concluded, in the order in which they were accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// None.
    #[default]
    None,
    /// Those with the same ordering key.
    Key,
    /// All.
    All,
}

/// A signing secret of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The secret's text as the profile shows it, sealed.
    pub sealed: Sealed,
    /// When it came into use.
    pub created_at: Timestamp,
    /// When it stops being used; `None` for the current one.
    pub expires_at: Option<Timestamp>,
}

/// How many requests may be begun in a time, evenly spread over it.
///
/// Attempts count, of whatever number: what the endpoint sees is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How many requests.
    pub requests: NonZeroU32,
    /// In what time.
    pub per: RatePeriod,
    /// How many may be begun at once after a pause; 1 for none of them closer to each other than
    /// the rate says.
    pub burst: NonZeroU32,
}

/// The time of a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatePeriod {
    /// A second.
    Second,
    /// A minute.
    Minute,
}

impl Ordering {
    /// Every mode, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::None, Self::Key, Self::All];

    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::All => "all",
        }
    }
}

impl Endpoint {
    /// Returns what stays of it in the record that deletes it with its tenant: nothing that the
    /// tenant said.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self {
            id: self.id,
            tenant: self.tenant.clone(),
            url: String::new(),
            name: String::new(),
            description: String::new(),
            filters: Vec::new(),
            condition: None,
            secrets: Vec::new(),
            headers: BTreeMap::new(),
            state: self.state,
            retry: None,
            timeout: None,
            concurrency: None,
            rate_limit: None,
            ordering: Ordering::None,
            batch: None,
            trace_context: None,
            security: Security::default(),
            cancelled_before: None,
            metadata: BTreeMap::new(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

impl RateLimit {
    /// The most requests in a time.
    pub const REQUESTS_MAX: u32 = 10_000;
    /// The most requests at once.
    pub const BURST_MAX: u32 = 1_000;

    /// Returns the time from one request to the next.
    pub fn interval(&self) -> Duration {
        self.per.length() / self.requests.get()
    }
}

impl RatePeriod {
    /// Returns how long it is.
    pub const fn length(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => Duration::from_mins(1),
        }
    }
}

/// How events are put together: a request carries up to so many, and waits for more up to so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// The most events of a request.
    pub max_events: NonZeroU16,
    /// How long the first event of a request waits for others, if nothing else holds it up.
    pub max_wait: Duration,
}

impl Batching {
    /// The fewest events that a limit can be: with one there is nothing to put together.
    pub const EVENTS_MIN: u16 = 2;
    /// The most events of a request.
    pub const EVENTS_MAX: u16 = 1_000;
    /// The longest wait.
    pub const WAIT_MAX: Duration = Duration::from_mins(1);
}

/// Whether an endpoint gets deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Active,
    /// A person paused it.
    Paused(PauseMode),
    /// It gets none until a person enables it.
    Disabled(DisableReason),
}

/// What becomes of events while an endpoint is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseMode {
    /// They are not delivered, also not later.
    Skip,
    /// They are delivered once it is resumed.
    Hold,
}

/// Why an endpoint is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableReason {
    /// A person asked for it.
    ByHand,
    /// It answered 410 Gone.
    Gone,
    /// Too many attempts in a row failed.
    Failing,
}

impl Endpoint {
    /// How many requests may be in flight at once, if the endpoint does not say.
    pub const CONCURRENCY: u16 = 16;

    /// Tells whether one of the endpoint's filters chooses the type.
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.filters.iter().any(|pattern| pattern.matches(event_type))
    }

    /// Returns the secrets that sign a request made at `now`, newest first.
    pub fn live_secrets(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().filter(move |secret| secret.expires_at.is_none_or(|end| now < end))
    }
}

/// Returns what an endpoint's signing secrets are sealed for.
pub fn secret_owner(endpoint: EndpointId) -> String {
    format!("endpoint/{endpoint}/secret")
}

/// Returns what the value of an endpoint's header is sealed for. The name is in lower case.
pub fn header_owner(endpoint: EndpointId, name: &str) -> String {
    format!("endpoint/{endpoint}/header/{name}")
}
