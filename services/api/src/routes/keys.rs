//! API keys: an operator's, and those of a tenant. The key itself is shown once.

pub(crate) mod rate;

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{ApiKey, Entity, KeyId, Role, TenantId, Timestamp};
use fanfare_service::random_bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::rate::KeyRateView;
use crate::{
    app::App,
    caller::{Caller, InTenant, Operator, ReadsKeys, WritesKeys},
    directory::{Directory, Revised},
    error::{ApiError, Code},
    etag::IfMatch,
    extract::{Body, Params, PathId},
    limits,
    page::{Page, Paging},
    reply::{Created, Tagged},
    routes::endpoints::RateLimitView,
    secret_key,
    uses::{forget, last_uses},
};

/// How many keys a tenant can have, and how many the operator.
const KEYS_MAX: usize = 1_000;

/// What a key allows.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Role)]
pub(crate) enum RoleName {
    /// Everything.
    Admin,
    /// To publish events, and nothing else.
    Publish,
    /// To look, and nothing else.
    Read,
}

/// An API key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct KeyView {
    /// Identifies the key; it is not secret.
    #[schema(example = "key_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// What people call it; may be empty.
    name: String,
    /// Whose key it is; `null` for an operator's.
    #[schema(required)]
    tenant_id: Option<String>,
    /// What it allows.
    role: RoleName,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it stops working; `null` for never.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// When it was last used, to the hour; `null` if it was not.
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
    /// Whether it may show endpoints' secrets again.
    reveals_secrets: bool,
    /// How often it may ask; `null` for what the service's settings say.
    #[schema(required)]
    rate_limit: Option<RateLimitView>,
}

/// An API key at the only time at which it is shown.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKeyWithSecret)]
pub(crate) struct KeyWithSecret {
    #[serde(flatten)]
    view: KeyView,
    /// The key itself: keep it, it is not shown again.
    #[schema(example = "fk_…")]
    key: String,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewApiKey)]
pub(crate) struct NewKey {
    /// What people call it; up to 256 bytes.
    #[serde(default)]
    name: String,
    /// What it allows.
    role: RoleName,
    /// When it stops working (RFC 3339); never if left out.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Whether it may show endpoints' secrets again; an operator's with every right only.
    #[serde(default)]
    reveals_secrets: bool,
    /// How often it may ask; what the service's settings say if left out: 1,000 requests a second for a
    /// tenant's key, any number for an operator's. A tenant's own key can give no more than it has.
    rate_limit: Option<KeyRateView>,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Admin => Self::Admin,
            RoleName::Publish => Self::Publish,
            RoleName::Read => Self::Read,
        }
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Publish => Self::Publish,
            Role::Read => Self::Read,
        }
    }
}

impl KeyView {
    fn of(key: &ApiKey, last_used: Option<Timestamp>) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name.clone(),
            tenant_id: key.tenant.as_ref().map(TenantId::to_string),
            role: key.role.into(),
            created_at: key.created_at.to_string(),
            expires_at: key.expires_at.map(|end| end.to_string()),
            last_used_at: last_used.map(|hour| hour.to_string()),
            reveals_secrets: key.reveals_secrets,
            rate_limit: key.rate_limit.map(RateLimitView::of),
        }
    }
}

/// Makes a key for a tenant.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/keys", tag = "keys", request_body = NewKey,
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 201, body = KeyWithSecret, headers(("ETag"), ("Location")))),
)]
pub(crate) async fn create_tenant_key(
    State(app): State<App>,
    access: InTenant<WritesKeys>,
    Body(new): Body<NewKey>,
) -> Result<Created<KeyWithSecret>, ApiError> {
    let created = create(&app, &access.caller, Some(access.id()), new).await?;
    if !access.is_there(&app) {
        // The tenant was deleted meanwhile: whichever of the two comes last deletes the key.
        app.withdraw(&access.caller, |directory| directory.key(created.id)).await?;
        return Err(Code::TenantNotFound.into());
    }
    Ok(created.reply)
}

/// Lists a tenant's keys, oldest first.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/keys", tag = "keys",
    params(("tenant" = String, Path, description = "The tenant's id"), Paging),
    responses((status = 200, body = Page<KeyView>)),
)]
pub(crate) async fn list_tenant_keys(
    State(app): State<App>,
    access: InTenant<ReadsKeys>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<KeyView>>, ApiError> {
    list(&app, Some(access.id()), &paging).await
}

/// Shows a tenant's key, but for the key itself.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/keys/{key}", tag = "keys",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("key" = String, Path, description = "The key's id"),
    ),
    responses((status = 200, body = KeyView, headers(("ETag")))),
)]
pub(crate) async fn get_tenant_key(
    State(app): State<App>,
    access: InTenant<ReadsKeys>,
    PathId(id): PathId<KeyId>,
) -> Result<Tagged<KeyView>, ApiError> {
    get(&app, Some(access.id()), id).await
}

/// Deletes a tenant's key: it stops working at once.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/keys/{key}", tag = "keys",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("key" = String, Path, description = "The key's id"),
    ),
    responses((status = 204)),
)]
pub(crate) async fn delete_tenant_key(
    State(app): State<App>,
    access: InTenant<WritesKeys>,
    PathId(id): PathId<KeyId>,
) -> Result<StatusCode, ApiError> {
    delete(&app, &access.caller, Some(access.id()), id).await
}

/// Makes an operator's key.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, body = KeyWithSecret, headers(("ETag"), ("Location")))),
)]
pub(crate) async fn create_operator_key(
    State(app): State<App>,
    access: Operator<WritesKeys>,
    Body(new): Body<NewKey>,
) -> Result<Created<KeyWithSecret>, ApiError> {
    Ok(create(&app, &access.caller, None, new).await?.reply)
}

/// Lists the operator's keys, oldest first.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", params(Paging),
    responses((status = 200, body = Page<KeyView>)),
)]
pub(crate) async fn list_operator_keys(
    State(app): State<App>,
    _access: Operator<ReadsKeys>,
    Params(paging): Params<Paging>,
) -> Result<Json<Page<KeyView>>, ApiError> {
    list(&app, None, &paging).await
}

/// Shows an operator's key, but for the key itself.
#[utoipa::path(
    get, path = "/v1/keys/{key}", tag = "keys",
    params(("key" = String, Path, description = "The key's id")),
    responses((status = 200, body = KeyView, headers(("ETag")))),
)]
pub(crate) async fn get_operator_key(
    State(app): State<App>,
    _access: Operator<ReadsKeys>,
    PathId(id): PathId<KeyId>,
) -> Result<Tagged<KeyView>, ApiError> {
    get(&app, None, id).await
}

/// Deletes an operator's key: it stops working at once, and is not admitted again.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "keys",
    params(("key" = String, Path, description = "The key's id")),
    responses((status = 204)),
)]
pub(crate) async fn delete_operator_key(
    State(app): State<App>,
    access: Operator<WritesKeys>,
    PathId(id): PathId<KeyId>,
) -> Result<StatusCode, ApiError> {
    delete(&app, &access.caller, None, id).await
}

struct CreatedKey {
    id: KeyId,
    reply: Created<KeyWithSecret>,
}

async fn create(
    app: &App,
    caller: &Caller,
    tenant: Option<&TenantId>,
    new: NewKey,
) -> Result<CreatedKey, ApiError> {
    limits::text("name", &new.name, limits::NAME_BYTES_MAX)?;
    let rate_limit = rate::of_new(app, caller, new.rate_limit.as_ref())?;
    let now = app.now();
    let expires_at = new.expires_at.as_deref().map(|end| expiry(end, now)).transpose()?;
    if new.reveals_secrets && (tenant.is_some() || Role::from(new.role) != Role::Admin) {
        let why = "only an operator's key with every right can";
        return Err(ApiError::value("reveals_secrets", why));
    }
    let text = secret_key::generate_key(random_bytes());
    let key = Arc::new(ApiKey {
        id: KeyId::new(now, random_bytes()),
        name: new.name,
        tenant: tenant.cloned(),
        role: new.role.into(),
        sha256: secret_key::hash(&text),
        created_at: now,
        expires_at,
        reveals_secrets: new.reveals_secrets,
        rate_limit,
    });
    let look = |directory: &Directory| {
        if directory.keys_count(tenant) >= KEYS_MAX {
            return Err(Code::KeysLimit.into());
        }
        Ok((Entity::ApiKey(Arc::clone(&key)), 0))
    };
    let revision = app.write_counted(caller, look).await?;
    let place = tenant.map_or_else(String::new, |tenant| format!("/tenants/{tenant}"));
    let location = format!("/v1{place}/keys/{}", key.id);
    let body = KeyWithSecret { view: KeyView::of(&key, None), key: text };
    Ok(CreatedKey { id: key.id, reply: Created { location, tagged: Tagged { revision, body } } })
}

fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    match Timestamp::parse(text) {
        Some(end) if end > now => Ok(end),
        Some(_) => Err(ApiError::value("expires_at", "it is in the past")),
        None => Err(ApiError::value("expires_at", "it is not a time as of RFC 3339")),
    }
}

async fn list(
    app: &App,
    tenant: Option<&TenantId>,
    paging: &Paging,
) -> Result<Json<Page<KeyView>>, ApiError> {
    let (limit, after) = (paging.limit()?, paging.after::<KeyId>()?);
    let found = app.directory.read(|directory| directory.keys(tenant, after.as_ref(), limit + 1));
    let used = last_uses(app, found.iter().map(|key| key.value.id).collect()).await;
    let found: Vec<_> = found.into_iter().zip(used).collect();
    let show = |(key, used): &(Revised<ApiKey>, _)| KeyView::of(&key.value, *used);
    Ok(Json(Page::of(found, limit, |(key, _)| key.value.id, show)))
}

async fn get(app: &App, tenant: Option<&TenantId>, id: KeyId) -> Result<Tagged<KeyView>, ApiError> {
    let own =
        |directory: &Directory| directory.key(id).filter(|key| key.value.tenant.as_ref() == tenant);
    let Revised { value: key, revision } = app.directory.read(own).ok_or(Code::KeyNotFound)?;
    let used = last_uses(app, vec![id]).await.into_iter().next().flatten();
    Ok(Tagged { revision, body: KeyView::of(&key, used) })
}

async fn delete(
    app: &App,
    caller: &Caller,
    tenant: Option<&TenantId>,
    id: KeyId,
) -> Result<StatusCode, ApiError> {
    let own =
        |directory: &Directory| directory.key(id).filter(|key| key.value.tenant.as_ref() == tenant);
    let deleted = app.delete(caller, &IfMatch::Absent, own).await?;
    if !deleted {
        return Err(Code::KeyNotFound.into());
    }
    forget(app, id).await;
    Ok(StatusCode::NO_CONTENT)
}
