//! What a profile says of batches: requests that carry several events as a JSON array.
//!
//! An element of the array is an event's own body with some members before it, which carry its id.
//! The headers and the signed text are the profile's own. There `{event_id}`, `{event_uuid}` and
//! `{delivery_id}` stand for the batch's id; what else differs between the events of a batch
//! cannot be said there, so that a profile whose headers say it has no batches.

use std::{fmt::Write as _, sync::Arc};

use super::{
    Profile,
    template::{Attempt, AttemptValue, EventValue, Piece, Template, write_uuid},
};
use crate::{
    BatchId, EventId, TenantId,
    body::{BodyError, BodyTemplate},
};

/// How the requests look that carry several events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchRules {
    pub(crate) element: BodyTemplate,
    pub(crate) headers: Vec<(Arc<str>, BatchTemplate)>,
    /// What is signed before the body, and after it.
    pub(crate) content: (BatchTemplate, BatchTemplate),
}

/// Why a profile cannot have batches as it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The elements cannot be made.
    #[error("members")]
    Body(#[from] BodyError),
    /// Nothing in an element says which event it is.
    #[error("a member of each element has to be {{event_id}}, {{event_uuid}} or {{delivery_id}}")]
    Unnamed,
    /// A header depends on one event.
    #[error("the header {0} is different for each event, and a batch has several")]
    Header(String),
    /// What is signed depends on one event.
    #[error("what is signed is different for each event, and a batch has several")]
    Content,
}

/// A template of a batch: its text, and what is the same for all of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchTemplate(Vec<BatchPiece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum BatchPiece {
    Text(String),
    Id,
    Uuid,
    Tenant,
    Attempt(AttemptValue),
}

impl Profile {
    /// Tells whether an endpoint may take several events in a request.
    pub const fn has_batches(&self) -> bool {
        self.batch.is_some()
    }

    /// Makes the rules for batches with this element.
    pub(super) fn batch_rules(&self, element: BodyTemplate) -> Result<BatchRules, BatchError> {
        if !element.names_event() {
            return Err(BatchError::Unnamed);
        }
        let header = |header: &super::HeaderTemplate| {
            let value = BatchTemplate::of(&header.value);
            let value = value.ok_or_else(|| BatchError::Header(String::from(&*header.name)))?;
            Ok((Arc::clone(&header.name), value))
        };
        let (before, after) = &self.signature.content;
        let content = |template| BatchTemplate::of(template).ok_or(BatchError::Content);
        Ok(BatchRules {
            element,
            headers: self.headers.iter().map(header).collect::<Result<_, BatchError>>()?,
            content: (content(before)?, content(after)?),
        })
    }
}

impl BatchTemplate {
    /// `None` if it says something of one event.
    fn of(template: &Template) -> Option<Self> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => Some(BatchPiece::Text(text.clone())),
            Piece::Event(EventValue::Id) | Piece::Attempt(AttemptValue::Delivery) => {
                Some(BatchPiece::Id)
            }
            Piece::Event(EventValue::Uuid) => Some(BatchPiece::Uuid),
            Piece::Event(EventValue::Tenant) => Some(BatchPiece::Tenant),
            Piece::Attempt(
                value @ (AttemptValue::Number
                | AttemptValue::Index
                | AttemptValue::At
                | AttemptValue::AtUnix),
            ) => Some(BatchPiece::Attempt(*value)),
            Piece::Event(
                EventValue::Type
                | EventValue::TypeFirst
                | EventValue::TypeRest
                | EventValue::OccurredAt
                | EventValue::OccurredAtUnix,
            )
            | Piece::Hole => None,
        };
        template.pieces().iter().map(piece).collect::<Option<_>>().map(Self)
    }

    /// Fills in what a batch and its attempt say.
    pub(crate) fn text_for(&self, id: BatchId, tenant: &TenantId, attempt: &Attempt) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                BatchPiece::Text(text) => out.push_str(text),
                BatchPiece::Id => write!(out, "{id}").expect("writing to a string succeeds"),
                BatchPiece::Uuid => write_uuid(EventId::from_bytes(*id.as_bytes()), &mut out),
                BatchPiece::Tenant => out.push_str(tenant.as_str()),
                BatchPiece::Attempt(value) => value.write(attempt, &mut out),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{ProfileError, Profiles};

    const STANDARD: &str = include_str!("../../../../deploy/profiles/standard-webhooks.toml");

    /// The standard profile with one text in place of another.
    fn changed(from: &str, to: &str) -> Result<Profile, ProfileError> {
        assert!(STANDARD.contains(from), "{from}");
        Profile::parse(&STANDARD.replace(from, to))
    }

    fn refused(from: &str, to: &str) -> BatchError {
        match changed(from, to) {
            Err(ProfileError::Batch(cause)) => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_standard_profile_has_batches() {
        let profiles = Profiles::built_in();
        let with: Vec<_> = profiles.iter().filter(|profile| profile.has_batches()).collect();
        assert_eq!(with.len(), 1);
        assert_eq!(with[0].name, Profile::DEFAULT);
    }

    #[test]
    fn an_element_names_its_event() {
        let members = "members = [{ name = \"id\", value = \"{event_id}\" }]";
        assert_eq!(refused(members, "members = []"), BatchError::Unnamed);
        let vague = "members = [{ name = \"id\", value = \"{tenant_id}\" }]";
        assert_eq!(refused(members, vague), BatchError::Unnamed);
        let twice = "members = [{ name = \"type\", value = \"{event_id}\" }]";
        assert!(matches!(refused(members, twice), BatchError::Body(BodyError::Twice(_))));
        for id in ["{event_uuid}", "{delivery_id}"] {
            let other = format!("members = [{{ name = \"key\", value = \"{id}\" }}]");
            assert!(changed(members, &other).is_ok_and(|profile| profile.has_batches()), "{id}");
        }
    }

    #[test]
    fn what_is_of_one_event_is_not_in_the_headers_of_a_batch() {
        let header = "name = \"webhook-timestamp\"\nvalue = \"{attempted_at_unix}\"";
        let of_event = "name = \"webhook-timestamp\"\nvalue = \"{occurred_at_unix}\"";
        let name = String::from("webhook-timestamp");
        assert_eq!(refused(header, of_event), BatchError::Header(name));
        let content = "content = \"{event_id}.{attempted_at_unix}.{body}\"";
        let of_event = "content = \"{event_type}.{body}\"";
        assert_eq!(refused(content, of_event), BatchError::Content);
    }
}
