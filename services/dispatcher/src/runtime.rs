//! Endpoints made ready to send to: secrets opened, headers checked, the URL parsed.
//!
//! Made once per revision of an endpoint, and again when one of its secrets stops being used.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use fanfare_domain::{
    Endpoint, EndpointId, Timestamp,
    endpoint::{
        Authentication, authentication_owner, client_key_owner, header_owner, secret_owner,
    },
    profile::{Profile, Profiles, SecretError},
    request,
    retry::Policy,
    seal::{Clear, Keyring, SealError},
    signing::Signer,
};
use fanfare_egress::{Identity, TlsError, Url, Whose};
use fanfare_event_log::PackedEndpoint;
use foldhash::HashMap;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LANGUAGE, FROM,
        InvalidHeaderName, USER_AGENT,
    },
};

use crate::{
    echo,
    erased::secret_header,
    grant::{self, Grant, Token},
};

/// How requests introduce themselves, unless the endpoint's own headers say otherwise.
const AGENT: &str = concat!("Fanfare/", env!("CARGO_PKG_VERSION"));

/// Headers of an endpoint's own whose values are no secrets.
const PLAIN: [HeaderName; 6] =
    [ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_LANGUAGE, FROM, USER_AGENT];

/// How many headers requests have that nobody asked for: `accept`, `host`, `content-length`,
/// `authorization`, `traceparent` and `tracestate`.
const HEADERS_MORE: usize = 6;

/// The most endpoints that are kept ready; beyond that all are made ready again.
const READY_MAX: usize = 200_000;

/// An endpoint, ready to send to.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The profile that its requests follow.
    pub(crate) profile: Arc<Profile>,
    /// Where requests go.
    pub(crate) url: Url,
    /// The same as text, for the facts.
    pub(crate) url_text: Arc<str>,
    /// What the endpoint has of TLS that others do not.
    pub(crate) identity: Option<Arc<Identity>>,
    /// Where tokens for it come from.
    pub(crate) grant: Option<Grant>,
    /// The endpoint's own headers, and one that shows who we are.
    headers: Box<[(HeaderName, HeaderValue)]>,
    /// The names of the profile's headers.
    names: Box<[HeaderName]>,
    /// What signs.
    pub(crate) signer: Signer,
    /// What the endpoint was told in confidence.
    secrets: echo::Secrets,
    /// When to try again, if not as the profile says.
    retry: Option<Policy>,
    /// Connect, TLS, head and body together.
    pub(crate) timeout: Duration,
    /// Whether requests say which trace they belong to.
    pub(crate) trace_context: bool,
    revision: u64,
    valid_until: Option<Timestamp>,
}

/// Why nothing can be sent to an endpoint, whatever the event. A mistake of the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unready {
    /// Its tenant's profile is none that this process knows.
    #[error("the profile {name} is not known")]
    ProfileUnknown {
        /// The profile's name.
        name: String,
    },
    /// Its URL is none.
    #[error("the URL is malformed")]
    UrlMalformed,
    /// A secret or a header's value does not open.
    #[error("a sealed value does not open")]
    Sealed(#[from] SealError),
    /// A secret is not one of the profile.
    #[error("the secret does not fit the profile")]
    Secret(#[from] SecretError),
    /// A header is none.
    #[error("a header of the endpoint is malformed")]
    HeaderMalformed,
    /// What is to show the endpoint who we are cannot stand in a request.
    #[error("the endpoint's authentication is malformed")]
    AuthenticationMalformed,
    /// Its client certificate cannot be used.
    #[error("the endpoint's client certificate cannot be used")]
    Tls(#[from] TlsError),
}

impl Ready {
    /// When to try again.
    pub(crate) fn policy(&self) -> &Policy {
        self.retry.as_ref().unwrap_or(&self.profile.retry)
    }

    /// The headers of every request, with room for more.
    pub(crate) fn headers(&self, more: usize) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 1 + more + HEADERS_MORE);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers
    }

    /// Returns a name that the profile gave a header; the error says why it is none.
    pub(crate) fn name(&self, name: &str) -> Result<HeaderName, String> {
        let known = self.names.iter().find(|known| known.as_str() == name);
        known.map_or_else(
            || name.parse().map_err(|error: InvalidHeaderName| error.to_string()),
            |known| Ok(known.clone()),
        )
    }

    /// Takes the endpoint's secrets out of what it says, and the token that it was shown.
    pub(crate) fn conceal(&self, said: Bytes, token: Option<&Token>) -> Bytes {
        self.secrets.conceal(said, token.map(Token::bytes))
    }
}

/// Makes endpoints ready, and keeps them.
pub(crate) struct Readying {
    profiles: Profiles,
    keyring: Keyring,
    ready: RwLock<HashMap<EndpointId, Arc<Ready>>>,
}

impl Readying {
    /// Opens secrets with these keys, for these profiles.
    pub(crate) fn new(profiles: Profiles, keyring: Keyring) -> Self {
        Self { profiles, keyring, ready: RwLock::default() }
    }

    /// Returns the endpoint as of that revision, ready to send to at `now`.
    pub(crate) fn ready(
        &self,
        id: EndpointId,
        endpoint: &PackedEndpoint,
        (revision, profile, now): (u64, &str, Timestamp),
    ) -> Result<Arc<Ready>, Unready> {
        let is_good = |ready: &&Arc<Ready>| {
            ready.revision == revision
                && ready.valid_until.is_none_or(|end| now < end)
                && ready.profile.name == profile
        };
        let kept = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready) = kept.get(&id).filter(is_good) {
            return Ok(Arc::clone(ready));
        }
        drop(kept);
        let ready = Arc::new(self.make(&endpoint.unpack(), revision, profile, now)?);
        let mut kept = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        // Others may have been as fast; all use one, which asks for one token.
        if let Some(ready) = kept.get(&id).filter(is_good) {
            return Ok(Arc::clone(ready));
        }
        if kept.len() >= READY_MAX {
            kept.clear();
        }
        kept.insert(id, Arc::clone(&ready));
        Ok(ready)
    }

    /// Returns the profile of that name, if it is known; the default one for no name.
    pub(crate) fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.get(if name.is_empty() { Profile::DEFAULT } else { name })
    }

    fn make(
        &self,
        endpoint: &Endpoint,
        revision: u64,
        profile: &str,
        now: Timestamp,
    ) -> Result<Ready, Unready> {
        let profile = self
            .profile(profile)
            .ok_or_else(|| Unready::ProfileUnknown { name: profile.to_owned() })?;
        let owner = secret_owner(endpoint.id);
        let mut secrets = endpoint
            .live_secrets(now)
            .map(|secret| self.keyring.open(&owner, &secret.sealed))
            .collect::<Result<Vec<_>, _>>()?;
        let signer = Signer::new(profile, &secrets)?;
        let mut headers = self.headers(endpoint)?;
        let mut grant = None;
        if let Some(authentication) = &endpoint.security.authentication {
            let owner = authentication_owner(endpoint.id);
            let secret = self.keyring.open(&owner, authentication.secret())?;
            let header = match authentication {
                Authentication::Bearer { .. } => grant::bearer(secret.expose()),
                Authentication::Basic { username, .. } => grant::basic(username, secret.expose()),
                Authentication::OAuth2(credentials) => {
                    grant = Grant::new(credentials, &secret);
                    None
                }
            };
            if header.is_none() && grant.is_none() {
                return Err(Unready::AuthenticationMalformed);
            }
            headers.extend(header.map(|value| (AUTHORIZATION, value)));
            secrets.push(secret);
        }
        let secrets = echo::Secrets::new(secrets.into_iter().chain(confidential(&headers)));
        Ok(Ready {
            profile: Arc::clone(profile),
            url: endpoint.url.parse().map_err(|_| Unready::UrlMalformed)?,
            url_text: Arc::from(endpoint.url.as_str()),
            identity: self.identity(endpoint, revision)?,
            grant,
            headers: headers.into(),
            names: names(profile),
            signer,
            secrets,
            retry: endpoint.retry.clone(),
            timeout: endpoint.timeout.unwrap_or(profile.attempt.timeout),
            trace_context: endpoint.trace_context.unwrap_or(profile.attempt.trace_context),
            revision,
            valid_until: endpoint.live_secrets(now).filter_map(|secret| secret.expires_at).min(),
        })
    }

    fn identity(
        &self,
        endpoint: &Endpoint,
        revision: u64,
    ) -> Result<Option<Arc<Identity>>, Unready> {
        let Some(tls) = &endpoint.security.tls else { return Ok(None) };
        let authorities = tls.authorities.iter().map(|authority| authority.der.to_vec());
        let mut client = None;
        if let Some(shown) = &tls.client {
            let key = self.keyring.open(&client_key_owner(endpoint.id), &shown.key)?;
            let chain: Vec<_> = shown.chain.iter().map(|it| it.der.to_vec()).collect();
            client = Some((chain, key));
        }
        let client = client.as_ref().map(|(chain, key)| (chain.clone(), key.expose()));
        let whose = Whose { tenant: endpoint.tenant.clone(), endpoint: endpoint.id, revision };
        let identity = Identity::new(whose, authorities, client)?;
        Ok(Some(Arc::new(identity)))
    }

    fn headers(&self, endpoint: &Endpoint) -> Result<Vec<(HeaderName, HeaderValue)>, Unready> {
        let mut headers = Vec::with_capacity(endpoint.headers.len());
        for (name, sealed) in &endpoint.headers {
            let clear = self.keyring.open(&header_owner(endpoint.id, name), sealed)?;
            let name = HeaderName::try_from(name.as_str()).map_err(|_| Unready::HeaderMalformed)?;
            let value = secret_header(clear).ok_or(Unready::HeaderMalformed)?;
            headers.push((name, value));
        }
        Ok(headers)
    }
}

/// Returns the names of the headers of a profile's requests, as far as they are ones.
fn names(profile: &Profile) -> Box<[HeaderName]> {
    let own = profile.header_names().chain([request::CONTENT_TYPE]);
    own.filter_map(|name| name.parse().ok()).collect()
}

/// Returns what is confidential in an endpoint's own headers. Of `Bearer abc`, that can also stand
/// alone.
fn confidential(headers: &[(HeaderName, HeaderValue)]) -> impl Iterator<Item = Clear> {
    let own = headers.iter().filter(|(name, _)| !PLAIN.contains(name));
    own.filter_map(|(_, value)| std::str::from_utf8(value.as_bytes()).ok()).flat_map(|value| {
        let last = value.rsplit(' ').next().unwrap_or_default();
        [value, last].map(|text| Clear::new(String::from(text)))
    })
}
