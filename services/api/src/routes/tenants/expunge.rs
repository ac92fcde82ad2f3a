//! Removing everything that is kept of a tenant.

use std::{collections::BTreeMap, num::NonZeroU32};

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{
    Entity, Tenant, TenantId, Timestamp,
    profile::Profile,
    tenant::{Expunge, ExpungeStage, UnknownTypes},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{Caller, OnTenant, Reads, Writes},
    directory::{Directory, Expunging},
    error::{ApiError, Code},
    expunge::{is_audited, rests_until},
    extract::Body,
};

/// How often it is begun again if the tenant is changed at the same time.
const TRIES_MAX: usize = 8;

/// That a tenant is to be expunged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewExpunge {
    /// The tenant's id once more: there is no way back.
    #[schema(example = "acme")]
    confirm: String,
}

/// The removal of everything that was kept of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Expunge)]
pub(crate) struct ExpungeView {
    /// The tenant's id.
    #[schema(example = "acme")]
    tenant_id: String,
    /// How it stands.
    state: ExpungeState,
    /// Who asked for it: a key's id.
    #[schema(example = "key_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    who: String,
    /// Why, in their words (the header `Fanfare-Reason`); may be empty.
    why: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    begun_at: String,
    /// When it was done; `null` while it goes on.
    #[schema(required, format = DateTime)]
    finished_at: Option<String>,
    /// How many things of each kind were removed, once it is done: `endpoints`, `event_types`, `keys`,
    /// `replays`, `revisions` of the configuration, `inbox` (messages that were not taken yet), `events`,
    /// `rejected`, `dead_letters`, `idempotency_keys`. What was removed by a process that was killed
    /// meanwhile is not counted.
    removed: BTreeMap<String, u64>,
    /// What it waits for that may last: `delivery_log`, which has to take the changes into the audit
    /// before they are removed; `null` if it waits for nothing of this kind.
    #[schema(required)]
    waits_for: Option<&'static str>,
    /// From when on the id can be used again; `null` while it goes on.
    #[schema(required, format = DateTime)]
    id_rests_until: Option<String>,
    /// Whether the delivery log has forgotten the tenant too; `null` if that cannot be found out now.
    #[schema(required)]
    delivery_log_forgot: Option<bool>,
}

/// How the removal of a tenant stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ExpungeState {
    /// It goes on.
    Running,
    /// It is done.
    Finished,
}

/// Removes everything that is kept of a tenant, for good. Its events are refused from then on, its
/// keys do not work any more, its endpoints are deleted and what was to be delivered is cancelled;
/// then its events, dead letters and rejected messages are removed, and all that the configuration,
/// the audit and the delivery log have of it. The audit keeps that it was done, by whom and why, and
/// of the changes before who made them and when.
///
/// It goes on by itself, also after a restart: ask how far it is. A tenant that was deleted before can
/// be expunged too. Once it is finished, it can be asked for again, for what producers have sent since.
/// The id rests then: no tenant of it can be created before `id_rests_until`.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/expunge", tag = "tenants", request_body = NewExpunge,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 202, body = ExpungeView)),
)]
pub(crate) async fn expunge_tenant(
    State(app): State<App>,
    access: OnTenant<Writes>,
    Body(new): Body<NewExpunge>,
) -> Result<(StatusCode, Json<ExpungeView>), ApiError> {
    if new.confirm != access.tenant.as_str() {
        return Err(ApiError::value("confirm", "it is not the tenant's id"));
    }
    for _ in 0..TRIES_MAX {
        let (tenant, revision) = match app.directory.read(|it| standing(it, &access.tenant)) {
            Standing::Unknown => return Err(Code::TenantNotFound.into()),
            Standing::Running => return show(&app, &access.tenant).await.map(accepted),
            Standing::There(tenant, revision) => (tenant, revision),
        };
        match begin(&app, &access.caller, &tenant, revision).await {
            Ok(()) => return show(&app, &access.tenant).await.map(accepted),
            Err(ApiError::Plain(Code::ChangedMeanwhile)) => app.confirm().await?,
            Err(other) => return Err(other),
        }
    }
    Err(Code::ChangedMeanwhile.into())
}

/// Shows how the removal of a tenant stands, also long after it.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/expunge", tag = "tenants",
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 200, body = ExpungeView)),
)]
pub(crate) async fn get_expunge(
    State(app): State<App>,
    access: OnTenant<Reads>,
) -> Result<Json<ExpungeView>, ApiError> {
    show(&app, &access.tenant).await
}

/// What there is of a tenant's id.
enum Standing {
    /// Nothing, and never was.
    Unknown,
    /// It is being removed.
    Running,
    /// It is there, or was deleted: what is left of it, and the revision to go on from.
    There(Tenant, u64),
}

fn standing(directory: &Directory, id: &TenantId) -> Standing {
    if let Some(there) = directory.tenant(id) {
        return Standing::There(there.value.redacted(), there.revision);
    }
    let expunging = directory.expunges().of(id);
    if expunging.is_some_and(Expunging::is_running) {
        return Standing::Running;
    }
    match directory.tenant_vacancy(id) {
        0 => Standing::Unknown,
        revision => {
            let tenant = expunging.map_or_else(|| nobody(id), |it| it.tenant.redacted());
            Standing::There(tenant, revision)
        }
    }
}

/// What is left of a tenant that was deleted.
fn nobody(id: &TenantId) -> Tenant {
    Tenant {
        id: id.clone(),
        name: String::new(),
        profile: String::from(Profile::DEFAULT),
        rate_limit: None,
        plan: None,
        endpoints_max: None::<NonZeroU32>,
        unknown_types: UnknownTypes::Allowed,
        created_at: Timestamp::EPOCH,
        expunge: None,
    }
}

/// Writes the record that begins it: the tenant is gone from then on.
async fn begin(app: &App, caller: &Caller, tenant: &Tenant, revision: u64) -> Result<(), ApiError> {
    let expunge = Expunge {
        stage: ExpungeStage::Running,
        through: app.log.events_last().await?,
        begun_at: app.now(),
        removed: BTreeMap::new(),
    };
    let tenant = Tenant { expunge: Some(expunge), ..tenant.clone() };
    let change = caller.change(Entity::Tenant(tenant.into()), true);
    app.write(change, revision).await?;
    Ok(())
}

fn accepted(view: Json<ExpungeView>) -> (StatusCode, Json<ExpungeView>) {
    (StatusCode::ACCEPTED, view)
}

async fn show(app: &App, id: &TenantId) -> Result<Json<ExpungeView>, ApiError> {
    let found = app.directory.read(|directory| directory.expunges().of(id).cloned());
    let found = found.ok_or(Code::TenantNotFound)?;
    let forgot = match app.delivery_log().await {
        Ok(store) => store.is_expunged(id, found.revision).await.ok(),
        Err(_) => None,
    };
    let (state, finished_at) = match found.expunge.stage {
        ExpungeStage::Running => (ExpungeState::Running, None),
        ExpungeStage::Finished(at) | ExpungeStage::Earlier(at) => {
            (ExpungeState::Finished, Some(at))
        }
    };
    let waits = finished_at.is_none() && !is_audited(app, found.revision).await.unwrap_or_default();
    Ok(Json(ExpungeView {
        tenant_id: id.to_string(),
        state,
        who: found.actor,
        why: found.reason,
        begun_at: found.expunge.begun_at.to_string(),
        finished_at: finished_at.map(|at| at.to_string()),
        waits_for: waits.then_some("delivery_log"),
        id_rests_until: finished_at.map(|at| rests_until(app, at).to_string()),
        removed: found.expunge.removed,
        delivery_log_forgot: forgot,
    }))
}
