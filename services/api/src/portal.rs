//! Portal links: tokens for a tenant's own user, in force for hours.
//!
//! A token is what it allows, sealed with the installation's key, so that nothing has to be kept
//! of it and every process can read it. It ends with its time, with the key that made it, and with
//! its tenant.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use fanfare_domain::{KeyId, LinkId, Role, TenantId, Timestamp, endpoint::RateLimit, seal::Sealed};
use fanfare_service::random_bytes;
use serde::{Deserialize, Serialize};

use crate::{app::App, routes::endpoints::RateLimitView};

/// What the text of every token begins with.
const PREFIX: &str = "fp_";
/// What tokens are sealed for: nothing else that is sealed opens as one.
const OWNER: &str = "portal-link";
/// The longest token, in bytes.
const LENGTH_MAX: usize = 2_048;

/// The longest time that a link is in force.
pub(crate) const LIFE_MAX: Duration = Duration::from_hours(24);
/// The longest name of a user, in bytes.
pub(crate) const USER_BYTES_MAX: usize = 256;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Identifies the link.
    pub(crate) id: LinkId,
    /// The key that made it.
    pub(crate) key: KeyId,
    /// Which tenant it lets in to.
    pub(crate) tenant: TenantId,
    /// What it allows there.
    pub(crate) role: Role,
    /// Whom it is for; may be empty.
    pub(crate) user: String,
    /// When that tenant was created: another one may have its id later.
    pub(crate) tenant_since: Timestamp,
    /// When it stops working.
    pub(crate) expires_at: Timestamp,
    /// How often it may ask; `None` for what the settings say.
    pub(crate) rate_limit: Option<RateLimit>,
}

/// A link as JSON.
#[derive(Deserialize, Serialize)]
struct Content {
    link: String,
    key: String,
    tenant: String,
    admin: bool,
    user: String,
    tenant_since_ns: u64,
    expires_at_ns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimitView>,
}

/// Tells whether the text could be a token.
pub(crate) fn is_token(text: &str) -> bool {
    text.len() <= LENGTH_MAX && text.starts_with(PREFIX)
}

/// Writes a token.
pub(crate) fn write(app: &App, link: &Link) -> String {
    let content = Content {
        link: link.id.to_string(),
        key: link.key.to_string(),
        tenant: link.tenant.to_string(),
        admin: link.role == Role::Admin,
        user: link.user.clone(),
        tenant_since_ns: link.tenant_since.as_nanos(),
        expires_at_ns: link.expires_at.as_nanos(),
        rate_limit: link.rate_limit.map(RateLimitView::of),
    };
    let json = serde_json::to_string(&content).expect("texts and numbers are what JSON has");
    let Sealed { key_id, bytes } = app.keyring.seal(OWNER, &json, random_bytes());
    format!("{PREFIX}{key_id}.{}", BASE64URL_NOPAD.encode(&bytes))
}

/// Reads a token that one of the installation's keys has sealed. It may have expired.
pub(crate) fn read(app: &App, text: &str) -> Option<Link> {
    let (key_id, bytes) = text.strip_prefix(PREFIX)?.split_once('.')?;
    let bytes = BASE64URL_NOPAD.decode(bytes.as_bytes()).ok()?;
    let sealed = Sealed { key_id: String::from(key_id), bytes: bytes.into() };
    let clear = app.keyring.open(OWNER, &sealed).ok()?;
    let content: Content = serde_json::from_str(clear.expose()).ok()?;
    Some(Link {
        id: content.link.parse().ok()?,
        key: content.key.parse().ok()?,
        tenant: content.tenant.parse().ok()?,
        role: if content.admin { Role::Admin } else { Role::Read },
        user: content.user,
        tenant_since: Timestamp::from_nanos(content.tenant_since_ns),
        expires_at: Timestamp::from_nanos(content.expires_at_ns),
        rate_limit: content.rate_limit.and_then(|limit| limit.admit().ok()),
    })
}
