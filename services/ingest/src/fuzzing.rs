//! A door to the judging of messages for `tests/fuzzing`, and for nobody else.

use std::sync::Arc;

use fanfare_domain::{
    Change, Entity, Event, EventId, Tenant, Timestamp, TraceContext, json::Limits,
    profile::Profiles, tenant::UnknownTypes,
};
use fanfare_event_log::{ConfigFold as _, InboxMessage};

use crate::{
    admit::{self, Rules},
    directory::Directory,
};

/// Why a message does not become an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable name of the reason.
    pub name: &'static str,
    /// What it would be as an HTTP status.
    pub code: u16,
    /// What is wrong, for people. One line.
    pub detail: String,
}

/// Judges a message that was received at a time, where its tenant is there and on that profile.
pub fn admit(message: &InboxMessage, profile: &str, at: Timestamp) -> Result<Event, Refusal> {
    let mut directory = Directory::default();
    if let Ok(id) = message.tenant.parse() {
        let entity = Entity::Tenant(Arc::new(Tenant {
            id,
            name: String::new(),
            profile: String::from(profile),
            rate_limit: None,
            plan: None,
            endpoints_max: None,
            unknown_types: UnknownTypes::Allowed,
            created_at: at,
            expunge: None,
        }));
        let (actor, reason, trace) = (String::new(), String::new(), TraceContext::default());
        directory.apply(1, at, &Change { entity, deleted: false, actor, reason, trace });
    }
    let rules = Rules { limits: Limits::default(), profiles: Profiles::built_in() };
    match admit::admit(message, &directory, &rules) {
        Ok((draft, _)) => Ok(draft.into_event(EventId::of_message("INBOX", 1, at), None, at)),
        Err(rejection) => Err(Refusal {
            name: rejection.reason.as_str(),
            code: rejection.reason.code(),
            detail: rejection.detail,
        }),
    }
}
