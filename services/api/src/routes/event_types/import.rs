//! Many event types at once: from an OpenAPI document, or from a profile.

use fanfare_domain::{
    config::EventTypeEntry,
    openapi::{self, Webhook},
    profile::CatalogueEntry,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Catalogue, draft};
use crate::{
    app::{App, Edited},
    caller::Caller,
    directory::Directory,
    error::{ApiError, Code},
    etag::IfMatch,
};

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
    /// types, and as it was for others.
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

impl Import {
    fn webhooks(&self, app: &App) -> Result<Vec<Webhook>, ApiError> {
        match (&self.openapi, &self.profile) {
            (Some(document), None) => {
                let member = self.data_property.as_deref();
                let refused = |why: openapi::OpenApiRefused| {
                    let cause = std::error::Error::source(&why);
                    let more = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                    ApiError::value("openapi", format_args!("{why}{more}"))
                };
                openapi::webhooks(document, member).map_err(refused)
            }
            (None, Some(name)) => {
                let unknown = || ApiError::value("profile", "there is no such profile");
                let profile = app.profiles.get(name).ok_or_else(unknown)?;
                Ok(profile.event_types.catalogue.iter().map(webhook).collect())
            }
            (Some(_), Some(_)) | (None, None) => {
                Err(ApiError::value("openapi", "give either this or a profile"))
            }
        }
    }
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
        import: &Import,
    ) -> Result<Imported, ApiError> {
        let wanted: Vec<EventTypeEntry> = import
            .webhooks(app)?
            .into_iter()
            .map(|webhook| self.entry(app, webhook, import))
            .collect::<Result<_, _>>()?;
        let mut imported = Imported::default();
        for entry in wanted {
            let name = entry.event_type.to_string();
            match self.put(app, caller, entry).await? {
                Put::Created => imported.created.push(name),
                Put::Updated => imported.updated.push(name),
                Put::Unchanged => imported.unchanged.push(name),
            }
        }
        Ok(imported)
    }

    fn entry(
        self,
        app: &App,
        webhook: Webhook,
        import: &Import,
    ) -> Result<EventTypeEntry, ApiError> {
        let Webhook { event_type, description, schema, example } = webhook;
        let find = |directory: &Directory| directory.event_type(self.tenant, &event_type);
        let before = app.directory.read(find).map(|found| found.value.validation);
        let asked = import.validation.map(draft::ValidationName::admit);
        // Without a schema there is nothing to look at.
        let validation = asked.or(before).filter(|_| !schema.is_empty()).unwrap_or_default();
        let name = event_type.to_string();
        let tenant = self.tenant.cloned();
        let entry = EventTypeEntry { tenant, event_type, description, schema, example, validation };
        draft::check(&entry).map_err(|why| why.within(&name))?;
        if let Some(profile) = self.profile {
            profile
                .admit_type(&entry.event_type)
                .map_err(|why| ApiError::value(name.as_str(), why))?;
        }
        Ok(entry)
    }

    async fn put(self, app: &App, caller: &Caller, entry: EventTypeEntry) -> Result<Put, ApiError> {
        let find = |directory: &Directory| directory.event_type(self.tenant, &entry.event_type);
        let Some(before) = app.directory.read(find) else {
            return match self.add(app, caller, entry).await {
                Ok(_) => Ok(Put::Created),
                Err(ApiError::Plain(Code::EventTypeExists)) => Err(Code::ChangedMeanwhile.into()),
                Err(other) => Err(other),
            };
        };
        let edit = |current: &EventTypeEntry| {
            let is_same = *current == entry;
            Ok(if is_same { Edited::Unchanged } else { Edited::Changed(entry.clone()) })
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
