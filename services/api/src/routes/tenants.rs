//! Tenants: made and changed by the operator, seen by their own keys.

pub(crate) mod expunge;
mod plan;

use std::{num::NonZeroU32, sync::Arc};

use axum::{extract::State, http::StatusCode};
use fanfare_domain::{
    Entity, Tenant, TenantId,
    profile::Profile,
    tenant::{Expunge, ExpungeStage, UnknownTypes},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Edited},
    caller::{Caller, InTenant, Operator, Reads, Writes},
    directory::Revised,
    error::{ApiError, Code},
    etag::IfMatch,
    expunge::rests_until,
    extract::{Body, Params, Patched},
    limits,
    page::{Page, Paging},
    reply::{Created, Tagged},
    routes::endpoints::RateLimitView,
    uses::forget,
};

use plan::Limits;

/// How many things of a deleted tenant are looked for at once.
const CLEAR_BATCH: usize = 100;

/// A customer of the operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub(crate) struct TenantView {
    /// Identifies the tenant.
    #[schema(example = "acme")]
    id: String,
    /// What people call it; may be empty.
    name: String,
    /// The profile that its webhooks follow.
    #[schema(example = "standard-webhooks")]
    profile: String,
    /// How the first attempts of its deliveries are spread, all its endpoints together; `null` for
    /// not at all.
    #[schema(required)]
    rate_limit: Option<RateLimitView>,
    /// The plan of its profile that its limits were taken from; `null` for none.
    #[schema(required, example = "starter")]
    plan: Option<String>,
    /// How many endpoints it may have, whatever their state; `null` for any number.
    #[schema(required, minimum = 1)]
    endpoints_max: Option<u32>,
    /// What becomes of its events whose type is in no catalogue.
    unknown_event_types: UnknownTypesName,
    /// When it was created.
    #[schema(format = DateTime)]
    created_at: String,
}

/// A tenant to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// Identifies the tenant, in every path and subject: 1 to 64 of the characters `a-z A-Z 0-9 - _`,
    /// beginning with a letter or digit. It cannot be changed.
    #[schema(example = "acme")]
    id: String,
    /// What people call it; up to 256 bytes.
    #[serde(default)]
    name: String,
    /// The profile that its webhooks follow; `standard-webhooks` if left out. It is fixed once the
    /// tenant has endpoints.
    profile: Option<String>,
    /// How the first attempts of its deliveries are spread, all its endpoints together; not at all
    /// if left out. When an event is routed, each of its deliveries gets a time before which it is
    /// not begun. What is later than that for another reason, for example after a pause, is not
    /// spread again, and what is tried again does not count. What would have to wait for more than
    /// seven days is spread no further, and becomes due after seven days.
    rate_limit: Option<RateLimitView>,
    /// One of its profile's plans, from which those limits are taken that are not given here: how
    /// many endpoints, and how many deliveries a second.
    #[schema(example = "starter")]
    plan: Option<String>,
    /// How many endpoints it may have, whatever their state; any number if left out.
    #[schema(minimum = 1, maximum = 1_000_000)]
    endpoints_max: Option<u32>,
    /// What becomes of its events whose type is in no catalogue; `allow` if left out.
    unknown_event_types: Option<UnknownTypesName>,
}

/// What to change about a tenant (RFC 7396); what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantPatch {
    /// What people call it; up to 256 bytes.
    name: Option<String>,
    /// The profile that its webhooks follow. It is fixed once the tenant has endpoints.
    profile: Option<String>,
    /// How the first attempts of its deliveries are spread; `null` for not at all. It holds for
    /// events that are routed from then on; what was routed before keeps its times, and does not
    /// count against a limit that was set after it.
    #[serde(default)]
    #[schema(value_type = Option<RateLimitView>)]
    rate_limit: Patched<RateLimitView>,
    /// One of its profile's plans: `endpoints_max` and `rate_limit` become the plan's, unless they
    /// are given too; `null` for no plan and no limits.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    plan: Patched<String>,
    /// How many endpoints it may have, whatever their state; `null` for any number. Those that it
    /// has stay.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    endpoints_max: Patched<u32>,
    /// What becomes of its events whose type is in no catalogue.
    unknown_event_types: Option<UnknownTypesName>,
}

/// What becomes of events whose type is neither in the tenant's catalogue nor in the installation's.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = UnknownEventTypes)]
enum UnknownTypesName {
    /// They are taken.
    #[default]
    Allow,
    /// They are refused.
    Refuse,
}

impl UnknownTypesName {
    const fn of(unknown: UnknownTypes) -> Self {
        match unknown {
            UnknownTypes::Allowed => Self::Allow,
            UnknownTypes::Refused => Self::Refuse,
        }
    }

    const fn admit(self) -> UnknownTypes {
        match self {
            Self::Allow => UnknownTypes::Allowed,
            Self::Refuse => UnknownTypes::Refused,
        }
    }
}

impl TenantView {
    fn of(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.clone(),
            profile: tenant.profile.clone(),
            rate_limit: tenant.rate_limit.map(RateLimitView::of),
            plan: tenant.plan.clone(),
            endpoints_max: tenant.endpoints_max.map(NonZeroU32::get),
            unknown_event_types: UnknownTypesName::of(tenant.unknown_types),
            created_at: tenant.created_at.to_string(),
        }
    }
}

fn tagged(tenant: &Revised<Tenant>) -> Tagged<TenantView> {
    Tagged { revision: tenant.revision, body: TenantView::of(&tenant.value) }
}

fn known_profile(app: &App, name: Option<String>) -> Result<String, ApiError> {
    let name = name.unwrap_or_else(|| String::from(Profile::DEFAULT));
    if app.profiles.get(&name).is_none() {
        let known: Vec<&str> = app.profiles.iter().map(|profile| profile.name.as_str()).collect();
        return Err(ApiError::value("profile", format!("it is one of {}", known.join(", "))));
    }
    Ok(name)
}

/// Creates a tenant.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, body = TenantView, headers(("ETag"), ("Location")))),
)]
pub(crate) async fn create_tenant(
    State(app): State<App>,
    access: Operator<Writes>,
    Body(new): Body<NewTenant>,
) -> Result<Created<TenantView>, ApiError> {
    let id: TenantId = new.id.parse().map_err(|why| ApiError::value("id", why))?;
    limits::text("name", &new.name, limits::NAME_BYTES_MAX)?;
    let profile = known_profile(&app, new.profile)?;
    let mut limits = Limits::of_plan(app.profile(&profile)?, new.plan)?;
    limits.replace(new.rate_limit.as_ref(), new.endpoints_max)?;
    if app.directory.read(|directory| directory.tenant(&id).is_some()) {
        return Err(Code::TenantExists.into());
    }
    let expunge = earlier(&app, &id).await?;
    // What a deletion that was cut short has left must not become this tenant's.
    clear(&app, &access.caller, &id).await?;
    let vacancy = app.directory.read(|directory| directory.tenant_vacancy(&id));
    let unknown_types = new.unknown_event_types.unwrap_or_default().admit();
    let Limits { plan, rate_limit, endpoints_max } = limits;
    let value = Arc::new(Tenant {
        id,
        name: new.name,
        profile,
        rate_limit,
        plan,
        endpoints_max,
        unknown_types,
        created_at: app.now(),
        expunge,
    });
    let entity = Entity::Tenant(Arc::clone(&value));
    let revision = match app.write(access.caller.change(entity, false), vacancy).await {
        Err(ApiError::Plain(Code::ChangedMeanwhile)) => return Err(Code::TenantExists.into()),
        other => other?,
    };
    let location = format!("/v1/tenants/{}", value.id);
    Ok(Created { location, tagged: tagged(&Revised { value, revision }) })
}

/// Lists the tenants, in the order of their ids.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants", params(Paging),
    responses((status = 200, body = Page<TenantView>)),
)]
pub(crate) async fn list_tenants(
    State(app): State<App>,
    _access: Operator<Reads>,
    Params(paging): Params<Paging>,
) -> Result<axum::Json<Page<TenantView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<TenantId>()?);
    let found = app.directory.read(|directory| directory.tenants(after.as_ref(), limit + 1));
    let page = Page::of(
        found,
        limit,
        |tenant| tenant.value.id.clone(),
        |tenant| TenantView::of(&tenant.value),
    );
    Ok(axum::Json(page))
}

/// Shows a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 200, body = TenantView, headers(("ETag")))),
)]
pub(crate) async fn get_tenant(access: InTenant<Reads>) -> Tagged<TenantView> {
    tagged(&access.tenant)
}

/// Changes a tenant.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = TenantPatch,
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = TenantView, headers(("ETag")))),
)]
pub(crate) async fn update_tenant(
    State(app): State<App>,
    access: InTenant<Writes>,
    if_match: IfMatch,
    Body(patch): Body<TenantPatch>,
) -> Result<Tagged<TenantView>, ApiError> {
    access.by_operator()?;
    if let Some(name) = &patch.name {
        limits::text("name", name, limits::NAME_BYTES_MAX)?;
    }
    let profile = patch.profile.map(|name| known_profile(&app, Some(name))).transpose()?;
    let id = access.id();
    let edit = |tenant: &Tenant| {
        let mut next = tenant.clone();
        next.name = patch.name.clone().unwrap_or(next.name);
        next.profile = profile.clone().unwrap_or(next.profile);
        let profile = app.profile(&next.profile)?;
        plan::apply(&mut next, tenant, &patch.plan, profile)?;
        patch.rate_limit.apply(&mut next.rate_limit, RateLimitView::admit)?;
        patch.endpoints_max.apply(&mut next.endpoints_max, |count| plan::endpoints_max(*count))?;
        if let Some(unknown) = patch.unknown_event_types {
            next.unknown_types = unknown.admit();
        }
        if next.profile != tenant.profile && has_endpoints(&app, id) {
            return Err(Code::ProfileFixed.into());
        }
        Ok(if next == *tenant { Edited::Unchanged } else { Edited::Changed(next) })
    };
    let edited =
        app.edit(&access.caller, &if_match, |directory| directory.tenant(id), edit).await?;
    edited.as_ref().map(tagged).ok_or_else(|| Code::TenantNotFound.into())
}

/// Deletes a tenant that has no endpoints, with its event types and keys.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("If-Match" = Option<String>, Header, description = "Delete this version only"),
    ),
    responses((status = 204)),
)]
pub(crate) async fn delete_tenant(
    State(app): State<App>,
    access: InTenant<Writes>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    access.by_operator()?;
    let id = access.id();
    if has_endpoints(&app, id) {
        return Err(Code::TenantNotEmpty.into());
    }
    let find = |directory: &crate::directory::Directory| directory.tenant(id);
    if !app.delete(&access.caller, &if_match, find).await? {
        return Err(Code::TenantNotFound.into());
    }
    // Its keys, and what was made while it was being deleted.
    clear(&app, &access.caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a new tenant of an id has to know of one that was expunged; none can be made before that is
/// done, and nothing is left that could be taken for the new one's.
async fn earlier(app: &App, id: &TenantId) -> Result<Option<Expunge>, ApiError> {
    let found = app.directory.read(|directory| directory.expunges().of(id).cloned());
    let Some(expunge) = found.map(|found| found.expunge) else { return Ok(None) };
    let end = match expunge.stage {
        ExpungeStage::Running => return Err(Code::TenantExpunging.into()),
        ExpungeStage::Finished(at) | ExpungeStage::Earlier(at) => rests_until(app, at),
    };
    if app.now() < end {
        let detail = format!("{id} can be used again from {end} on: until then, choose another id");
        return Err(ApiError::detailed(Code::TenantExpungedRecently, detail));
    }
    // What was stored before the new tenant is not its own, whenever that was.
    let through = expunge.through.max(app.log.events_last().await?);
    Ok(expunge.earlier().map(|earlier| Expunge { through, ..earlier }))
}

fn has_endpoints(app: &App, id: &TenantId) -> bool {
    app.directory.read(|directory| directory.has_endpoints(id))
}

/// Deletes the endpoints, event types and keys of a tenant that is not there.
async fn clear(app: &App, caller: &Caller, id: &TenantId) -> Result<(), ApiError> {
    let any = IfMatch::Absent;
    loop {
        let endpoints = app.directory.read(|directory| directory.endpoints(id, None, CLEAR_BATCH));
        let keys = app.directory.read(|directory| directory.keys(Some(id), None, CLEAR_BATCH));
        let types =
            app.directory.read(|directory| directory.event_types(Some(id), None, CLEAR_BATCH));
        if endpoints.is_empty() && types.is_empty() && keys.is_empty() {
            return Ok(());
        }
        for endpoint in endpoints {
            app.delete(caller, &any, |directory| directory.endpoint(id, endpoint.value.id)).await?;
        }
        for entry in types {
            let event_type = &entry.value.event_type;
            app.delete(caller, &any, |directory| directory.event_type(Some(id), event_type))
                .await?;
        }
        for key in keys {
            app.delete(caller, &any, |directory| directory.key(key.value.id)).await?;
            forget(app, key.value.id).await;
        }
    }
}
