//! Whether a message becomes an event, and which. Pure.
//!
//! | a message is | if |
//! | ------------ | -- |
//! | a structured `CloudEvent` | its `Content-Type` is `application/cloudevents+json` |
//! | a binary `CloudEvent` | it has the header `ce-specversion` |
//! | protobuf | its `Content-Type` is `application/protobuf` |
//! | plain JSON | its `Content-Type` is any other JSON, or it has none |
//!
//! Tenant and type come from the subject alone. Objects with a key twice are refused for every
//! profile: receivers disagree on what such an object means.

mod catalogued;
mod cloudevent;
mod media;
mod metadata;
mod rejection;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use fanfare_domain::{
    Event, EventId, EventType, TenantId, Timestamp,
    json::Limits,
    profile::{Profile, Profiles},
};
use fanfare_event_log::{InboxMessage, inbox::decode_protobuf, topology::header};

use self::media::Media;
pub(crate) use self::{
    catalogued::Asked,
    metadata::Metadata,
    rejection::{Reason, Rejection},
};
use crate::directory::Directory;

/// How much larger than its data a message may be: what a `CloudEvent` or a protobuf event says
/// beside its data.
const ENVELOPE_BYTES_MAX: usize = 64 * 1_024;

/// What an event is judged by, beside the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Of the data.
    pub(crate) limits: Limits,
    /// Profiles that are built in or came as files.
    pub(crate) profiles: Profiles,
}

/// An event that is accepted, but for its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Whose event it is.
    pub(crate) tenant: TenantId,
    /// What kind of thing happened.
    pub(crate) event_type: EventType,
    /// One JSON value, byte for byte.
    pub(crate) data: Bytes,
    /// What the producer says of it.
    pub(crate) metadata: Metadata,
}

/// Judges a message, but for what the catalogue says of it: that takes time, and does not count for
/// an event that is stored already.
pub(crate) fn admit(
    message: &InboxMessage,
    directory: &Directory,
    rules: &Rules,
) -> Result<(Draft, Asked), Rejection> {
    let (tenant, profile) = whose(&message.tenant, directory, rules)?;
    let event_type: EventType = message
        .event_type
        .parse()
        .map_err(|cause| Reason::MalformedType.because(format_args!("{cause}")))?;
    profile
        .admit_type(&event_type)
        .map_err(|refused| Reason::TypeNotRepresentable.because(refused))?;
    let largest = rules.limits.bytes_max.saturating_add(ENVELOPE_BYTES_MAX);
    if message.payload.len() > largest {
        let bytes = message.payload.len();
        return Err(Reason::TooLarge.because(format_args!("{bytes} bytes are more than {largest}")));
    }
    let (metadata, data) = content(message, &event_type, &rules.limits)?;
    let metadata = metadata.fill(&message.headers)?.check()?;
    profile.admit_data(&data, &rules.limits)?;
    let asked = Asked::of(&tenant, &event_type, directory);
    Ok((Draft { tenant, event_type, data, metadata }, asked))
}

fn whose<'a>(
    tenant: &str,
    directory: &'a Directory,
    rules: &'a Rules,
) -> Result<(TenantId, &'a Profile), Rejection> {
    let unknown = || Reason::UnknownTenant.because(format_args!("there is no tenant {tenant:?}"));
    let id: TenantId = tenant.parse().map_err(|_| unknown())?;
    let name = directory.profile_of(&id).ok_or_else(unknown)?;
    let profile =
        rules.profiles.get(name).or_else(|| directory.profile(name)).ok_or_else(|| {
            Reason::UnknownProfile
                .because(format_args!("the tenant's profile {name:?} is not usable"))
        })?;
    Ok((id, profile))
}

/// Reads a message in the form that it has.
fn content(
    message: &InboxMessage,
    event_type: &EventType,
    limits: &Limits,
) -> Result<(Metadata, Bytes), Rejection> {
    let (headers, payload) = (&message.headers, &message.payload);
    let content_type = metadata::single(headers, header::CONTENT_TYPE)?.unwrap_or_default();
    if cloudevent::is_binary(headers) {
        return cloudevent::read_binary(headers, payload, content_type, event_type);
    }
    match media::media(content_type)? {
        Media::Json => Ok((Metadata::default(), payload.clone())),
        Media::CloudEvent => {
            let whole = Limits {
                bytes_max: limits.bytes_max.saturating_add(ENVELOPE_BYTES_MAX),
                depth_max: limits.depth_max.saturating_add(1),
            };
            cloudevent::read_structured(payload, event_type, &whole)
        }
        Media::Protobuf => protobuf(payload),
    }
}

fn protobuf(payload: &Bytes) -> Result<(Metadata, Bytes), Rejection> {
    let event = decode_protobuf(payload.clone()).map_err(|malformed| {
        let cause = std::error::Error::source(&malformed).map(ToString::to_string);
        let cause = cause.unwrap_or_default();
        Reason::MalformedProtobuf.because(format_args!("{malformed}: {cause}"))
    })?;
    media::json_data(&event.content_type)?;
    let mut metadata = Metadata {
        occurred_at: event.occurred_at,
        ordering_key: event.ordering_key,
        idempotency_key: event.idempotency_key,
        trace: event.trace,
        ..Metadata::default()
    };
    for (name, value) in &event.attributes {
        metadata.attribute(name, value)?;
    }
    Ok((metadata, event.data))
}

impl Draft {
    /// Makes the event. `received_at` is when it happened, if the producer does not say;
    /// `accepted` is when INBOX stored it, and a revision of CONFIG that has what was acknowledged
    /// before that; `None` if it was not there.
    pub(crate) fn into_event(
        self,
        id: EventId,
        accepted: Option<(Timestamp, u64)>,
        received_at: Timestamp,
    ) -> Event {
        let Self { tenant, event_type, data, metadata } = self;
        let Metadata { occurred_at, ordering_key, idempotency_key, attributes, trace } = metadata;
        Event {
            id,
            tenant,
            event_type,
            occurred_at: occurred_at.unwrap_or(received_at),
            accepted_at: accepted.map(|(at, _)| at),
            config_revision: accepted.map(|(_, revision)| revision),
            data,
            ordering_key,
            attributes,
            idempotency_key,
            trace,
        }
    }
}
