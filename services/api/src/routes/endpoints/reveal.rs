//! Showing an endpoint's secrets again, which is kept in the configuration's history like a change.

use axum::{Json, extract::State};
use fanfare_domain::{Endpoint, EndpointId, endpoint::secret_owner};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::{App, Edited},
    caller::{InTenant, Writes},
    directory::Directory,
    error::{ApiError, Code},
    etag::IfMatch,
    extract::PathId,
};

/// Where secrets are shown again.
pub(crate) const PATH: &str = "/v1/tenants/{tenant}/endpoints/{endpoint}/reveal-secrets";

/// The secrets of an endpoint that sign requests at this time, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevealedSecrets {
    /// The endpoint.
    #[schema(example = "ep_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    endpoint_id: String,
    /// The secrets.
    secrets: Vec<RevealedSecret>,
}

/// A secret in the clear.
#[derive(Serialize, ToSchema)]
pub(crate) struct RevealedSecret {
    /// The secret itself.
    #[schema(example = "whsec_…")]
    secret: String,
    /// When it came into use.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it stops being used; `null` for the current one.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
}

/// Shows an endpoint's secrets again. Only an operator's key with `reveals_secrets` may, and has to
/// say why (`Fanfare-Reason`). Who did it and why is kept in the history of the endpoint, before it
/// is answered, each time: an `Idempotency-Key` has no effect here.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/reveal-secrets", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("Fanfare-Reason" = String, Header, description = "Why; kept with the act"),
    ),
    responses((status = 200, body = RevealedSecrets)),
)]
pub(crate) async fn reveal_secrets(
    State(app): State<App>,
    access: InTenant<Writes>,
    PathId(id): PathId<EndpointId>,
) -> Result<Json<RevealedSecrets>, ApiError> {
    access.caller.may_reveal_secrets()?;
    if access.caller.reason.trim().is_empty() {
        return Err(ApiError::value("Fanfare-Reason", "say why: it is kept with the act"));
    }
    let mut caller = access.caller.clone();
    caller.reason = format!("showed the secrets: {}", access.caller.reason);
    let find = |directory: &Directory| directory.endpoint(access.id(), id);
    // The same again: what is kept is who wrote it, and why.
    let act = |endpoint: &Endpoint| Ok(Edited::Changed(endpoint.clone()));
    let kept = app.edit(&caller, &IfMatch::Absent, find, act).await?;
    let endpoint = kept.ok_or(Code::EndpointNotFound)?.value;
    let owner = secret_owner(id);
    let mut secrets = Vec::new();
    for secret in endpoint.live_secrets(app.now()) {
        let clear = app.keyring.open(&owner, &secret.sealed);
        let clear = clear.map_err(|cause| ApiError::Internal(cause.into()))?;
        secrets.push(RevealedSecret {
            secret: String::from(clear.expose()),
            created_at: secret.created_at.to_string(),
            expires_at: secret.expires_at.map(|end| end.to_string()),
        });
    }
    Ok(Json(RevealedSecrets { endpoint_id: id.to_string(), secrets }))
}
