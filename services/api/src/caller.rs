//! Who calls, and what they may do.
//!
//! ```text
//! no valid key or token ─▶ 401 · another tenant's thing ─▶ 404, as if it were absent · role too small ─▶ 403
//! ```
//!
//! A handler names what it needs in the type of its argument ([`InTenant`], [`Operator`]), so that
//! there is none that forgets to ask.

mod write_flag;

use std::marker::PhantomData;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use fanfare_domain::{
    ApiKey, Change, Entity, KeyId, LinkId, Role, Tenant, TenantId, Timestamp, TraceContext,
};

pub(crate) use self::write_flag::WriteFlag;
use crate::{
    app::App,
    directory::Revised,
    error::{ApiError, Code},
    portal::{self, Link},
    secret_key, server,
    shares::Holder,
    trust::trace_of,
};

/// Why a change is made, in the caller's words, for those who read the configuration's history.
pub(crate) const REASON: HeaderName = HeaderName::from_static("fanfare-reason");
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 256;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What the request came with.
    pub(crate) credential: Credential,
    /// Why the request is made; may be empty.
    pub(crate) reason: String,
    /// The trace that the request belongs to.
    pub(crate) trace: TraceContext,
    tenant: Option<TenantId>,
    role: Role,
    /// What the token says, if it is one.
    link: Option<Link>,
    writes: WriteFlag,
}

/// What a request came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// An API key.
    Key {
        /// Which one.
        id: KeyId,
        /// Whether it may show secrets again.
        reveals_secrets: bool,
    },
    /// The token of a portal link.
    Link {
        /// Which one.
        id: LinkId,
        /// The key that made it.
        key: KeyId,
        /// Whom it was made for; may be empty.
        user: String,
    },
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
    /// It looks at keys.
    ReadKeys,
    /// It makes or deletes what lets callers in: keys and portal links.
    WriteKeys,
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
/// The handler looks at keys.
pub(crate) struct ReadsKeys;
/// The handler makes or deletes keys or portal links.
pub(crate) struct WritesKeys;

impl Permission for Reads {
    const ACTION: Action = Action::Read;
}
impl Permission for Writes {
    const ACTION: Action = Action::Write;
}
impl Permission for Publishes {
    const ACTION: Action = Action::Publish;
}
impl Permission for ReadsKeys {
    const ACTION: Action = Action::ReadKeys;
}
impl Permission for WritesKeys {
    const ACTION: Action = Action::WriteKeys;
}

/// A caller that may do this with the tenant of the path, which exists.
pub(crate) struct InTenant<P> {
    /// Who calls.
    pub(crate) caller: Caller,
    /// The tenant.
    pub(crate) tenant: Revised<Tenant>,
    permission: PhantomData<P>,
}

/// A caller of the operator's that may do this with the tenant of the path, which may be there or not.
pub(crate) struct OnTenant<P> {
    /// Who calls.
    pub(crate) caller: Caller,
    /// The tenant's id.
    pub(crate) tenant: TenantId,
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

/// Who calls, as far as this process knows before the request is looked at: it may have learnt too
/// late of a key that was made or deleted a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nobody that is known.
    Nobody,
    /// A tenant, or its user.
    Tenant,
    /// The operator.
    Operator,
}

impl Standing {
    /// Looks the caller of a request up.
    pub(crate) fn of(headers: &HeaderMap, app: &App) -> Self {
        let Some(text) = bearer(headers) else { return Self::Nobody };
        if portal::is_token(text) {
            let link = portal::read(app, text);
            let stands = |link| app.directory.read(|it| it.link_stands(&link, app.now()));
            return if link.is_some_and(stands) { Self::Tenant } else { Self::Nobody };
        }
        let hash = secret_key::hash(text);
        match app.directory.read(|directory| directory.key_with(&hash, app.now())) {
            None => Self::Nobody,
            Some(key) if key.tenant.is_some() => Self::Tenant,
            Some(_) => Self::Operator,
        }
    }
}

impl Caller {
    fn new(parts: &Parts, credential: Credential, tenant: Option<TenantId>, role: Role) -> Self {
        let headers = &parts.headers;
        let reason = headers.get(REASON).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reason = reason.get(..reason.len().min(REASON_BYTES_MAX)).unwrap_or_default();
        Self {
            credential,
            reason: String::from(reason),
            trace: trace_of(headers),
            tenant,
            role,
            link: None,
            writes: parts.extensions.get::<WriteFlag>().cloned().unwrap_or_default(),
        }
    }

    fn of_key(key: &ApiKey, parts: &Parts) -> Self {
        let credential = Credential::Key { id: key.id, reveals_secrets: key.reveals_secrets };
        Self::new(parts, credential, key.tenant.clone(), key.role)
    }

    fn of_link(link: Link, parts: &Parts) -> Self {
        let (id, key, user) = (link.id, link.key, link.user.clone());
        let (tenant, role) = (Some(link.tenant.clone()), link.role);
        let caller = Self::new(parts, Credential::Link { id, key, user }, tenant, role);
        Self { link: Some(link), ..caller }
    }

    /// Refuses a caller whose key or link has ended meanwhile: it was let in by what this process
    /// knew, and that may have been old.
    fn still_stands(&self, app: &App) -> Result<(), ApiError> {
        let stands = app.directory.read(|directory| match (&self.credential, &self.link) {
            (Credential::Link { .. }, Some(link)) => directory.link_stands(link, app.now()),
            (Credential::Link { .. }, None) => false,
            (Credential::Key { id, .. }, _) => directory.key_stands(*id, app.now()),
        });
        if stands { Ok(()) } else { Err(Code::Unauthenticated.into()) }
    }

    /// Returns whose request this is: that of the tenant in its path, where the caller sees it.
    pub(crate) async fn holder(&self, parts: &mut Parts, app: &App) -> Holder {
        let named = path_param(parts, app, "tenant").await.ok();
        let named = named.and_then(|text| text.parse().ok()).filter(|tenant| self.sees(tenant));
        named.or_else(|| self.tenant.clone()).map_or(Holder::Operator, Holder::Tenant)
    }

    /// Returns who changes something, as the configuration's history keeps it.
    pub(crate) fn actor(&self) -> String {
        match &self.credential {
            Credential::Key { id, .. } => id.to_string(),
            Credential::Link { id, key, user } if user.is_empty() => format!("{key} by {id}"),
            Credential::Link { id, key, user } => format!("{key} by {id} for {user}"),
        }
    }

    /// Returns what its idempotency keys belong to.
    pub(crate) fn scope(&self) -> String {
        match &self.credential {
            Credential::Key { id, .. } => id.to_string(),
            Credential::Link { id, .. } => id.to_string(),
        }
    }

    /// Tells whether what the request came with still lets its caller in to a tenant, as far as this
    /// process knows: for answers that take long.
    pub(crate) fn stands_for(&self, app: &App, tenant: &TenantId) -> bool {
        let is_there = app.directory.read(|directory| directory.tenant(tenant).is_some());
        is_there && self.sees(tenant) && self.still_stands(app).is_ok()
    }

    /// Tells whether a tenant's caller is the same as another one: the same key, the same link, or links
    /// for the same user.
    pub(crate) fn is_also(&self, other: &Self) -> bool {
        match (&self.credential, &other.credential) {
            (Credential::Key { id, .. }, Credential::Key { id: other, .. }) => id == other,
            (
                Credential::Link { id, user, .. },
                Credential::Link { id: other, user: other_user, .. },
            ) => id == other || (!user.is_empty() && user == other_user),
            (Credential::Key { .. }, Credential::Link { .. })
            | (Credential::Link { .. }, Credential::Key { .. }) => false,
        }
    }

    /// Notes that something is changed from here on.
    pub(crate) fn begins_to_write(&self) {
        self.writes.set();
    }

    /// Makes a change in the caller's name, which is about to be written.
    pub(crate) fn change(&self, entity: Entity, deleted: bool) -> Change {
        self.begins_to_write();
        let (reason, trace) = (self.reason.clone(), self.trace.clone());
        Change { entity, deleted, actor: self.actor(), reason, trace }
    }

    /// Tells whether it is the operator who calls.
    pub(crate) const fn is_operator(&self) -> bool {
        self.tenant.is_none()
    }

    /// Returns the key that the request came with; refuses those that came by a portal link.
    pub(crate) fn by_key(&self) -> Result<KeyId, ApiError> {
        match &self.credential {
            Credential::Key { id, .. } => Ok(*id),
            Credential::Link { .. } => Err(Code::Forbidden.into()),
        }
    }

    /// Refuses all but an operator's key that was made to show secrets again.
    pub(crate) fn may_reveal_secrets(&self) -> Result<(), ApiError> {
        let may = match &self.credential {
            Credential::Key { reveals_secrets, .. } => *reveals_secrets && self.tenant.is_none(),
            Credential::Link { .. } => false,
        };
        if may { Ok(()) } else { Err(Code::Forbidden.into()) }
    }

    /// Brings the configuration up to date, and looks the caller up in it again: the key or link may
    /// have been revoked on another process.
    pub(crate) async fn confirm(&self, app: &App) -> Result<(), ApiError> {
        app.confirm().await?;
        self.still_stands(app)
    }

    fn sees(&self, tenant: &TenantId) -> bool {
        self.tenant.as_ref().is_none_or(|own| own == tenant)
    }

    fn may(&self, action: Action) -> Result<(), ApiError> {
        // What a link must not do would outlive it, or is the business of programs.
        let within_link = match action {
            Action::Read | Action::Write => true,
            Action::Publish | Action::ReadKeys | Action::WriteKeys => false,
        };
        let by_role = match self.role {
            Role::Admin => true,
            Role::Publish => action == Action::Publish,
            Role::Read => matches!(action, Action::Read | Action::ReadKeys),
        };
        let by_link = matches!(self.credential, Credential::Link { .. });
        let allowed = by_role && (within_link || !by_link);
        if allowed { Ok(()) } else { Err(Code::Forbidden.into()) }
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = bearer(&parts.headers).ok_or(Code::Unauthenticated)?;
        if portal::is_token(text) {
            let link = portal::read(app, text).ok_or(Code::Unauthenticated)?;
            let stands = || app.directory.read(|directory| directory.link_stands(&link, app.now()));
            admitted(app, || stands().then_some(())).await?;
            return Ok(Self::of_link(link, parts));
        }
        let hash = secret_key::hash(text);
        let find = || app.directory.read(|directory| directory.key_with(&hash, app.now()));
        let key = admitted(app, find).await?;
        app.uses.note(key.id, app.now());
        Ok(Self::of_key(&key, parts))
    }
}

/// Looks for what lets a caller in; once more if it is not there: it may have been made elsewhere a
/// moment ago.
async fn admitted<T>(app: &App, find: impl Fn() -> Option<T> + Send) -> Result<T, ApiError> {
    if let Some(found) = find() {
        return Ok(found);
    }
    app.confirm().await?;
    find().ok_or_else(|| Code::Unauthenticated.into())
}

/// Returns the tenant that the path names, if the caller may know of it.
async fn named_tenant(parts: &mut Parts, app: &App, caller: &Caller) -> Result<TenantId, ApiError> {
    let tenant = path_param(parts, app, "tenant").await?;
    let tenant: TenantId = tenant.parse().map_err(|_| Code::TenantNotFound)?;
    if caller.sees(&tenant) { Ok(tenant) } else { Err(Code::TenantNotFound.into()) }
}

impl<P: Permission> FromRequestParts<App> for InTenant<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let tenant = named_tenant(parts, app, &caller).await?;
        caller.may(P::ACTION)?;
        let found = find_tenant(app, &tenant, P::ACTION).await?;
        caller.still_stands(app)?;
        server::note_tenant(app, &tenant);
        parts.extensions.insert(Holder::Tenant(tenant));
        let tenant = found.ok_or(Code::TenantNotFound)?;
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
        caller.confirm(app).await?;
        Ok(Self { caller, permission: PhantomData })
    }
}

impl<P: Permission> FromRequestParts<App> for OnTenant<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let tenant = named_tenant(parts, app, &caller).await?;
        if caller.tenant.is_some() {
            return Err(Code::Forbidden.into());
        }
        caller.may(P::ACTION)?;
        caller.confirm(app).await?;
        Ok(Self { caller, tenant, permission: PhantomData })
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

    /// Tells whether the tenant is still there, as far as this process knows: not deleted, and not
    /// made again under its id.
    pub(crate) fn is_there(&self, app: &App) -> bool {
        let tenant = &self.tenant.value;
        app.directory.read(|directory| directory.has_tenant_since(&tenant.id, tenant.created_at))
    }

    /// Tells whether an event, by its sequence in EVENTS, is of an earlier tenant of the id that was
    /// expunged: nobody is shown anything of it.
    pub(crate) fn hides(&self, event_sequence: u64) -> bool {
        let expunge = self.tenant.value.expunge.as_ref();
        expunge.is_some_and(|expunge| event_sequence <= expunge.through)
    }

    /// The same of a replay, by the time at which it was asked for.
    pub(crate) fn hides_replay(&self, created_at: Timestamp) -> bool {
        let tenant = &self.tenant.value;
        tenant.expunge.is_some() && created_at < tenant.created_at
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

/// Publishing is content with what was there a second ago, and asks if the tenant is not: ingest
/// checks that anyway.
async fn find_tenant(
    app: &App,
    id: &TenantId,
    action: Action,
) -> Result<Option<Revised<Tenant>>, ApiError> {
    let find = || app.directory.read(|directory| directory.tenant(id));
    if action == Action::Publish {
        app.confirm_lately().await?;
        if let Some(tenant) = find() {
            return Ok(Some(tenant));
        }
    }
    app.confirm().await?;
    Ok(find())
}

/// Returns the key or token that a request shows, if it shows one that could be.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
    let text = text.trim_start_matches(' ');
    let is_known = secret_key::is_key(text) || portal::is_token(text);
    (scheme.eq_ignore_ascii_case("bearer") && is_known).then_some(text)
}
