//! Who calls, and what they may do.
//!
//! ```text
//! no valid key ─▶ 401 · another tenant's thing ─▶ 404, as if it were absent · role too small ─▶ 403
//! ```
//!
//! A handler names what it needs in the type of its argument ([`InTenant`], [`Operator`]), so that
//! there is none that forgets to ask.

use std::marker::PhantomData;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use fanfare_domain::{ApiKey, KeyId, Role, Tenant, TenantId, TraceContext};

use crate::{
    app::{App, trace_of},
    directory::Revised,
    error::{ApiError, Code},
    secret_key,
};

/// Why a change is made, in the caller's words, for those who read the configuration's history.
pub(crate) const REASON: HeaderName = HeaderName::from_static("fanfare-reason");
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The key that the request came with.
    pub(crate) key: KeyId,
    /// Why the request is made; may be empty.
    pub(crate) reason: String,
    /// The trace that the request belongs to.
    pub(crate) trace: TraceContext,
    tenant: Option<TenantId>,
    role: Role,
}

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It looks.
    Read,
    /// It changes configuration.
    Write,
    /// It publishes an event.
    Publish,
}

/// Stands for an [`Action`] in a handler's type.
pub(crate) trait Permission: Send + Sync {
    /// What the handler does.
    const ACTION: Action;
}

/// The handler looks.
pub(crate) struct Reads;
/// The handler changes configuration.
pub(crate) struct Writes;
/// The handler publishes an event.
pub(crate) struct Publishes;

impl Permission for Reads {
    const ACTION: Action = Action::Read;
}
impl Permission for Writes {
    const ACTION: Action = Action::Write;
}
impl Permission for Publishes {
    const ACTION: Action = Action::Publish;
}

/// A caller that may do this with the tenant of the path, which exists.
pub(crate) struct InTenant<P> {
    /// Who calls.
    pub(crate) caller: Caller,
    /// The tenant.
    pub(crate) tenant: Revised<Tenant>,
    permission: PhantomData<P>,
}

/// A caller of the operator's that may do this.
pub(crate) struct Operator<P> {
    /// Who calls.
    pub(crate) caller: Caller,
    permission: PhantomData<P>,
}

/// A caller of the operator's that may look, as far as this process knows: it is not asked whether
/// the key was deleted a moment ago, so that it can look also while the log is away.
pub(crate) struct Watcher;

impl Caller {
    fn new(key: &ApiKey, headers: &HeaderMap) -> Self {
        let reason = headers.get(REASON).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reason = reason.get(..reason.len().min(REASON_BYTES_MAX)).unwrap_or_default();
        Self {
            key: key.id,
            reason: String::from(reason),
            trace: trace_of(headers),
            tenant: key.tenant.clone(),
            role: key.role,
        }
    }

    fn sees(&self, tenant: &TenantId) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }

    fn may(&self, action: Action) -> Result<(), ApiError> {
        let allowed = match self.role {
            Role::Admin => true,
            Role::Publish => action == Action::Publish,
            Role::Read => action == Action::Read,
        };
        if allowed { Ok(()) } else { Err(Code::Forbidden.into()) }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = bearer(&parts.headers).ok_or(Code::Unauthenticated)?;
        let hash = secret_key::hash(text);
        let find = || app.directory.read(|directory| directory.key_with(&hash, app.now()));
        let mut key = find();
        if key.is_none() {
            // It may have been made elsewhere a moment ago.
            app.confirm().await?;
            key = find();
        }
        let key = key.ok_or(Code::Unauthenticated)?;
        Ok(Self::new(&key, &parts.headers))
    }
}

impl<P: Permission> FromRequestParts<App> for InTenant<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let tenant = path_param(parts, app, "tenant").await?;
        let tenant: TenantId = tenant.parse().map_err(|_| Code::TenantNotFound)?;
        if !caller.sees(&tenant) {
            return Err(Code::TenantNotFound.into());
        }
        caller.may(P::ACTION)?;
        let tenant = find_tenant(app, &tenant, P::ACTION).await?.ok_or(Code::TenantNotFound)?;
        Ok(Self { caller, tenant, permission: PhantomData })
    }
}

impl<P: Permission> FromRequestParts<App> for Operator<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.tenant.is_some() {
            return Err(Code::Forbidden.into());
        }
        caller.may(P::ACTION)?;
        app.confirm().await?;
        Ok(Self { caller, permission: PhantomData })
    }
}

impl FromRequestParts<App> for Watcher {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if caller.tenant.is_some() {
            return Err(Code::Forbidden.into());
        }
        caller.may(Action::Read).map(|()| Self)
    }
}

impl<P> InTenant<P> {
    /// Refuses a tenant's own keys: what follows is the operator's to do.
    pub(crate) fn by_operator(&self) -> Result<(), ApiError> {
        if self.caller.tenant.is_none() { Ok(()) } else { Err(Code::Forbidden.into()) }
    }

    /// Returns the tenant's id.
    pub(crate) fn id(&self) -> &TenantId {
        &self.tenant.value.id
    }
}

/// Returns the value of a path's parameter, decoded.
pub(crate) async fn path_param(
    parts: &mut Parts,
    app: &App,
    name: &str,
) -> Result<String, ApiError> {
    let params = RawPathParams::from_request_parts(parts, app).await.map_err(|_| Code::NotFound)?;
    let found = params.iter().find(|(own, _)| *own == name);
    found.map(|(_, value)| String::from(value)).ok_or_else(|| Code::NotFound.into())
}

/// Publishing looks first and asks only if the tenant is not there: ingest checks it anyway.
async fn find_tenant(
    app: &App,
    id: &TenantId,
    action: Action,
) -> Result<Option<Revised<Tenant>>, ApiError> {
    let find = || app.directory.read(|directory| directory.tenant(id));
    if action == Action::Publish
        && let Some(tenant) = find()
    {
        return Ok(Some(tenant));
    }
    app.confirm().await?;
    Ok(find())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
    let text = text.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && secret_key::is_key(text)).then_some(text)
}
