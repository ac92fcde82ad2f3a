//! Endpoints: created with what they want, changed, deleted; their secrets are never shown again.

pub(crate) mod actions;
pub(crate) mod cancelling;
mod draft;
mod health;
pub(crate) mod jwks;
pub(crate) mod reveal;
pub(crate) mod sample;
mod security;
pub(crate) mod statistics;
#[cfg(test)]
mod tests;
pub(crate) mod trial;
pub(crate) mod validate;
mod view;

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, Entity, Tenant, TenantId, Timestamp, profile::Profile,
};
use fanfare_service::random_bytes;

use crate::{
    app::{App, Edited},
    caller::{InTenant, Reads, Writes},
    directory::{Directory, Revised},
    error::{ApiError, Code},
    etag::IfMatch,
    extract::{Body, Params, PathId},
    page::{Page, Paging},
    reply::{Created, Tagged},
};

use draft::{EndpointPatch, Maker, NewEndpoint};
use view::{EndpointView, EndpointWithHealth, EndpointWithSecret};
pub(crate) use view::{RateLimitView, RatePeriodName};

/// How long the dispatcher of an endpoint has to say how that does.
const HEALTH_WAIT: Duration = Duration::from_millis(250);

/// Creates an endpoint. The answer is the only one that shows its secret.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints", tag = "endpoints", request_body = NewEndpoint,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 201, body = EndpointWithSecret, headers(("ETag"), ("Location")))),
)]
pub(crate) async fn create_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    Body(new): Body<NewEndpoint>,
) -> Result<Created<EndpointWithSecret>, ApiError> {
    let profile = app.profile(&access.tenant.value.profile)?;
    let id = EndpointId::new(app.now(), random_bytes());
    let urls = app.url_rules(profile);
    validate::check(&app, new.validation)?;
    let maker = Maker { profile, urls: &urls, keyring: &app.keyring, now: app.now() };
    let (endpoint, secret) = maker.create(new, id, access.id().clone(), random_bytes)?;
    let value = Arc::new(endpoint);
    let entity = || Entity::Endpoint(Arc::clone(&value));
    let revision = if is_bounded(&access.tenant.value, profile) {
        let look = |directory: &Directory| {
            admit_one_more(directory, access.id(), profile).map(|()| (entity(), 0))
        };
        app.write_counted(&access.caller, look).await?
    } else {
        app.write(access.caller.change(entity(), false), 0).await?
    };
    if let Err(refused) = admit_created(&app, &access, profile) {
        let find = |directory: &Directory| directory.endpoint(access.id(), id);
        if access.is_there(&app) {
            app.delete(&access.caller, &IfMatch::Absent, find).await?;
        } else {
            app.withdraw(&access.caller, find).await?;
        }
        return Err(refused);
    }
    let view = EndpointView::of(&value, profile, app.now());
    let body = EndpointWithSecret { view, secret: String::from(secret.expose()) };
    let location = format!("/v1/tenants/{}/endpoints/{id}", access.id());
    Ok(Created { location, tagged: Tagged { revision, body } })
}

/// Lists a tenant's endpoints, oldest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints", tag = "endpoints",
    params(("tenant" = String, Path, description = "The tenant's id"), Paging),
    responses((status = 200, body = Page<EndpointView>)),
)]
pub(crate) async fn list_endpoints(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<EndpointView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<EndpointId>()?);
    let (profile, now) = (app.profile(&access.tenant.value.profile)?, app.now());
    let look = |directory: &Directory| directory.endpoints(access.id(), after.as_ref(), limit + 1);
    let page = Page::of(
        app.directory.read(look),
        limit,
        |endpoint| endpoint.value.id,
        |endpoint| EndpointView::of(&endpoint.value, profile, now),
    );
    Ok(Json(page))
}

/// Shows an endpoint, and how it does at the moment.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
    ),
    responses((status = 200, body = EndpointWithHealth, headers(("ETag")))),
)]
pub(crate) async fn get_endpoint(
    State(app): State<App>,
    access: InTenant<Reads>,
    PathId(id): PathId<EndpointId>,
) -> Result<Tagged<EndpointWithHealth>, ApiError> {
    let found = app.directory.read(|directory| directory.endpoint(access.id(), id));
    let Tagged { revision, body: view } = tagged(&app, &access, found)?;
    let health = app.log.health(id, HEALTH_WAIT).await.map(Into::into);
    Ok(Tagged { revision, body: EndpointWithHealth { view, health } })
}

/// Changes an endpoint. Its secret and its state have operations of their own.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}/endpoints/{endpoint}", tag = "endpoints",
    request_body = EndpointPatch,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EndpointView, headers(("ETag")))),
)]
pub(crate) async fn update_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
    Body(patch): Body<EndpointPatch>,
) -> Result<Tagged<EndpointView>, ApiError> {
    let profile = app.profile(&access.tenant.value.profile)?;
    let urls = app.url_rules(profile);
    validate::check(&app, patch.validation.value().copied())?;
    let edit = |endpoint: &Endpoint| {
        let maker = Maker { profile, urls: &urls, keyring: &app.keyring, now: app.now() };
        maker.patch(endpoint, &patch, random_bytes)
    };
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let edited = app.edit(&access.caller, &if_match, find, edit).await?;
    tagged(&app, &access, edited)
}

/// Deletes an endpoint: it gets no more requests, and what is not delivered yet is cancelled. Where
/// the tenant's profile says so (`history.after_deletion`), its deliveries are not shown any more either,
/// and the delivery log forgets them.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/endpoints/{endpoint}", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Delete this version only"),
    ),
    responses((status = 204)),
)]
pub(crate) async fn delete_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let deleted = app.delete(&access.caller, &if_match, find).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Code::EndpointNotFound.into()) }
}

fn tagged<P>(
    app: &App,
    access: &InTenant<P>,
    found: Option<Revised<Endpoint>>,
) -> Result<Tagged<EndpointView>, ApiError> {
    let found = found.ok_or(Code::EndpointNotFound)?;
    let profile = app.profile(&access.tenant.value.profile)?;
    let body = EndpointView::of(&found.value, profile, app.now());
    Ok(Tagged { revision: found.revision, body })
}

/// Whether there is a limit to the endpoints of a tenant: then each of them is made with all others in
/// view.
fn is_bounded(tenant: &Tenant, profile: &Profile) -> bool {
    tenant.endpoints_max.is_some() || profile.endpoint.active_max.is_some()
}

/// Refuses one more endpoint, which is active, where a limit is reached.
fn admit_one_more(
    directory: &Directory,
    tenant: &TenantId,
    profile: &Profile,
) -> Result<(), ApiError> {
    let found = directory.tenant(tenant).ok_or(Code::TenantNotFound)?;
    if found.value.profile != profile.name {
        return Err(Code::ChangedMeanwhile.into());
    }
    within(directory.active_count(tenant), profile)?;
    within_plan(directory.endpoints_count(tenant), &found.value)
}

/// Makes an endpoint active, or changes it otherwise, where the profile may allow no more of them:
/// with all others in view, if so.
async fn edit_active(
    app: &App,
    (access, id): (&InTenant<Writes>, EndpointId),
    if_match: &IfMatch,
    edit: impl Fn(&Endpoint) -> Result<Edited<Endpoint>, ApiError> + Send + Sync,
) -> Result<Option<Revised<Endpoint>>, ApiError> {
    let profile = app.profile(&access.tenant.value.profile)?;
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    if profile.endpoint.active_max.is_none() {
        return app.edit(&access.caller, if_match, find, edit).await;
    }
    let edit = |before: &Endpoint| {
        let edited = edit(before)?;
        if let Edited::Changed(next) = &edited
            && next.state == EndpointState::Active
            && before.state != EndpointState::Active
        {
            let others = app.directory.read(|directory| directory.active_count(access.id()));
            within(others, profile)?;
        }
        Ok(edited)
    };
    app.edit_counted(&access.caller, if_match, find, edit).await
}

/// Judges again once an endpoint is on record: the tenant may have been deleted meanwhile, or its
/// profile changed.
fn admit_created<P>(app: &App, access: &InTenant<P>, profile: &Profile) -> Result<(), ApiError> {
    let tenant = app.directory.read(|directory| directory.tenant(access.id()));
    match tenant.filter(|_| access.is_there(app)) {
        None => Err(Code::TenantNotFound.into()),
        Some(tenant) if tenant.value.profile != profile.name => Err(Code::ChangedMeanwhile.into()),
        Some(_) => Ok(()),
    }
}

/// Judges one more endpoint of a tenant.
fn within_plan(others: u32, tenant: &Tenant) -> Result<(), ApiError> {
    let Some(max) = tenant.endpoints_max.filter(|max| others >= max.get()) else { return Ok(()) };
    let plan = tenant.plan.as_ref().map_or_else(String::new, |plan| format!(" (plan {plan})"));
    let detail = format!("the tenant {} may have {max} endpoints{plan}", tenant.id);
    Err(ApiError::detailed(Code::EndpointsLimit, detail))
}

fn within(others: u32, profile: &Profile) -> Result<(), ApiError> {
    let Some(max) = profile.endpoint.active_max else { return Ok(()) };
    if others < max.get() {
        return Ok(());
    }
    let detail = format!("the profile {} allows {max} active endpoints of a tenant", profile.name);
    Err(ApiError::detailed(Code::ActiveEndpointsLimit, detail))
}

/// Changes an endpoint's state.
fn with_state(endpoint: &Endpoint, state: EndpointState, now: Timestamp) -> Edited<Endpoint> {
    if endpoint.state == state {
        return Edited::Unchanged;
    }
    Edited::Changed(Endpoint { state, updated_at: now, ..endpoint.clone() })
}
