//! Many event types at once: from an OpenAPI document, or from a profile.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::{
    EventType, TenantId,
    config::{EventTypeEntry, Validation},
    openapi::{self, Webhook},
    profile::{CatalogueEntry, Profiles},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Catalogue, TYPES_MAX, beside, draft};
use crate::{
    app::{App, Edited},
    caller::Caller,
    directory::Directory,
    error::{ApiError, Code},
    etag::IfMatch,
};

/// How long the schemas and examples of an import may be together, in bytes.
const BYTES_MAX: usize = 8 << 20;

/// Where event types are to be taken from: `openapi` or `profile`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Import {
    /// An OpenAPI 3.1 document with `webhooks`. The name of each is an event type, and the schema of
    /// what its POST takes as JSON is that of the data.
    #[schema(value_type = Option<Object>)]
    openapi: Option<Value>,
    /// The property of the document's bodies that holds the data, if a body is not all data.
    #[schema(example = "data")]
    data_property: Option<String>,
    /// The name of a profile, whose reference catalogue is taken. It has no schemas.
    #[schema(example = "kyberaccess")]
    profile: Option<String>,
    /// What becomes of events whose data does not follow the schema; if left out, `off` for new
    /// types, and as it was for others. Other than `off` only if every type comes with a schema.
    validation: Option<draft::ValidationName>,
}

/// What became of the event types of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = EventTypesImported)]
pub(crate) struct Imported {
    /// Those that were added.
    created: Vec<String>,
    /// Those that were changed.
    updated: Vec<String>,
    /// Those that were so already.
    unchanged: Vec<String>,
}

/// The event types of a catalogue as they are before an import.
type Before = BTreeMap<EventType, Arc<EventTypeEntry>>;

impl Import {
    /// Reads all event types and checks what would become of those that are there. Takes time.
    fn gather(
        &self,
        profiles: &Profiles,
        catalogue: &New,
        before: &Before,
    ) -> Result<Vec<Webhook>, ApiError> {
        match (&self.openapi, &self.profile) {
            (Some(document), None) => {
                let member = self.data_property.as_deref();
                let webhooks =
                    openapi::webhooks(document, member, TYPES_MAX).map_err(|why| refused(&why))?;
                self.check_all(
                    webhooks.map(|webhook| webhook.map_err(|why| refused(&why))),
                    catalogue,
                    before,
                )
            }
            (None, Some(name)) => {
                let unknown = || ApiError::value("profile", "there is no such profile");
                let profile = profiles.get(name).ok_or_else(unknown)?;
                let webhooks = profile.event_types.catalogue.iter().map(webhook);
                self.check_all(webhooks.map(Ok), catalogue, before)
            }
            (Some(_), Some(_)) | (None, None) => {
                Err(ApiError::value("openapi", "give either this or a profile"))
            }
        }
    }

    fn check_all(
        &self,
        webhooks: impl Iterator<Item = Result<Webhook, ApiError>>,
        new: &New,
        before: &Before,
    ) -> Result<Vec<Webhook>, ApiError> {
        let (mut all, mut bytes) = (Vec::new(), 0_usize);
        for webhook in webhooks {
            let webhook = webhook?;
            let name = webhook.event_type.as_str();
            let current = before.get(&webhook.event_type);
            let current =
                current.map_or_else(|| new.entry(&webhook), |it| EventTypeEntry::clone(it));
            let next = self.applied(&current, &webhook);
            next.and_then(|next| draft::check(&next)).map_err(|why| why.within(name))?;
            bytes = bytes.saturating_add(webhook.schema.len() + webhook.example.len());
            if bytes > BYTES_MAX {
                let why = format!("schemas and examples have more than {BYTES_MAX} bytes in all");
                return Err(ApiError::value("openapi", why));
            }
            all.push(webhook);
        }
        Ok(all)
    }

    /// Returns an entry as the import wants it. What the source does not have stays; an example
    /// goes with its schema.
    fn applied(
        &self,
        current: &EventTypeEntry,
        webhook: &Webhook,
    ) -> Result<EventTypeEntry, ApiError> {
        let asked = self.validation.map(draft::ValidationName::admit);
        let has_schema = !webhook.schema.is_empty();
        if !has_schema && asked.is_some_and(|asked| asked != Validation::Off) {
            return Err(ApiError::value("validation", "it comes without a schema to look at"));
        }
        let mut next = current.clone();
        if !webhook.description.is_empty() {
            next.description.clone_from(&webhook.description);
        }
        if has_schema {
            next.schema.clone_from(&webhook.schema);
        }
        if has_schema || !webhook.example.is_empty() {
            next.example.clone_from(&webhook.example);
        }
        next.validation = asked.unwrap_or(current.validation);
        Ok(next)
    }
}

/// Whose catalogue new entries come to.
struct New {
    tenant: Option<TenantId>,
}

impl New {
    /// An entry of which nothing is known yet.
    fn entry(&self, webhook: &Webhook) -> EventTypeEntry {
        EventTypeEntry {
            tenant: self.tenant.clone(),
            event_type: webhook.event_type.clone(),
            description: String::new(),
            schema: String::new(),
            example: String::new(),
            validation: Validation::Off,
        }
    }
}

fn refused(why: &openapi::OpenApiRefused) -> ApiError {
    let cause = std::error::Error::source(why);
    let more = cause.map_or_else(String::new, |cause| format!(": {cause}"));
    ApiError::value("openapi", format_args!("{why}{more}"))
}

fn webhook(entry: &CatalogueEntry) -> Webhook {
    let CatalogueEntry { event_type, description, example } = entry;
    Webhook {
        event_type: event_type.clone(),
        description: description.clone(),
        schema: String::new(),
        example: example.clone(),
    }
}

impl Catalogue<'_> {
    /// Adds or changes the event types of an import. All of them are checked before any is written.
    pub(super) async fn import(
        self,
        app: &App,
        caller: &Caller,
        import: Import,
    ) -> Result<Imported, ApiError> {
        let before: Arc<Before> = Arc::new(app.directory.read(|directory| {
            let all = directory.event_types(self.tenant, None, usize::MAX);
            all.into_iter().map(|found| (found.value.event_type.clone(), found.value)).collect()
        }));
        let (import, profiles) = (Arc::new(import), app.profiles.clone());
        let new = New { tenant: self.tenant.cloned() };
        let gathering = {
            let (import, before) = (Arc::clone(&import), Arc::clone(&before));
            beside(move || import.gather(&profiles, &new, &before))
        };
        let webhooks = gathering.await?;
        self.admit_all(&webhooks, &before)?;
        let mut imported = Imported::default();
        for webhook in webhooks {
            let name = webhook.event_type.to_string();
            match self.put(app, caller, (&import, &before), &webhook).await? {
                Put::Created => imported.created.push(name),
                Put::Updated => imported.updated.push(name),
                Put::Unchanged => imported.unchanged.push(name),
            }
        }
        self.unless_deleted(app, caller, &imported.created).await?;
        Ok(imported)
    }

    /// Admits event types together, before any is written.
    fn admit_all(self, webhooks: &[Webhook], before: &Before) -> Result<(), ApiError> {
        if let Some(profile) = self.profile {
            for Webhook { event_type, .. } in webhooks {
                let refused = |why| ApiError::value(event_type.as_str(), why);
                profile.admit_type(event_type).map_err(refused)?;
            }
        }
        let is_new = |webhook: &&Webhook| !before.contains_key(&webhook.event_type);
        let new = webhooks.iter().filter(is_new).count();
        if new > 0 && before.len().saturating_add(new) > TYPES_MAX {
            let detail = format_args!("it has {}, and {new} would be added", before.len());
            return Err(ApiError::detailed(Code::EventTypesLimit, detail));
        }
        Ok(())
    }

    async fn put(
        self,
        app: &App,
        caller: &Caller,
        (import, known): (&Import, &Before),
        webhook: &Webhook,
    ) -> Result<Put, ApiError> {
        let find = |directory: &Directory| directory.event_type(self.tenant, &webhook.event_type);
        let Some(before) = app.directory.read(find) else {
            let new = New { tenant: self.tenant.cloned() };
            let entry = import.applied(&new.entry(webhook), webhook)?;
            return match self.add(app, caller, entry).await {
                Ok(_) => Ok(Put::Created),
                Err(ApiError::Plain(Code::EventTypeExists)) => Err(Code::ChangedMeanwhile.into()),
                Err(other) => Err(other),
            };
        };
        let edit = |current: &EventTypeEntry| {
            let next = import.applied(current, webhook)?;
            // What it becomes was checked, unless somebody has changed it since then.
            if known.get(&webhook.event_type).is_none_or(|known| **known != *current) {
                draft::check(&next)?;
            }
            Ok(if next == *current { Edited::Unchanged } else { Edited::Changed(next) })
        };
        let edited = app.edit(caller, &IfMatch::Absent, find, edit).await?;
        let edited = edited.ok_or(Code::ChangedMeanwhile)?;
        Ok(if edited.revision == before.revision { Put::Unchanged } else { Put::Updated })
    }
}

enum Put {
    Created,
    Updated,
    Unchanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(json: &str) -> Import {
        serde_json::from_str(json).unwrap()
    }

    fn hook(schema: &str, example: &str) -> Webhook {
        Webhook {
            event_type: "a.b".parse().unwrap(),
            description: String::new(),
            schema: schema.to_owned(),
            example: example.to_owned(),
        }
    }

    #[test]
    fn what_the_source_does_not_have_stays() {
        let current = EventTypeEntry {
            description: String::from("d"),
            schema: String::from("true"),
            example: String::from("1"),
            validation: Validation::Enforce,
            ..New { tenant: None }.entry(&hook("", ""))
        };
        let silent = import("{}");
        assert_eq!(silent.applied(&current, &hook("", "")).unwrap(), current);
        let next = silent.applied(&current, &hook("{}", "")).unwrap();
        assert_eq!((next.schema.as_str(), next.example.as_str()), ("{}", ""));
        assert_eq!(next.validation, Validation::Enforce);
        let off = import(r#"{"validation":"off"}"#).applied(&current, &hook("", "2")).unwrap();
        assert_eq!((off.validation, off.example.as_str()), (Validation::Off, "2"));
        assert_eq!(off.schema, "true");
        for asked in [r#"{"validation":"report"}"#, r#"{"validation":"enforce"}"#] {
            assert!(import(asked).applied(&current, &hook("", "")).is_err(), "{asked}");
            assert!(import(asked).applied(&current, &hook("true", "")).is_ok(), "{asked}");
        }
    }
}
