//! The key that seals secrets: what was sealed with another one is sealed anew.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use fanfare_domain::{
    Endpoint, EndpointId, TenantId,
    seal::{Unopenable, sealing_keys},
};
use fanfare_service::random_bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Edited},
    caller::{Caller, Operator, Writes},
    directory::{Directory, Revised},
    error::ApiError,
    etag::IfMatch,
    extract::Body,
};

/// How many endpoints one request looks at.
const LOOKED_AT_MAX: usize = 500;
/// How many are written at once.
const WRITES_MAX: usize = 16;

/// Which part of the work is to be done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateSealingKey {
    /// Behind which endpoint to go on: `next` of the answer before.
    #[serde(default)]
    #[schema(example = "acme/ep_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    after: Option<String>,
    /// Whether to look only.
    #[serde(default)]
    dry_run: bool,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SealingKeyRotated {
    /// The id of the key that seals: the first of the sealing keys.
    #[schema(example = "3f9a01bc")]
    sealing_key: String,
    /// How many endpoints were looked at.
    looked_at: usize,
    /// How many of them were sealed anew, or would have been.
    resealed: usize,
    /// How many secrets and headers each key had sealed, by the keys' ids.
    sealed_by: BTreeMap<String, u64>,
    /// Endpoints of which something does not open: the key that sealed it is none of the sealing keys.
    unopenable: Vec<UnopenableValue>,
    /// What to give as `after` for the next ones; `null` if these were the last.
    #[schema(required)]
    next: Option<String>,
}

/// Something that does not open.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnopenableValue {
    /// Whose endpoint it is.
    tenant_id: String,
    /// Which endpoint.
    endpoint_id: String,
    /// What of it, and why.
    detail: String,
}

/// Seals anew, with the first of the sealing keys, what was sealed with another one: secrets and headers
/// of up to 500 endpoints. Ask again with `after` until `next` is `null`. It does no harm to repeat it.
#[utoipa::path(
    post, path = "/v1/sealing-key/rotate", tag = "keys", request_body = RotateSealingKey,
    responses((status = 200, body = SealingKeyRotated)),
)]
pub(crate) async fn rotate_sealing_key(
    State(app): State<App>,
    access: Operator<Writes>,
    Body(wish): Body<RotateSealingKey>,
) -> Result<Json<SealingKeyRotated>, ApiError> {
    let after = wish.after.as_deref().map(place).transpose()?;
    let behind = |directory: &Directory| directory.endpoints_behind(after.as_ref(), LOOKED_AT_MAX);
    let found = app.directory.read(behind);
    let mut done = SealingKeyRotated {
        sealing_key: String::from(app.keyring.sealing_key_id()),
        looked_at: found.len(),
        resealed: 0,
        sealed_by: BTreeMap::new(),
        unopenable: Vec::new(),
        next: None,
    };
    if let Some(last) = found.last().filter(|_| found.len() == LOOKED_AT_MAX) {
        done.next = Some(format!("{}/{}", last.value.tenant, last.value.id));
    }
    let mut caller = access.caller;
    caller.reason = match caller.reason.as_str() {
        "" => String::from("another sealing key"),
        given => format!("another sealing key: {given}"),
    };
    let mut others = Vec::new();
    for Revised { value: endpoint, .. } in found {
        for key in sealing_keys(&endpoint) {
            *done.sealed_by.entry(String::from(key)).or_default() += 1;
        }
        let is_current = |key| key == app.keyring.sealing_key_id();
        match app.keyring.check(&endpoint, app.now()) {
            Err(unopenable) => done.unopenable.push(unopenable.into()),
            Ok(()) if sealing_keys(&endpoint).all(is_current) => {}
            Ok(()) if wish.dry_run => done.resealed += 1,
            Ok(()) => others.push((endpoint.tenant.clone(), endpoint.id)),
        }
    }
    let reseals = others.into_iter().map(|(tenant, id)| reseal(&app, &caller, tenant, id));
    let writing = stream::iter(reseals).buffer_unordered(WRITES_MAX);
    done.resealed += writing.try_fold(0, async |sum, one| Ok(sum + usize::from(one))).await?;
    Ok(Json(done))
}

/// Seals anew what an endpoint has by now; returns whether it is there still.
async fn reseal(
    app: &App,
    caller: &Caller,
    tenant: TenantId,
    id: EndpointId,
) -> Result<bool, ApiError> {
    let find = |directory: &Directory| directory.endpoint(&tenant, id);
    let act = |endpoint: &Endpoint| match app.keyring.reseal(endpoint, app.now(), random_bytes) {
        Ok(Some(resealed)) => Ok(Edited::Changed(resealed)),
        Ok(None) => Ok(Edited::Unchanged),
        Err(unopenable) => Err(ApiError::Internal(unopenable.into())),
    };
    Ok(app.edit(caller, &IfMatch::Absent, find, act).await?.is_some())
}

fn place(text: &str) -> Result<(TenantId, EndpointId), ApiError> {
    let parts = text.split_once('/');
    let parsed = parts.and_then(|(tenant, id)| Some((tenant.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(|| ApiError::value("after", "it is none that an answer gave as `next`"))
}

impl From<Unopenable> for UnopenableValue {
    fn from(unopenable: Unopenable) -> Self {
        Self {
            tenant_id: unopenable.tenant.to_string(),
            endpoint_id: unopenable.endpoint.to_string(),
            detail: format!("{}: {}", unopenable.what, unopenable.cause),
        }
    }
}
