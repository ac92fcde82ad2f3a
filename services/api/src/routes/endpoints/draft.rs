//! From what a caller sends to an endpoint as it is kept: checked by its profile, secrets sealed.
//!
//! Decisions only: chance is drawn by whoever calls, and the endpoint is not written here.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    Condition, Endpoint, EndpointId, EndpointState, TenantId, Timestamp, TypePattern,
    endpoint::{Ordering, Secret, Security, header_owner, secret_owner},
    profile::{FilterRefused, OverrideRefused, Profile},
    retry::Policy,
    seal::{Clear, Keyring, Sealed},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    security::{self, NewAuthentication, tls::NewTls},
    validate::{self, ValidationName},
    view::{BatchView, OrderingName, RateLimitView},
};
use crate::{
    app::Edited,
    error::{ApiError, Code},
    extract::Patched,
    limits::{self, DESCRIPTION_BYTES_MAX, NAME_BYTES_MAX},
    url_rules::UrlRules,
};

/// How many secrets of an endpoint can be live at once.
pub(crate) const SECRETS_MAX: usize = 10;
/// The most requests that may be in flight to one endpoint at once.
const CONCURRENCY_MAX: u16 = 1_000;

/// An endpoint to be created.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEndpoint {
    /// Where deliveries go: `https://`, or `http://` where the profile and the operator allow it;
    /// up to 2,048 bytes.
    #[schema(example = "https://example.com/webhooks")]
    pub(crate) url: String,
    /// What people call it; up to 256 bytes.
    #[serde(default)]
    pub(crate) name: String,
    /// For people; up to 2,048 bytes.
    #[serde(default)]
    pub(crate) description: String,
    /// Which event types it wants: up to 100, with `*` for one token and a last `>` for the rest,
    /// or as the tenant's profile writes them.
    #[serde(default)]
    #[schema(example = json!(["invoice.*"]))]
    pub(crate) event_types: Vec<String>,
    /// Which events of these types it wants, by their content: an expression in CEL over `type`,
    /// `attributes` and `data` that gives true or false; up to 2,048 bytes. All of them if left out.
    #[schema(example = "data.amount > 100")]
    pub(crate) filter: Option<String>,
    /// The signing secret, where the profile lets the caller choose it; otherwise one is made.
    #[schema(write_only)]
    pub(crate) secret: Option<String>,
    /// Which kind of secret is made; `hmac` if left out.
    pub(crate) secret_kind: Option<SecretKind>,
    /// Headers added to every request: up to 32. Their values are sealed, and not shown again.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Replaces the profile's retry policy; written like `[retry]` of a profile.
    #[schema(value_type = Option<Object>)]
    pub(crate) retry: Option<Policy>,
    /// Replaces the profile's time-out: connect, TLS, head and body together, in milliseconds.
    #[schema(minimum = 100, maximum = 60_000)]
    pub(crate) timeout_ms: Option<u64>,
    /// How many requests may be in flight at once; 16 if left out.
    #[schema(minimum = 1, maximum = 1_000)]
    pub(crate) concurrency: Option<u16>,
    /// How many requests may be begun in a time; any number if left out.
    pub(crate) rate_limit: Option<RateLimitView>,
    /// Whether events have to wait for the ones before them; `none` if left out.
    pub(crate) ordering: Option<OrderingName>,
    /// How many events a request may carry, where the profile has batches; one if left out.
    pub(crate) batch: Option<BatchView>,
    /// Whether requests have the headers `traceparent` and `tracestate` (W3C Trace Context) if their
    /// event is traced; as the profile has it if left out.
    pub(crate) trace_context: Option<bool>,
    /// What requests show, in the header `authorization`; nothing if left out.
    pub(crate) authentication: Option<NewAuthentication>,
    /// How TLS is spoken with it, and with the server that gives out its tokens; as with all others
    /// if left out.
    pub(crate) tls: Option<NewTls>,
    /// How it has to allow us to send before we do; not at all if left out. Until it has, it is paused,
    /// and what it would get is held.
    pub(crate) validation: Option<ValidationName>,
    /// The caller's own notes: up to 32, with keys up to 64 and values up to 512 bytes.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, String>,
}

/// What to change about an endpoint (RFC 7396): what is left out stays, `null` takes it away.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointPatch {
    /// Where deliveries go.
    pub(crate) url: Option<String>,
    /// What people call it; up to 256 bytes.
    pub(crate) name: Option<String>,
    /// For people; up to 2,048 bytes.
    pub(crate) description: Option<String>,
    /// Which event types it wants: all of them, not only what is new.
    pub(crate) event_types: Option<Vec<String>>,
    /// Which events of these types it wants, by their content; `null` for all of them.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) filter: Patched<String>,
    /// Headers to set, or with `null` to remove; others stay.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Option<String>>,
    /// Replaces the profile's retry policy; `null` for the profile's own.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) retry: Patched<Policy>,
    /// Replaces the profile's time-out, in milliseconds; `null` for the profile's own.
    #[serde(default)]
    #[schema(value_type = Option<u64>, minimum = 100, maximum = 60_000)]
    pub(crate) timeout_ms: Patched<u64>,
    /// How many requests may be in flight at once; `null` for the default of 16.
    #[serde(default)]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 1_000)]
    pub(crate) concurrency: Patched<u16>,
    /// How many requests may be begun in a time; `null` for any number.
    #[serde(default)]
    #[schema(value_type = Option<RateLimitView>)]
    pub(crate) rate_limit: Patched<RateLimitView>,
    /// Whether events have to wait for the ones before them.
    pub(crate) ordering: Option<OrderingName>,
    /// How many events a request may carry, where the profile has batches; `null` for one.
    #[serde(default)]
    #[schema(value_type = Option<BatchView>)]
    pub(crate) batch: Patched<BatchView>,
    /// Whether requests have the headers `traceparent` and `tracestate` if their event is traced;
    /// `null` for what the profile says.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    pub(crate) trace_context: Patched<bool>,
    /// What requests show, as a whole, but for a secret that stays; `null` for nothing.
    #[serde(default)]
    #[schema(value_type = Option<NewAuthentication>)]
    pub(crate) authentication: Patched<NewAuthentication>,
    /// How TLS is spoken with it, as a whole, but for a key that stays; `null` for as with all others.
    #[serde(default)]
    #[schema(value_type = Option<NewTls>)]
    pub(crate) tls: Patched<NewTls>,
    /// How it has to allow us to send before we do; `null` for not at all.
    #[serde(default)]
    #[schema(value_type = Option<ValidationName>)]
    pub(crate) validation: Patched<ValidationName>,
    /// Notes to set, or with `null` to remove; others stay.
    #[serde(default)]
    pub(crate) metadata: BTreeMap<String, Option<String>>,
}

/// A kind of secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SecretKind {
    /// One that the receiver has too.
    Hmac,
    /// A pair of keys, where the profile has such signatures: receivers need the public key alone,
    /// which is in the endpoint's `jwks.json`.
    Ed25519,
}

/// Which secret an endpoint is to have.
#[derive(Clone, Default)]
pub(crate) struct SecretWish {
    /// The secret itself.
    pub(crate) supplied: Option<Clear>,
    /// Which kind is made where none is supplied.
    pub(crate) kind: Option<SecretKind>,
}

/// Makes endpoints of one profile.
#[derive(Clone, Copy)]
pub(crate) struct Maker<'a> {
    /// The tenant's profile.
    pub(crate) profile: &'a Profile,
    /// Which URLs the endpoints may have.
    pub(crate) urls: &'a UrlRules,
    /// Seals secrets.
    pub(crate) keyring: &'a Keyring,
    /// The current instant.
    pub(crate) now: Timestamp,
}

impl Maker<'_> {
    /// Makes an endpoint, and returns it with its secret in the clear. `chance` is called once for
    /// each secret that is sealed, and must never return the same bytes twice.
    pub(crate) fn create(
        self,
        new: NewEndpoint,
        id: EndpointId,
        tenant: TenantId,
        chance: impl Fn() -> [u8; 56],
    ) -> Result<(Endpoint, Clear), ApiError> {
        let url = self.urls.admit(&new.url)?;
        limits::text("name", &new.name, NAME_BYTES_MAX)?;
        limits::text("description", &new.description, DESCRIPTION_BYTES_MAX)?;
        limits::metadata(&new.metadata)?;
        let filters = patterns(self.profile, &new.event_types)?;
        let wish = SecretWish { supplied: new.secret.map(Clear::new), kind: new.secret_kind };
        let (secret, clear) = self.secret(id, wish, &chance)?;
        let authentication = new.authentication.map(|new| new.admit(self, id, None, &chance));
        let tls = new.tls.map(|new| new.admit(self, id, None, &chance));
        let mut endpoint = Endpoint {
            id,
            tenant,
            url: String::from(url.as_str()),
            name: new.name,
            description: new.description,
            filters,
            condition: new.filter.as_deref().map(filter).transpose()?,
            secrets: vec![secret],
            headers: self.headers(id, &new.headers, &chance)?,
            state: EndpointState::Active,
            retry: new.retry.map(|policy| retry(self.profile, policy)).transpose()?,
            timeout: new.timeout_ms.map(|millis| timeout(self.profile, millis)).transpose()?,
            concurrency: new.concurrency.map(concurrency).transpose()?,
            rate_limit: new.rate_limit.as_ref().map(RateLimitView::admit).transpose()?,
            ordering: new.ordering.map(OrderingName::admit).unwrap_or_default(),
            batch: new.batch.map(|batch| batch.admit(self.profile)).transpose()?,
            cancelled_before: None,
            trace_context: new.trace_context,
            security: Security {
                authentication: authentication.transpose()?,
                tls: tls.transpose()?,
                validation: None,
            },
            metadata: new.metadata,
            created_at: self.now,
            updated_at: self.now,
        };
        refuse_ordered_batches(&endpoint)?;
        security::check_header(self, &endpoint)?;
        if new.validation.is_some() {
            validate::begin(&mut endpoint);
        }
        Ok((endpoint, clear))
    }

    /// Changes an endpoint as a patch says.
    pub(crate) fn patch(
        self,
        endpoint: &Endpoint,
        patch: &EndpointPatch,
        chance: impl Fn() -> [u8; 56],
    ) -> Result<Edited<Endpoint>, ApiError> {
        let mut next = endpoint.clone();
        if let Some(url) = &patch.url {
            next.url = String::from(self.urls.admit(url)?.as_str());
        }
        if let Some(name) = &patch.name {
            limits::text("name", name, NAME_BYTES_MAX)?;
            next.name.clone_from(name);
        }
        if let Some(description) = &patch.description {
            limits::text("description", description, DESCRIPTION_BYTES_MAX)?;
            next.description.clone_from(description);
        }
        if let Some(event_types) = &patch.event_types {
            next.filters = patterns(self.profile, event_types)?;
        }
        patch.filter.apply(&mut next.condition, |text| filter(text))?;
        patch.retry.apply(&mut next.retry, |policy| retry(self.profile, policy.clone()))?;
        patch.timeout_ms.apply(&mut next.timeout, |millis| timeout(self.profile, *millis))?;
        patch.concurrency.apply(&mut next.concurrency, |count| concurrency(*count))?;
        patch.rate_limit.apply(&mut next.rate_limit, RateLimitView::admit)?;
        if let Some(ordering) = patch.ordering {
            next.ordering = ordering.admit();
        }
        patch.batch.apply(&mut next.batch, |batch| batch.admit(self.profile))?;
        patch.trace_context.apply(&mut next.trace_context, |wanted| Ok(*wanted))?;
        refuse_ordered_batches(&next)?;
        merge(&mut next.metadata, &patch.metadata);
        limits::metadata(&next.metadata)?;
        self.patch_headers(&mut next, &patch.headers, &chance)?;
        self.patch_security(&mut next.security, endpoint, patch, &chance)?;
        security::check_header(self, &next)?;
        validate::patch(&mut next, endpoint, &patch.validation);
        if next == *endpoint {
            return Ok(Edited::Unchanged);
        }
        next.updated_at = self.now;
        Ok(Edited::Changed(next))
    }

    /// Changes how an endpoint and we make sure of each other.
    fn patch_security(
        self,
        next: &mut Security,
        endpoint: &Endpoint,
        patch: &EndpointPatch,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<(), ApiError> {
        let (id, before) = (endpoint.id, &endpoint.security);
        patch.authentication.apply(&mut next.authentication, |new| {
            new.admit(self, id, before.authentication.as_ref(), chance)
        })?;
        let admit = |new: &NewTls| new.admit(self, id, before.tls.as_ref(), chance);
        patch.tls.apply(&mut next.tls, admit)
    }

    /// Seals a secret.
    pub(super) fn seal(
        self,
        owner: &str,
        secret: &Clear,
        chance: &impl Fn() -> [u8; 56],
    ) -> Sealed {
        let (_, nonce) = split(chance());
        self.keyring.seal(owner, secret.expose(), nonce)
    }

    /// Gives an endpoint a new secret, and returns it with the secret in the clear. The secrets
    /// before it are used for `overlap` longer.
    pub(crate) fn rotate(
        self,
        endpoint: &Endpoint,
        wish: SecretWish,
        overlap: Duration,
        chance: impl Fn() -> [u8; 56],
    ) -> Result<(Endpoint, Clear), ApiError> {
        let (secret, clear) = self.secret(endpoint.id, wish, &chance)?;
        let end = self.now.saturating_add(overlap);
        let retire = |secret: &Secret| Secret {
            expires_at: Some(secret.expires_at.map_or(end, |sooner| sooner.min(end))),
            ..secret.clone()
        };
        let mut next = endpoint.clone();
        next.secrets = endpoint.live_secrets(self.now).map(retire).collect();
        next.secrets.retain(|secret| secret.expires_at.is_none_or(|end| self.now < end));
        next.secrets.insert(0, secret);
        next.secrets.truncate(SECRETS_MAX);
        next.updated_at = self.now;
        Ok((next, clear))
    }

    fn secret(
        self,
        id: EndpointId,
        wish: SecretWish,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<(Secret, Clear), ApiError> {
        let (random, nonce) = split(chance());
        let clear = match (wish.supplied, wish.kind) {
            (Some(_), Some(_)) => {
                let why = "the secret says itself what it is: leave one of them out";
                return Err(ApiError::value("secret_kind", why));
            }
            (Some(secret), None) => self.profile.check_secret(secret.expose()).map(|()| secret),
            (None, None | Some(SecretKind::Hmac)) => self.profile.generate_secret(random),
            (None, Some(SecretKind::Ed25519)) => {
                let made = self.profile.generate_ed25519(random);
                Ok(made.map_err(|why| ApiError::value("secret_kind", why))?)
            }
        };
        let clear = clear.map_err(|why| ApiError::value("secret", why))?;
        let sealed = self.keyring.seal(&secret_owner(id), clear.expose(), nonce);
        Ok((Secret { sealed, created_at: self.now, expires_at: None }, clear))
    }

    fn headers(
        self,
        id: EndpointId,
        headers: &BTreeMap<String, String>,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<BTreeMap<String, Sealed>, ApiError> {
        let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.profile.headers_admitted(pairs).map_err(|why| ApiError::value("headers", why))?;
        let seal = |(name, value): (&String, &String)| {
            let name = name.to_ascii_lowercase();
            let (_, nonce) = split(chance());
            let sealed = self.keyring.seal(&header_owner(id, &name), value, nonce);
            (name, sealed)
        };
        Ok(headers.iter().map(seal).collect())
    }

    /// Sets and removes headers. The values that stay are opened, because the limits are on all
    /// headers together.
    fn patch_headers(
        self,
        endpoint: &mut Endpoint,
        patch: &BTreeMap<String, Option<String>>,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<(), ApiError> {
        let named: BTreeMap<String, Option<&String>> =
            patch.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_ref())).collect();
        if named.len() < patch.len() {
            return Err(ApiError::value("headers", "a header is named twice"));
        }
        endpoint.headers.retain(|name, _| !named.contains_key(name));
        let mut all = Vec::new();
        for (name, sealed) in &endpoint.headers {
            let opened = self.keyring.open(&header_owner(endpoint.id, name), sealed);
            all.push((name.clone(), opened.map_err(|why| ApiError::Internal(why.into()))?));
        }
        let set: BTreeMap<String, String> = named
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value.clone())))
            .collect();
        let kept = all.iter().map(|(name, value)| (name.as_str(), value.expose()));
        let new = set.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let admitted = self.profile.headers_admitted(kept.chain(new));
        admitted.map_err(|why| ApiError::value("headers", why))?;
        endpoint.headers.extend(self.headers(endpoint.id, &set, chance)?);
        Ok(())
    }
}

/// Admits what an endpoint wants, as the profile writes it.
pub(super) fn patterns(
    profile: &Profile,
    event_types: &[String],
) -> Result<Vec<TypePattern>, ApiError> {
    let filters = event_types.iter().map(String::as_str);
    let refused = |why: FilterRefused| {
        let cause = std::error::Error::source(&why);
        let more = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        ApiError::value("event_types", format_args!("{why}{more}"))
    };
    profile.filters().patterns(filters).map_err(refused)
}

/// Admits an expression.
pub(super) fn filter(text: &str) -> Result<String, ApiError> {
    let condition = Condition::parse(text).map_err(|broken| ApiError::value("filter", broken))?;
    Ok(String::from(condition.text()))
}

fn merge(notes: &mut BTreeMap<String, String>, patch: &BTreeMap<String, Option<String>>) {
    for (key, value) in patch {
        match value {
            Some(value) => notes.insert(key.clone(), value.clone()),
            None => notes.remove(key),
        };
    }
}

fn retry(profile: &Profile, policy: Policy) -> Result<Policy, ApiError> {
    profile.admit_retry(&policy).map_err(|why| refused("retry", &why))?;
    Ok(policy)
}

fn timeout(profile: &Profile, millis: u64) -> Result<Duration, ApiError> {
    let timeout = Duration::from_millis(millis);
    profile.admit_timeout(timeout).map_err(|why| refused("timeout_ms", &why))?;
    Ok(timeout)
}

fn refused(field: &str, why: &OverrideRefused) -> ApiError {
    if why.is_by_profile() {
        return ApiError::detailed(Code::ProfileForbids, format_args!("{field}: {why}"));
    }
    ApiError::value(field, why)
}

fn concurrency(count: u16) -> Result<u16, ApiError> {
    if (1..=CONCURRENCY_MAX).contains(&count) {
        return Ok(count);
    }
    Err(ApiError::value("concurrency", format_args!("it is 1 to {CONCURRENCY_MAX}")))
}

/// A batch that waits for its retry would hold the events behind it back, with those that are not
/// in it.
fn refuse_ordered_batches(endpoint: &Endpoint) -> Result<(), ApiError> {
    if endpoint.batch.is_none() || endpoint.ordering == Ordering::None {
        return Ok(());
    }
    let detail = "take `batch` away (null), or set `ordering` to `none`";
    Err(ApiError::detailed(Code::BatchAndOrdering, String::from(detail)))
}

/// Splits bytes of chance into those of a secret and those of a nonce.
fn split(chance: [u8; 56]) -> ([u8; 32], [u8; Keyring::NONCE_LENGTH]) {
    let (mut secret, mut nonce) = ([0; 32], [0; Keyring::NONCE_LENGTH]);
    secret.copy_from_slice(&chance[..32]);
    nonce.copy_from_slice(&chance[32..]);
    (secret, nonce)
}
