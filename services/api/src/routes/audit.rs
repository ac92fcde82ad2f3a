//! The audit: who changed what of the configuration, when and why.

use axum::{Json, extract::State};
use fanfare_delivery_log::{Action, AuditEntry, AuditFilter};
use fanfare_domain::TenantId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::{InTenant, Operator, Reads},
    error::ApiError,
    extract::Params,
    limits,
    page::{Page, Paging, cursor},
    routes::deliveries::search::{parsed, time},
};

/// The longest text that is looked for, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Which changes.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Of this tenant, and of what belongs to it.
    tenant: Option<String>,
    /// Of things of this kind: `tenant`, `endpoint`, `event-type`, `profile` or `key`.
    #[param(example = "endpoint")]
    kind: Option<String>,
    /// Of the thing with this id.
    id: Option<String>,
    /// Made with this key, or by this service.
    who: Option<String>,
    /// Made at that time (RFC 3339) or later.
    since: Option<String>,
    /// Made before that time (RFC 3339).
    until: Option<String>,
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which changes of a tenant's.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TenantAuditQuery {
    /// Of things of this kind: `tenant`, `endpoint`, `event-type` or `key`.
    #[param(example = "endpoint")]
    kind: Option<String>,
    /// Of the thing with this id.
    id: Option<String>,
    /// Made with this key, or by this service.
    who: Option<String>,
    /// Made at that time (RFC 3339) or later.
    since: Option<String>,
    /// Made before that time (RFC 3339).
    until: Option<String>,
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A change of the configuration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct AuditView {
    /// The revision of the configuration that it made.
    revision: u64,
    /// When it was made.
    #[schema(format = DateTime)]
    at: String,
    /// Who made it: a key's id, or the name of a service.
    #[schema(example = "key_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    who: String,
    /// Why, in their words (the header `Fanfare-Reason`); may be empty.
    why: String,
    /// What was done.
    action: ActionName,
    /// The kind of thing: `tenant`, `endpoint`, `event-type`, `profile` or `key`.
    #[schema(example = "endpoint")]
    kind: String,
    /// The thing's id, name or type.
    id: String,
    /// Whose thing it is; `null` for the operator's.
    #[schema(required)]
    tenant_id: Option<String>,
    /// The thing before; `null` if it was created, or if that is not known any more. What is secret
    /// shows as a mark that is another one after each change.
    #[schema(value_type = serde_json::Value)]
    before: Option<Box<RawValue>>,
    /// The thing after; `null` if it was deleted.
    #[schema(value_type = serde_json::Value)]
    after: Option<Box<RawValue>>,
    /// The trace that the request belonged to: 32 hexadecimal digits; `null` if there is none.
    #[schema(required)]
    trace_id: Option<String>,
}

/// What was done with a thing.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AuditAction)]
enum ActionName {
    /// It was made.
    Created,
    /// It was changed.
    Updated,
    /// It was deleted.
    Deleted,
}

/// Lists the changes of the configuration, newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, body = Page<AuditView>)),
)]
pub(crate) async fn list_audit(
    State(app): State<App>,
    _access: Operator<Reads>,
    Params(query): Params<AuditQuery>,
) -> Result<Json<Page<AuditView>>, ApiError> {
    let tenant: Option<TenantId> = parsed("tenant", query.tenant.as_deref())?;
    let filter = AuditFilter {
        tenant,
        kind: text("kind", query.kind)?,
        entity: text("id", query.id)?,
        actor: text("who", query.who)?,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        above: 0,
    };
    page(&app, &filter, &Paging::new(query.limit, query.cursor)).await
}

/// Lists the changes of a tenant and of what belongs to it, newest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/audit", tag = "audit",
    params(("tenant" = String, Path, description = "The tenant's id"), TenantAuditQuery),
    responses((status = 200, body = Page<AuditView>)),
)]
pub(crate) async fn list_tenant_audit(
    State(app): State<App>,
    access: InTenant<Reads>,
    Params(query): Params<TenantAuditQuery>,
) -> Result<Json<Page<AuditView>>, ApiError> {
    // Before that it was another tenant, which was expunged.
    let above = app.directory.read(|directory| {
        directory.expunges().of(access.id()).map_or(0, |expunging| expunging.revision)
    });
    let filter = AuditFilter {
        tenant: Some(access.id().clone()),
        kind: text("kind", query.kind)?,
        entity: text("id", query.id)?,
        actor: text("who", query.who)?,
        since: time("since", query.since.as_deref())?,
        until: time("until", query.until.as_deref())?,
        above,
    };
    page(&app, &filter, &Paging::new(query.limit, query.cursor)).await
}

async fn page(
    app: &App,
    filter: &AuditFilter,
    paging: &Paging,
) -> Result<Json<Page<AuditView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<u64>()?);
    let found = app.delivery_log().await?.audit(filter, after, limit).await?;
    let data = app.directory.read(|directory| {
        // The tables may not know yet that a tenant was expunged.
        let is_of_expunged = |entry: &AuditEntry| {
            let last = entry.tenant.as_ref().and_then(|id| directory.expunges().of(id));
            last.is_some_and(|last| entry.revision < last.revision)
        };
        let shown = |entry: AuditEntry| {
            AuditView::of(if is_of_expunged(&entry) { entry.redacted() } else { entry })
        };
        found.entries.into_iter().map(shown).collect()
    });
    Ok(Json(Page { data, next_cursor: found.next.as_ref().map(cursor) }))
}

fn text(field: &str, text: Option<String>) -> Result<Option<String>, ApiError> {
    if let Some(text) = &text {
        limits::line(field, text, TEXT_BYTES_MAX)?;
    }
    Ok(text)
}

impl AuditView {
    fn of(entry: AuditEntry) -> Self {
        let raw = |text: Option<String>| text.and_then(|text| RawValue::from_string(text).ok());
        Self {
            revision: entry.revision,
            at: entry.recorded_at.to_string(),
            who: entry.actor,
            why: entry.reason,
            action: match entry.action {
                Action::Created => ActionName::Created,
                Action::Updated => ActionName::Updated,
                Action::Deleted => ActionName::Deleted,
            },
            kind: entry.kind,
            id: entry.entity,
            tenant_id: entry.tenant.map(|tenant| tenant.to_string()),
            before: raw(entry.before),
            after: raw(entry.after),
            trace_id: entry.trace_id,
        }
    }
}
