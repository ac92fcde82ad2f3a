//! Profiles: how one provider's webhooks look and behave, as data.
//!
//! A profile is written in TOML (`deploy/profiles` holds those that are built in, and explains
//! every key) and read once: templates are taken apart, names and limits are checked. After that
//! nothing about a profile can fail but what an event's own data brings.

mod batch;
mod built_in;
mod filter;
pub mod header;
mod overrides;
mod secret;
mod source;
pub(crate) mod template;
#[cfg(test)]
pub(crate) mod tests;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

pub use batch::BatchError;
pub use built_in::{NameTaken, Profiles};
pub use filter::{FilterRefused, FilterRules, StarMeaning, WordMeaning};
pub use header::HeaderRefused;
pub use overrides::{OverrideRefused, OverrideRules};
pub use secret::{KeyForm, Measure, SecretError, SecretOrigin, SecretRules};
pub use source::ProfileError;
pub use template::{Attempt, TemplateError};

use self::{batch::BatchRules, template::Template};
use crate::{
    EventType, Outcome, PauseMode, Timestamp,
    body::{BodyTemplate, DataForm, DataRefused},
    json::Limits,
    retry::{Policy, StatusSet},
    signing::SignatureRules,
};

/// How one provider's webhooks look and behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name: 1 to 64 of the characters a-z 0-9 -.
    pub name: String,
    /// For people.
    pub description: String,
    /// What an endpoint must be like.
    pub endpoint: EndpointRules,
    /// What event types must be like.
    pub event_types: EventTypeRules,
    /// How an attempt is made and judged.
    pub attempt: AttemptRules,
    /// When to try again.
    pub retry: Policy,
    /// What an endpoint may have instead of these two.
    pub overrides: OverrideRules,
    /// What follows from an endpoint's failures.
    pub health: HealthRules,
    /// What becomes of events while an endpoint is paused, if the caller does not say.
    pub pause: PauseMode,
    /// What becomes of an endpoint's deliveries when it is deleted.
    pub history: HistoryRule,
    /// The plans that a tenant can be on, smallest first; without any there are no limits.
    pub plans: Vec<Plan>,
    filters: FilterRules,
    body: BodyTemplate,
    headers: Vec<HeaderTemplate>,
    pub(crate) batch: Option<BatchRules>,
    pub(crate) signature: Arc<SignatureRules>,
}

/// What an endpoint must be like.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointRules {
    /// Whether plain HTTP is allowed.
    pub https: HttpsRule,
    /// How many endpoints of a tenant may be active at once; `None` for any number.
    #[serde(default)]
    pub active_max: Option<NonZeroU32>,
}

/// Whether plain HTTP is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpsRule {
    /// It is not.
    Required,
    /// It is.
    Optional,
}

/// What event types must be like, and which are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTypeRules {
    /// How many tokens a type has; `None` for any number.
    pub tokens: Option<NonZeroU32>,
    /// The provider's own event types. More may be used.
    pub catalogue: Vec<CatalogueEntry>,
}

/// An event type that a provider documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The type.
    pub event_type: EventType,
    /// For people.
    pub description: String,
    /// An example of the data: JSON that the profile can carry.
    pub example: String,
}

/// How an attempt is made and judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRules {
    /// Connect, TLS, head and body together; 100 ms to 60 s.
    pub timeout: Duration,
    /// The statuses by which an endpoint accepts.
    pub success: StatusSet,
    /// The status that people see instead of a time-out; `None` for none.
    pub timeout_shown_as: Option<u16>,
    /// Whether requests say which trace they belong to, unless the endpoint has it otherwise.
    pub trace_context: bool,
}

/// What follows from an endpoint's failures.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthRules {
    /// After how many failed attempts in a row an endpoint is disabled; `None` for never.
    #[serde(default)]
    pub auto_disable_after: Option<NonZeroU32>,
    /// Whether first attempts are held back from an endpoint that keeps failing.
    pub breaker: Breaker,
    /// Statuses that slow all of an endpoint's deliveries down.
    #[serde(default)]
    pub slow_down: StatusSet,
}

/// Whether there is a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Breaker {
    /// There is none: the schedule is a promise.
    Off,
    /// There is one for each endpoint.
    On,
}

/// What becomes of an endpoint's deliveries when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryRule {
    /// They can still be looked at.
    Keep,
    /// They are deleted too.
    Delete,
}

/// What a tenant may use.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// How many endpoints; `None` for any number.
    #[serde(default)]
    pub endpoints_max: Option<NonZeroU32>,
    /// How many events per second are delivered; those beyond are spread out. `None` for any number.
    #[serde(default)]
    pub events_per_second_max: Option<NonZeroU32>,
}

/// A header that a profile sets, with its name in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderTemplate {
    pub(crate) name: Arc<str>,
    pub(crate) value: Template,
}

/// An event type that a profile cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event type {event_type} has {count} tokens, and needs {needed}")]
pub struct TypeRefused {
    /// The type.
    pub event_type: EventType,
    /// How many tokens it has.
    pub count: usize,
    /// How many it needs.
    pub needed: NonZeroU32,
}

impl Profile {
    /// The name of the profile that tenants have who choose none.
    pub const DEFAULT: &'static str = "standard-webhooks";
    /// The shortest time-out of an attempt.
    pub const TIMEOUT_MIN: Duration = Duration::from_millis(100);
    /// The longest time-out of an attempt.
    pub const TIMEOUT_MAX: Duration = Duration::from_mins(1);

    /// Reads a profile.
    pub fn parse(toml: &str) -> Result<Self, ProfileError> {
        source::read(toml)
    }

    /// Tells whether events of the type can be carried.
    pub fn admit_type(&self, event_type: &EventType) -> Result<(), TypeRefused> {
        let count = event_type.tokens().count();
        match self.event_types.tokens {
            Some(needed) if u32::try_from(count) != Ok(needed.get()) => {
                Err(TypeRefused { event_type: event_type.clone(), count, needed })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Tells whether an event's data can be carried: what is admitted can always be rendered.
    pub fn admit_data(&self, data: &[u8], limits: &Limits) -> Result<(), DataRefused> {
        self.body.admit(data, limits)
    }

    /// Returns how the data is written in bodies.
    pub const fn data_form(&self) -> DataForm {
        self.body.form()
    }

    /// Returns what secrets look like.
    pub fn secret(&self) -> &SecretRules {
        &self.signature.secret
    }

    /// Returns how requests are signed.
    pub fn signature(&self) -> &SignatureRules {
        &self.signature
    }

    /// Returns the outcome of an attempt that was answered.
    pub fn outcome_of(&self, status: u16, retry_after: Option<Timestamp>) -> Outcome {
        if self.attempt.success.contains(status) {
            Outcome::Accepted { status }
        } else {
            Outcome::Refused { status, retry_after }
        }
    }

    /// Returns the status that people see for an outcome; `None` if there was no answer.
    pub fn shown_status(&self, outcome: &Outcome) -> Option<u16> {
        match outcome {
            Outcome::Failed(crate::Fault::TimedOut) => self.attempt.timeout_shown_as,
            Outcome::Accepted { .. } | Outcome::Refused { .. } | Outcome::Failed(_) => {
                outcome.status()
            }
        }
    }

    /// Returns the names of the headers that the profile sets, in lower case; `content-type`,
    /// which every request has, is not among them.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        let own = self.headers.iter().map(|header| &*header.name);
        own.chain(std::iter::once(&*self.signature.header))
    }

    pub(crate) const fn body(&self) -> &BodyTemplate {
        &self.body
    }

    pub(crate) fn headers(&self) -> &[HeaderTemplate] {
        &self.headers
    }
}
