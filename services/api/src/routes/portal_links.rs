//! Portal links: a tenant's own user looks after its endpoints, for some hours.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use fanfare_domain::{LinkId, Role};
use fanfare_service::{random_bytes, telemetry::AUDIT};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::keys::rate::KeyRateView;
use crate::{
    app::App,
    caller::{InTenant, WritesKeys},
    error::ApiError,
    extract::OptionalBody,
    limits,
    portal::{self, LIFE_MAX, Link, USER_BYTES_MAX},
    rates,
};

/// How long a link is in force, if the caller does not say.
const LIFE: Duration = Duration::from_hours(1);

/// What a portal link allows.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PortalRole {
    /// To look.
    #[default]
    Read,
    /// To change things too: everything that the tenant's keys may, but to publish events, and to
    /// have to do with keys and links.
    Admin,
}

/// A portal link to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPortalLink {
    /// What it allows; `read` if left out.
    #[serde(default)]
    role: PortalRole,
    /// Whom it is for: kept with what is changed by it. Up to 256 bytes.
    #[serde(default)]
    #[schema(example = "ada@example.com")]
    user: String,
    /// For how many seconds it is in force: an hour if left out, a day at most.
    #[schema(minimum = 60, maximum = 86_400, default = 3_600)]
    expires_in_s: Option<u64>,
    /// How often it may ask; what the service's settings say (50 a second) if left out. A tenant's key
    /// can give no more than that.
    rate_limit: Option<KeyRateView>,
}

/// A portal link at the only time at which it is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct PortalLink {
    /// Identifies the link; it is not secret.
    #[schema(example = "lnk_01jd3x6y8kqz7v5m2n4p6r8t0w")]
    id: String,
    /// Which tenant it lets in to.
    tenant_id: String,
    /// What it allows.
    role: PortalRole,
    /// Whom it is for; may be empty.
    user: String,
    /// When it stops working.
    #[schema(format = DateTime)]
    expires_at: String,
    /// The token, which stands in the place of an API key: `Authorization: Bearer fp_…`
    #[schema(example = "fp_…")]
    token: String,
}

/// Makes a token with which a tenant's own user can look after its endpoints for some hours. It is
/// not kept, and stops working at once when the key that made it is deleted.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/portal-links", tag = "keys",
    request_body(content = Option<NewPortalLink>),
    params(("tenant" = String, Path, description = "The tenant's id")),
    responses((status = 201, body = PortalLink)),
)]
pub(crate) async fn create_portal_link(
    State(app): State<App>,
    access: InTenant<WritesKeys>,
    OptionalBody(new): OptionalBody<NewPortalLink>,
) -> Result<(StatusCode, Json<PortalLink>), ApiError> {
    let key = access.caller.by_key()?;
    let life = new.expires_in_s.map_or(LIFE, Duration::from_secs);
    if !(Duration::from_mins(1)..=LIFE_MAX).contains(&life) {
        let why = format!("it is 60 to {}", LIFE_MAX.as_secs());
        return Err(ApiError::value("expires_in_s", why));
    }
    if !new.user.is_empty() {
        limits::line("user", &new.user, USER_BYTES_MAX)?;
    }
    let rate_limit = new.rate_limit.as_ref().map(KeyRateView::admit).transpose()?;
    if let (Some(asked), false) = (&rate_limit, access.caller.is_operator()) {
        rates::within(asked, app.rates.of_links().as_ref())?;
    }
    let now = app.now();
    let link = Link {
        id: LinkId::new(now, random_bytes()),
        key,
        tenant: access.id().clone(),
        tenant_since: access.tenant.value.created_at,
        role: match new.role {
            PortalRole::Read => Role::Read,
            PortalRole::Admin => Role::Admin,
        },
        user: new.user,
        expires_at: now.saturating_add(life),
        rate_limit,
    };
    app.counters.note_link(matches!(new.role, PortalRole::Admin));
    // Nothing else keeps that there is this link.
    info!(
        target: AUDIT,
        tenant_id = %link.tenant,
        link_id = %link.id,
        key_id = %key,
        role = ?link.role,
        expires_at = %link.expires_at,
        "made a portal link"
    );
    let token = portal::write(&app, &link);
    let made = PortalLink {
        id: link.id.to_string(),
        tenant_id: link.tenant.to_string(),
        role: new.role,
        user: link.user,
        expires_at: link.expires_at.to_string(),
        token,
    };
    Ok((StatusCode::CREATED, Json(made)))
}
