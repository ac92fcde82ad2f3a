//! The public keys with which an endpoint's receiver checks Ed25519 signatures.
//!
//! They need no API key: what receivers check with is no secret, and who receives has none. An
//! endpoint's id has 80 bits of chance, so nobody finds out by them which endpoints there are.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use fanfare_domain::{EndpointId, TenantId, endpoint::secret_owner, signing::ed25519_public};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::path_param,
    directory::Directory,
    error::{ApiError, Code},
    extract::PathId,
};

/// For how long the document may be kept. While a rotation overlaps, requests are signed with the
/// keys from before too: an overlap that is longer than this is noticed by nobody.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The public keys of an endpoint, newest first (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicKeys)]
pub(crate) struct Jwks {
    /// The keys: those of all secrets that sign at this time.
    keys: Vec<Jwk>,
}

/// A public key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PublicKey)]
pub(crate) struct Jwk {
    /// Always `OKP`.
    #[schema(example = "OKP")]
    kty: &'static str,
    /// Always `Ed25519`.
    #[schema(example = "Ed25519")]
    crv: &'static str,
    /// The key, in base 64 for URLs.
    x: String,
    /// What it is called: its thumbprint (RFC 7638).
    kid: String,
    /// Always `sig`.
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    usage: &'static str,
    /// Always `EdDSA`.
    #[schema(example = "EdDSA")]
    alg: &'static str,
}

/// The tenant in a path of which nobody is asked who they are.
pub(crate) struct PathTenant(TenantId);

impl FromRequestParts<App> for PathTenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let text = path_param(parts, app, "tenant").await?;
        // Whether there is such a tenant is nobody's business here.
        Ok(Self(text.parse().map_err(|_| Code::EndpointNotFound)?))
    }
}

/// Shows the public keys with which Ed25519 signatures of an endpoint's requests are checked, as a
/// JWK set (RFC 7517). It needs no key, and may be kept for five minutes.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/jwks.json", tag = "endpoints",
    security(()),
    params(
        ("tenant" = String, Path, description = "The tenant's id"),
        ("endpoint" = String, Path, description = "The endpoint's id"),
        ("If-None-Match" = Option<String>, Header, description = "The version that is there already"),
    ),
    responses((status = 200, body = Jwks, headers(("ETag"), ("Cache-Control")))),
)]
pub(crate) async fn get_public_keys(
    State(app): State<App>,
    PathTenant(tenant): PathTenant,
    PathId(id): PathId<EndpointId>,
    asked: HeaderMap,
) -> Result<Response, ApiError> {
    app.confirm_lately().await?;
    let keys = keys(&app, &tenant, id)?;
    let mut hash = Sha256::new();
    for key in &keys {
        hash.update(key.kid.as_bytes());
    }
    let tag = HEXLOWER.encode(hash.finalize().get(..16).unwrap_or_default());
    let tag =
        HeaderValue::try_from(format!("\"{tag}\"")).map_err(|e| ApiError::Internal(e.into()))?;
    let known = asked.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known.filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(','));
    let is_known = known.any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one).as_bytes() == tag.as_bytes()
    });
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, CACHED)];
    Ok(if is_known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, Json(Jwks { keys })).into_response()
    })
}

fn keys(app: &App, tenant: &TenantId, id: EndpointId) -> Result<Vec<Jwk>, ApiError> {
    let find =
        |directory: &Directory| Some((directory.tenant(tenant)?, directory.endpoint(tenant, id)?));
    let (tenant, endpoint) = app.directory.read(find).ok_or(Code::EndpointNotFound)?;
    if !app.profile(&tenant.value.profile)?.has_ed25519() {
        return Ok(Vec::new());
    }
    let owner = secret_owner(id);
    let mut keys = Vec::new();
    for secret in endpoint.value.live_secrets(app.now()) {
        let clear = app.keyring.open(&owner, &secret.sealed);
        let clear = clear.map_err(|cause| ApiError::Internal(cause.into()))?;
        keys.extend(ed25519_public(&clear).map(|public| Jwk::of(&public)));
    }
    Ok(keys)
}

impl Jwk {
    fn of(public: &[u8; 32]) -> Self {
        let x = BASE64URL_NOPAD.encode(public);
        let named = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = BASE64URL_NOPAD.encode(&Sha256::digest(named.as_bytes()));
        Self { kty: "OKP", crv: "Ed25519", x, kid, usage: "sig", alg: "EdDSA" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_rfc_8037_has_it() {
        // Appendix A.2 and A.3.
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let public = BASE64URL_NOPAD.decode(x.as_bytes()).unwrap().try_into().unwrap();
        let key = Jwk::of(&public);
        assert_eq!((&*key.x, &*key.kid), (x, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    }
}
