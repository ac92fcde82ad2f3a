//! How an endpoint and we make sure of each other: what requests show, and which certificates count.
//!
//! Secrets are sealed, each for its endpoint and its purpose. Certificates are public.

use std::{collections::BTreeMap, fmt, num::NonZeroU32};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{RateLimit, RatePeriod};
use crate::{EndpointId, Timestamp, seal::Sealed};

/// How many characters a line of PEM has.
const PEM_LINE: usize = 64;

/// How an endpoint and we make sure of each other, beside signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// What requests show, in the header `authorization`.
    pub authentication: Option<Authentication>,
    /// How TLS is spoken with it, if not as with everybody.
    pub tls: Option<Tls>,
    /// Whether it has to allow us to send before we do (CloudEvents, HTTP 1.1 Web Hooks for Event
    /// Delivery, section 4).
    pub validation: Option<Consent>,
}

/// What an endpoint has allowed that has to allow us to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// When it did; not yet if not set.
    pub allowed_at: Option<Timestamp>,
    /// How many requests a minute it allows; any number if not set.
    pub rate: Option<NonZeroU32>,
}

/// What requests show, in the header `authorization`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// A token that stays the same (RFC 6750).
    Bearer {
        /// The token.
        token: Sealed,
    },
    /// A name and a password (RFC 7617).
    Basic {
        /// The name; it has no colon.
        username: String,
        /// The password.
        password: Sealed,
    },
    /// A token that is fetched (RFC 6749, section 4.4).
    OAuth2(Box<ClientCredentials>),
}

/// With what an access token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Where tokens are asked for, in the canonical form of the URL standard.
    pub token_url: String,
    /// Who we are there.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Sealed,
    /// What the token is to allow; may be empty.
    pub scopes: Vec<String>,
    /// What else is asked with, for example `audience`.
    pub parameters: BTreeMap<String, String>,
    /// Where id and secret stand.
    pub place: CredentialsPlace,
}

/// Where a client's id and secret stand in a request for a token (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialsPlace {
    /// In the header `authorization`.
    #[default]
    Header,
    /// In the body.
    Body,
}

/// How TLS is spoken with an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities to trust besides those that are trusted for all.
    pub authorities: Vec<Certificate>,
    /// What we show of ourselves.
    pub client: Option<ClientCertificate>,
}

/// A certificate that we show, with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and those that lead from it to an authority. At least one.
    pub chain: Vec<Certificate>,
    /// The key in PEM.
    pub key: Sealed,
}

/// A certificate, with what people want to know of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate in DER.
    pub der: Bytes,
    /// Whose it is.
    pub subject: String,
    /// When its time is over.
    pub expires_at: Timestamp,
}

impl CredentialsPlace {
    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Body => "body",
        }
    }
}

impl Certificate {
    /// Returns the SHA-256 of the certificate, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.der))
    }

    /// Returns the certificate in PEM.
    pub fn pem(&self) -> String {
        let text = BASE64_STANDARD.encode(&self.der);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for (position, symbol) in text.chars().enumerate() {
            if position > 0 && position.is_multiple_of(PEM_LINE) {
                pem.push('\n');
            }
            pem.push(symbol);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
        pem
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, expires_at) = (&self.subject, &self.expires_at);
        f.debug_struct("Certificate")
            .field("subject", subject)
            .field("expires_at", expires_at)
            .finish_non_exhaustive()
    }
}

impl Authentication {
    /// What its secret is called, for people.
    const fn secret_name(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => "the token",
            Self::Basic { .. } => "the password",
            Self::OAuth2(_) => "the client secret",
        }
    }

    /// Returns its secret.
    pub fn secret(&self) -> &Sealed {
        match self {
            Self::Bearer { token } => token,
            Self::Basic { password, .. } => password,
            Self::OAuth2(credentials) => &credentials.client_secret,
        }
    }

    fn secret_mut(&mut self) -> &mut Sealed {
        match self {
            Self::Bearer { token } => token,
            Self::Basic { password, .. } => password,
            Self::OAuth2(credentials) => &mut credentials.client_secret,
        }
    }
}

impl Security {
    /// Tells whether the endpoint has to allow us to send, and has not done so.
    pub fn is_pending(&self) -> bool {
        self.validation.is_some_and(|validation| validation.allowed_at.is_none())
    }

    /// Returns how many requests may be begun: no more than the endpoint has allowed.
    pub fn bound(&self, own: Option<RateLimit>) -> Option<RateLimit> {
        let allowed = self.validation.and_then(|validation| validation.rate).map(|requests| {
            RateLimit { requests, per: RatePeriod::Minute, burst: NonZeroU32::MIN }
        });
        match (own, allowed) {
            (Some(own), Some(allowed)) if own.interval() >= allowed.interval() => Some(own),
            (own, allowed) => allowed.or(own),
        }
    }

    /// Returns what is sealed: what it is called for people, what it is sealed for, and the value.
    pub fn sealed(
        &self,
        endpoint: EndpointId,
    ) -> impl Iterator<Item = (&'static str, String, &Sealed)> {
        let shown = self
            .authentication
            .iter()
            .map(move |it| (it.secret_name(), authentication_owner(endpoint), it.secret()));
        let clients = self.tls.iter().filter_map(|tls| tls.client.as_ref());
        let keys = clients.map(move |client| {
            ("the key of the client certificate", client_key_owner(endpoint), &client.key)
        });
        shown.chain(keys)
    }

    /// Returns the same values, to be sealed anew.
    pub(crate) fn sealed_mut(
        &mut self,
        endpoint: EndpointId,
    ) -> impl Iterator<Item = (String, &mut Sealed)> {
        let shown = self.authentication.iter_mut();
        let shown = shown.map(move |it| (authentication_owner(endpoint), it.secret_mut()));
        let clients = self.tls.iter_mut().filter_map(|tls| tls.client.as_mut());
        let keys = clients.map(move |client| (client_key_owner(endpoint), &mut client.key));
        shown.chain(keys)
    }
}

/// Returns what the secret of an endpoint's [`Authentication`] is sealed for.
pub fn authentication_owner(endpoint: EndpointId) -> String {
    format!("endpoint/{endpoint}/authentication")
}

/// Returns what the key of an endpoint's client certificate is sealed for.
pub fn client_key_owner(endpoint: EndpointId) -> String {
    format!("endpoint/{endpoint}/client-key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_sent_no_more_than_it_allows() {
        let limit = |requests, per| RateLimit {
            requests: NonZeroU32::new(requests).unwrap(),
            per,
            burst: NonZeroU32::MIN,
        };
        let bound = |rate, own| {
            let rate = NonZeroU32::new(rate);
            let validation = Some(Consent { allowed_at: Some(Timestamp::EPOCH), rate });
            Security { validation, ..Security::default() }.bound(own)
        };
        let (slow, fast) = (limit(30, RatePeriod::Minute), limit(10, RatePeriod::Second));
        assert_eq!(bound(0, None), None);
        assert_eq!(bound(0, Some(fast)), Some(fast));
        assert_eq!(bound(60, None), Some(limit(60, RatePeriod::Minute)));
        assert_eq!(bound(60, Some(fast)), Some(limit(60, RatePeriod::Minute)));
        assert_eq!(bound(60, Some(slow)), Some(slow));
        assert!(!Security::default().is_pending());
        let validation = Some(Consent::default());
        assert!(Security { validation, ..Security::default() }.is_pending());
    }

    #[test]
    fn a_certificate_is_written_in_lines_and_known_by_its_hash() {
        let der = Bytes::from(vec![7; 60]);
        let subject = String::from("CN=a");
        let certificate = Certificate { der, subject, expires_at: Timestamp::EPOCH };
        let pem = certificate.pem();
        let lines: Vec<_> = pem.lines().collect();
        assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [27, 64, 16, 25]);
        assert_eq!(BASE64_STANDARD.decode(lines[1..3].concat()).unwrap(), vec![7; 60]);
        assert_eq!(certificate.fingerprint().len(), 64);
        assert!(!format!("{certificate:?}").contains('7'));
    }
}
