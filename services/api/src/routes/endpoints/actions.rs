//! What changes an endpoint's state or its secret.

use std::time::Duration;

use axum::extract::State;
use fanfare_domain::{
    Endpoint, EndpointId, EndpointState, PauseMode, endpoint::DisableReason, seal::Clear,
};
use fanfare_service::random_bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    draft::{Maker, SecretKind, SecretWish},
    edit_active, tagged,
    view::{EndpointView, EndpointWithSecret, PauseModeName},
    with_state,
};
use crate::{
    app::{App, Edited},
    caller::{InTenant, Writes},
    directory::Directory,
    error::{ApiError, Code},
    etag::IfMatch,
    extract::{OptionalBody, PathId},
    reply::Tagged,
};

/// How long the secrets before a new one are used, if the caller does not say.
const OVERLAP: Duration = Duration::from_hours(24);
/// The longest time that the secrets before a new one can be used.
const OVERLAP_MAX: Duration = Duration::from_hours(7 * 24);

/// How to pause an endpoint.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    /// What becomes of events meanwhile; as the tenant's profile has it if left out.
    mode: Option<PauseModeName>,
}

/// How to change an endpoint's secret.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// The new secret, where the profile lets the caller choose it; otherwise one is made.
    #[schema(write_only)]
    secret: Option<String>,
    /// Which kind of secret is made; `hmac` if left out.
    secret_kind: Option<SecretKind>,
    /// For how many seconds requests are signed with the old secrets too: a day if left out, a
    /// week at most. With 0 they stop being used at once.
    #[schema(minimum = 0, maximum = 604_800, default = 86_400)]
    overlap_s: Option<u64>,
}

/// Pauses an endpoint: it gets no requests until it is resumed.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/pause", tag = "endpoints",
    request_body(content = Option<Pause>),
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EndpointView, headers(("ETag")))),
)]
pub(crate) async fn pause_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
    OptionalBody(pause): OptionalBody<Pause>,
) -> Result<Tagged<EndpointView>, ApiError> {
    let profile = app.profile(&access.tenant.value.profile)?;
    let mode = pause.mode.map_or(profile.pause, PauseMode::from);
    let edit = |endpoint: &Endpoint| match endpoint.state {
        EndpointState::Disabled(_) => Err(Code::EndpointDisabled.into()),
        EndpointState::Active | EndpointState::Paused(_) => {
            Ok(with_state(endpoint, EndpointState::Paused(mode), app.now()))
        }
    };
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let edited = app.edit(&access.caller, &if_match, find, edit).await?;
    tagged(&app, &access, edited)
}

/// Resumes a paused endpoint; what was held is delivered.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/resume", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EndpointView, headers(("ETag")))),
)]
pub(crate) async fn resume_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
) -> Result<Tagged<EndpointView>, ApiError> {
    let admit = |state| match state {
        EndpointState::Disabled(_) => Err(Code::EndpointDisabled),
        EndpointState::Active | EndpointState::Paused(_) => Ok(()),
    };
    activate(&app, &access, id, &if_match, admit).await
}

/// Enables a disabled endpoint.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/enable", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EndpointView, headers(("ETag")))),
)]
pub(crate) async fn enable_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
) -> Result<Tagged<EndpointView>, ApiError> {
    let admit = |state| match state {
        EndpointState::Paused(_) => Err(Code::EndpointPaused),
        EndpointState::Active | EndpointState::Disabled(_) => Ok(()),
    };
    activate(&app, &access, id, &if_match, admit).await
}

/// Disables an endpoint without deleting it; what is not delivered yet is cancelled.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/disable", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EndpointView, headers(("ETag")))),
)]
pub(crate) async fn disable_endpoint(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
) -> Result<Tagged<EndpointView>, ApiError> {
    let edit = |endpoint: &Endpoint| match endpoint.state {
        EndpointState::Disabled(_) => Ok(Edited::Unchanged),
        EndpointState::Active | EndpointState::Paused(_) => {
            let state = EndpointState::Disabled(DisableReason::ByHand);
            Ok(with_state(endpoint, state, app.now()))
        }
    };
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let edited = app.edit(&access.caller, &if_match, find, edit).await?;
    tagged(&app, &access, edited)
}

/// Gives an endpoint a new secret. The answer is the only one that shows it.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/rotate-secret", tag = "endpoints",
    request_body(content = Option<Rotation>),
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-Match" = Option<String>, Header, description = "Change this version only"),
    ),
    responses((status = 200, body = EndpointWithSecret, headers(("ETag")))),
)]
pub(crate) async fn rotate_secret(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
    if_match: IfMatch,
    OptionalBody(rotation): OptionalBody<Rotation>,
) -> Result<Tagged<EndpointWithSecret>, ApiError> {
    let overlap = rotation.overlap_s.map_or(OVERLAP, Duration::from_secs);
    if overlap > OVERLAP_MAX {
        let why = format!("it is 0 to {}", OVERLAP_MAX.as_secs());
        return Err(ApiError::value("overlap_s", why));
    }
    let profile = app.profile(&access.tenant.value.profile)?;
    let urls = app.url_rules(profile);
    let supplied = rotation.secret.map(Clear::new);
    let wish = SecretWish { supplied, kind: rotation.secret_kind };
    // A repeated edit makes another secret: the one that was written last is the one to show.
    let shown = std::sync::Mutex::new(None);
    let edit = |endpoint: &Endpoint| {
        let maker = Maker { profile, urls: &urls, keyring: &app.keyring, now: app.now() };
        let (next, secret) = maker.rotate(endpoint, wish.clone(), overlap, random_bytes)?;
        *shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(secret);
        Ok(Edited::Changed(next))
    };
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    let edited = app.edit(&access.caller, &if_match, find, edit).await?;
    let Tagged { revision, body: view } = tagged(&app, &access, edited)?;
    let secret = shown.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let secret = secret.expect("an edit that changed the endpoint made a secret");
    let body = EndpointWithSecret { view, secret: String::from(secret.expose()) };
    Ok(Tagged { revision, body })
}

/// Makes an endpoint active, unless the profile allows no more of them.
async fn activate(
    app: &App,
    access: &InTenant<Writes>,
    id: EndpointId,
    if_match: &IfMatch,
    admit: impl Fn(EndpointState) -> Result<(), Code> + Send + Sync,
) -> Result<Tagged<EndpointView>, ApiError> {
    let edit = |endpoint: &Endpoint| {
        admit(endpoint.state)?;
        if endpoint.security.is_pending() {
            return Err(Code::EndpointUnvalidated.into());
        }
        Ok(with_state(endpoint, EndpointState::Active, app.now()))
    };
    let edited = edit_active(app, (access, id), if_match, edit).await?;
    tagged(app, access, edited)
}
