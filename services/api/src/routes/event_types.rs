//! The catalogues of event types: each tenant's, and the installation's, which counts where a tenant
//! has no entry of its own.

mod draft;
pub(crate) mod everywhere;
mod import;

use std::sync::Arc;

use anyhow::anyhow;
use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{EventType, TenantId, Timestamp, config::EventTypeEntry, profile::Profile};
use fanfare_service::Joined as _;
use tokio::task::spawn_blocking;

use crate::{
    app::{App, Edited},
    caller::{Caller, InTenant, Reads, Writes},
    directory::{Configured as _, Directory, Revised},
    error::{ApiError, Code},
    etag::IfMatch,
    extract::{Body, Params, PathId},
    page::{Page, Paging},
    reply::{Created, Tagged},
};

use draft::{EventTypePatch, EventTypeView, NewEventType};
use import::{Import, Imported};

/// The most event types of a catalogue. Callers at the same time can get some more in.
const TYPES_MAX: usize = 1_000;

/// A catalogue: a tenant's, or the installation's.
#[derive(Clone, Copy)]
struct Catalogue<'a> {
    tenant: Option<&'a TenantId>,
    /// Since when there is this tenant.
    since: Timestamp,
    /// The tenant's profile, which has to be able to carry the types.
    profile: Option<&'a Profile>,
}

/// Adds an event type to a tenant's catalogue.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/event-types", tag = "event-types",
    request_body = NewEventType,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 201, body = EventTypeView, headers(("ETag"), ("Location")))),
)]
pub(crate) async fn create_event_type(
    State(app): State<App>,
    access: InTenant<Writes>,
    Body(new): Body<NewEventType>,
) -> Result<Created<EventTypeView>, ApiError> {
    let catalogue = Catalogue::of(&app, &access)?;
    let created = catalogue.create(&app, &access.caller, new).await?;
    let name = created.value.event_type.to_string();
    catalogue.unless_deleted(&app, &access.caller, &[name]).await?;
    Ok(catalogue.created(&created))
}

/// Lists a tenant's event types, in alphabetic order.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/event-types", tag = "event-types",
    params(("tenant" = String, Path, description = "The tenant's id"), Paging),
    responses((status = 200, body = Page<EventTypeView>)),
)]
pub(crate) async fn list_event_types(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<EventTypeView>>, ApiError> {
    list(&app, Some(access.id()), &paging)
}

/// Shows an event type of a tenant's catalogue.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/event-types/{event_type}", tag = "event-types",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("event_type" = String, Path, description = "The event type"),
    ),
    responses((status = 200, body = EventTypeView, headers(("ETag")))),
)]
pub(crate) async fn get_event_type(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(event_type): PathId<EventType>,
) -> Result<Tagged<EventTypeView>, ApiError> {
    get(&app, Some(access.id()), &event_type)
}

/// Changes an event type of a tenant's catalogue. It holds for events that ingest takes from then on,
/// also for those that wait in INBOX; what is an event already stays one.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/event-types/{event_type}", tag = "event-types",
    request_body = EventTypePatch,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("event_type" = String, Path, description = "The event type"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EventTypeView, headers(("ETag")))),
)]
pub(crate) async fn update_event_type(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(event_type): PathId<EventType>,
    if_match: IfMatch,
    Body(patch): Body<EventTypePatch>,
) -> Result<Tagged<EventTypeView>, ApiError> {
    let of = (Some(access.id()), &event_type);
    update(&app, &access.caller, of, (&if_match, patch)).await
}

/// Takes an event type out of a tenant's catalogue.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/event-types/{event_type}", tag = "event-types",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("event_type" = String, Path, description = "The event type"),
        ("If-Match" = Option<String>, Header, description = "Delete this version only"),
    ),
    responses((status = 204)),
)]
pub(crate) async fn delete_event_type(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(event_type): PathId<EventType>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    delete(&app, &access.caller, (Some(access.id()), &event_type), &if_match).await
}

/// Adds event types to a tenant's catalogue from the `webhooks` of an OpenAPI 3.1 document, or from
/// a profile. Types that are there get what the source has of a description, a schema with its
/// example, and keep the rest.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/event-type-imports", tag = "event-types",
    request_body = Import,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 200, body = Imported)),
)]
pub(crate) async fn import_event_types(
    State(app): State<App>,
    access: InTenant<Writes>,
    Body(import): Body<Import>,
) -> Result<Json<Imported>, ApiError> {
    let catalogue = Catalogue::of(&app, &access)?;
    catalogue.import(&app, &access.caller, import).await.map(Json)
}

impl<'a> Catalogue<'a> {
    /// A tenant's.
    fn of<P>(app: &'a App, access: &'a InTenant<P>) -> Result<Self, ApiError> {
        let profile = app.profile(&access.tenant.value.profile)?;
        let since = access.tenant.value.created_at;
        Ok(Self { tenant: Some(access.id()), since, profile: Some(profile) })
    }

    /// Adds an entry.
    async fn create(
        self,
        app: &App,
        caller: &Caller,
        new: NewEventType,
    ) -> Result<Revised<EventTypeEntry>, ApiError> {
        let tenant = self.tenant.cloned();
        let entry = beside(move || new.admit(tenant.as_ref())).await?;
        self.add(app, caller, entry).await
    }

    /// Adds an entry that was admitted.
    async fn add(
        self,
        app: &App,
        caller: &Caller,
        entry: EventTypeEntry,
    ) -> Result<Revised<EventTypeEntry>, ApiError> {
        if let Some(profile) = self.profile {
            profile.admit_type(&entry.event_type).map_err(|why| ApiError::value("type", why))?;
        }
        let value = Arc::new(entry);
        let look = |directory: &Directory| {
            if directory.event_type(self.tenant, &value.event_type).is_some() {
                return Err(Code::EventTypeExists.into());
            }
            let count = directory.event_types_count(self.tenant);
            if count >= TYPES_MAX {
                let detail = format_args!("it has {count}");
                return Err(ApiError::detailed(Code::EventTypesLimit, detail));
            }
            let vacancy = directory.event_type_vacancy(self.tenant, &value.event_type);
            Ok((EventTypeEntry::entity(Arc::clone(&value)), vacancy))
        };
        let revision = app.write_counted(caller, look).await?;
        Ok(Revised { value, revision })
    }

    /// Takes back what was added, if the tenant was deleted meanwhile: whichever of the two comes last
    /// deletes the entries.
    async fn unless_deleted(
        self,
        app: &App,
        caller: &Caller,
        added: &[String],
    ) -> Result<(), ApiError> {
        let Some(tenant) = self.tenant else { return Ok(()) };
        if app.directory.read(|directory| directory.has_tenant_since(tenant, self.since)) {
            return Ok(());
        }
        for event_type in added.iter().filter_map(|name| name.parse::<EventType>().ok()) {
            let find = |directory: &Directory| directory.event_type(Some(tenant), &event_type);
            app.withdraw(caller, find).await?;
        }
        Err(Code::TenantNotFound.into())
    }

    fn created(self, created: &Revised<EventTypeEntry>) -> Created<EventTypeView> {
        let place = self.tenant.map_or_else(String::new, |tenant| format!("/tenants/{tenant}"));
        let location = format!("/v1{place}/event-types/{}", created.value.event_type);
        Created { location, tagged: tagged(created) }
    }
}

fn tagged(entry: &Revised<EventTypeEntry>) -> Tagged<EventTypeView> {
    Tagged { revision: entry.revision, body: EventTypeView::of(&entry.value) }
}

fn list(
    app: &App,
    tenant: Option<&TenantId>,
    paging: &Paging,
) -> Result<Json<Page<EventTypeView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<EventType>()?);
    let look = |directory: &Directory| directory.event_types(tenant, after.as_ref(), limit + 1);
    let id = |entry: &Revised<EventTypeEntry>| entry.value.event_type.clone();
    let show = |entry: &Revised<EventTypeEntry>| EventTypeView::of(&entry.value);
    Ok(Json(Page::of(app.directory.read(look), limit, id, show)))
}

fn get(
    app: &App,
    tenant: Option<&TenantId>,
    event_type: &EventType,
) -> Result<Tagged<EventTypeView>, ApiError> {
    let found = app.directory.read(|directory| directory.event_type(tenant, event_type));
    found.as_ref().map(tagged).ok_or_else(|| Code::EventTypeNotFound.into())
}

async fn update(
    app: &App,
    caller: &Caller,
    (tenant, event_type): (Option<&TenantId>, &EventType),
    (if_match, patch): (&IfMatch, EventTypePatch),
) -> Result<Tagged<EventTypeView>, ApiError> {
    let find = |directory: &Directory| directory.event_type(tenant, event_type);
    let patch = Arc::new(patch);
    let before = app.directory.read(find).ok_or(Code::EventTypeNotFound)?.value;
    let applying = (Arc::clone(&patch), Arc::clone(&before));
    let wanted = beside(move || applying.0.apply(&applying.1)).await?;
    let edit = |entry: &EventTypeEntry| {
        // Rarely somebody has changed it since then.
        let next = if *entry == *before { wanted.clone() } else { patch.apply(entry)? };
        Ok(if next == *entry { Edited::Unchanged } else { Edited::Changed(next) })
    };
    let edited = app.edit(caller, if_match, find, edit).await?;
    edited.as_ref().map(tagged).ok_or_else(|| Code::EventTypeNotFound.into())
}

/// Does what takes time beside the runtime: reading schemas.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work).await.joined().map_err(|error| ApiError::Internal(anyhow!(error)))?
}

async fn delete(
    app: &App,
    caller: &Caller,
    (tenant, event_type): (Option<&TenantId>, &EventType),
    if_match: &IfMatch,
) -> Result<StatusCode, ApiError> {
    let find = |directory: &Directory| directory.event_type(tenant, event_type);
    let deleted = app.delete(caller, if_match, find).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Code::EventTypeNotFound.into()) }
}
