//! Configuration as records: each is the full new state of one thing, who changed it, and why.

use std::sync::Arc;

use crate::{
    Endpoint, EventType, KeyId, Tenant, TenantId, Timestamp, TraceContext, endpoint::RateLimit,
};

/// One change of configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The full state after the change. For a deletion, the state before it.
    pub entity: Entity,
    /// Whether the thing is deleted by this change.
    pub deleted: bool,
    /// Who changed it: a key's id, or the name of a service.
    pub actor: String,
    /// Why, in the words of who changed it; may be empty.
    pub reason: String,
    /// Where the change stands in a trace; empty if there is none.
    pub trace: TraceContext,
}

/// A thing that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entity {
    /// A tenant.
    Tenant(Arc<Tenant>),
    /// An endpoint.
    Endpoint(Arc<Endpoint>),
    /// An entry of a catalogue of event types.
    EventType(Arc<EventTypeEntry>),
    /// A profile that an operator added.
    Profile(Arc<ProfileSource>),
    /// An API key.
    ApiKey(Arc<ApiKey>),
}

/// An entry of a catalogue of event types: a tenant's, or the installation's, which counts for every
/// tenant that has no entry of its own for the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTypeEntry {
    /// Whose catalogue it is in; `None` for the installation's.
    pub tenant: Option<TenantId>,
    /// The type.
    pub event_type: EventType,
    /// For people; may be empty.
    pub description: String,
    /// A JSON Schema (2020-12) as text; empty if there is none. See [`crate::schema`].
    pub schema: String,
    /// An example of the data as JSON text; empty if there is none.
    pub example: String,
    /// What becomes of events whose data does not follow the schema.
    pub validation: Validation,
}

/// What becomes of events whose data does not follow the schema of their type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Nobody looks.
    #[default]
    Off,
    /// They are taken; it is counted, and told in the log.
    Report,
    /// They are refused.
    Enforce,
}

impl Validation {
    /// Every mode, in the order of declaration.
    pub const ALL: [Self; 3] = [Self::Off, Self::Report, Self::Enforce];

    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Enforce => "enforce",
        }
    }
}

/// A profile's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileSource {
    /// The profile's name.
    pub name: String,
    /// The profile as TOML.
    pub toml: String,
}

/// A key to the API. The key itself is shown once and never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Identifies the key; it is not secret.
    pub id: KeyId,
    /// What people call it; may be empty.
    pub name: String,
    /// Whose key it is; `None` for an operator's.
    pub tenant: Option<TenantId>,
    /// What it allows.
    pub role: Role,
    /// The SHA-256 of the key. Keys have 256 bits of chance, so a slow hash would add nothing.
    pub sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// Whether it may show endpoints' secrets again: an operator's with every right only.
    pub reveals_secrets: bool,
    /// How often it may ask; `None` for what the API's settings say.
    pub rate_limit: Option<RateLimit>,
}

/// What an API key allows, within its tenant or, for an operator's, everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Everything.
    Admin,
    /// To publish events, and nothing else.
    Publish,
    /// To look, and nothing else.
    Read,
}

impl EventTypeEntry {
    /// Returns what stays of it in the record that deletes it with its tenant.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self {
            tenant: self.tenant.clone(),
            event_type: self.event_type.clone(),
            description: String::new(),
            schema: String::new(),
            example: String::new(),
            validation: Validation::Off,
        }
    }
}

impl ApiKey {
    /// Returns what stays of it in the record that deletes it with its tenant. The hash, which is
    /// of chance, says which key it was that does not work any more.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self { name: String::new(), ..self.clone() }
    }
}

impl Entity {
    /// Returns the kind, as it stands in the subject: `tenant`, `endpoint`, `event-type`, `profile` or `key`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tenant(_) => "tenant",
            Self::Endpoint(_) => "endpoint",
            Self::EventType(_) => "event-type",
            Self::Profile(_) => "profile",
            Self::ApiKey(_) => "key",
        }
    }

    /// Returns whose it is; `None` for what belongs to the operator.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(tenant) => Some(&tenant.id),
            Self::Endpoint(endpoint) => Some(&endpoint.tenant),
            Self::EventType(entry) => entry.tenant.as_ref(),
            Self::Profile(_) => None,
            Self::ApiKey(key) => key.tenant.as_ref(),
        }
    }

    /// Returns what tells it from others of its kind and tenant, as one token of a subject.
    pub fn id_token(&self) -> String {
        match self {
            Self::Tenant(tenant) => String::from(tenant.id.as_str()),
            Self::Endpoint(endpoint) => endpoint.id.to_string(),
            // A dot would make it several tokens; `/` occurs in no event type.
            Self::EventType(entry) => entry.event_type.as_str().replace('.', "/"),
            Self::Profile(profile) => profile.name.clone(),
            Self::ApiKey(key) => key.id.to_string(),
        }
    }
}
