//! Sealing: secrets are encrypted before they enter any stream.
//!
//! `XChaCha20-Poly1305` under a key of the installation. The key's id is in the record, so that
//! keys can be changed; what the secret belongs to is authenticated with it, so that a sealed
//! value moved to another record does not open.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    Endpoint, EndpointId, TenantId, Timestamp,
    endpoint::{header_owner, secret_owner},
};

/// An encrypted value, safe to store.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key opens it: see [`Keyring::sealing_key_id`].
    pub key_id: String,
    /// The nonce, 24 random bytes, followed by the ciphertext with its tag.
    pub bytes: Bytes,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A secret in the clear. Shows as `***`, is compared in constant time, and is erased when dropped.
#[derive(Clone)]
pub struct Clear(Zeroizing<String>);

impl PartialEq for Clear {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Clear {}

impl Clear {
    /// Wraps a secret.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the secret. Its name makes uses easy to find.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A value could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key that sealed it is not among ours.
    #[error("sealed with key {key_id}, which is not in the key file")]
    UnknownKey {
        /// Which key it was.
        key_id: String,
    },
    /// The bytes, the key or what it belongs to are not those of the sealing.
    #[error("the sealed value does not open: it was altered, or belongs to something else")]
    Altered,
    /// The text is not a key.
    #[error("a sealing key is 64 hexadecimal digits")]
    MalformedKey,
}

/// Something sealed of an endpoint does not open, so that no request to it can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} of endpoint {endpoint} of tenant {tenant} does not open")]
pub struct Unopenable {
    /// Whose endpoint it is.
    pub tenant: TenantId,
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// What of it, for people: `the signing secret`, or `the header x-token`.
    pub what: String,
    /// Why. With [`SealError::UnknownKey`] the key file is another one than it was sealed with.
    #[source]
    pub cause: SealError,
}

/// The keys of an installation: one seals, all open.
#[derive(Clone)]
pub struct Keyring {
    sealing: String,
    keys: BTreeMap<String, XChaCha20Poly1305>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("sealing", &self.sealing).finish_non_exhaustive()
    }
}

impl Keyring {
    /// How many random bytes a sealing takes.
    pub const NONCE_LENGTH: usize = 24;

    /// Reads a key file: one key per line, 64 hexadecimal digits; the first seals. Empty lines
    /// and lines that begin with `#` count for nothing.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let mut sealing = None;
        let mut keys = BTreeMap::new();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut key = data_encoding::HEXLOWER_PERMISSIVE
                .decode(line.as_bytes())
                .map_err(|_| SealError::MalformedKey)?;
            let cipher = Key::try_from(key.as_slice()).map(|key| XChaCha20Poly1305::new(&key));
            // The id is a hash, so that it says nothing of the key.
            let id = data_encoding::HEXLOWER.encode(Sha256::digest(&key).get(..4).unwrap_or(&[]));
            key.zeroize();
            sealing.get_or_insert_with(|| id.clone());
            keys.insert(id, cipher.map_err(|_| SealError::MalformedKey)?);
        }
        Ok(Self { sealing: sealing.ok_or(SealError::MalformedKey)?, keys })
    }

    /// Returns the id of the key that seals.
    pub fn sealing_key_id(&self) -> &str {
        &self.sealing
    }

    /// Encrypts a secret for its owner, for example `endpoint/ep_…/secret`. The nonce is drawn by
    /// the caller, and must never be used again.
    ///
    /// # Panics
    ///
    /// If the secret is longer than the cipher can take, 256 GiB.
    pub fn seal(&self, owner: &str, secret: &str, nonce: [u8; Self::NONCE_LENGTH]) -> Sealed {
        let cipher = self.keys.get(&self.sealing).expect("the sealing key is in the ring");
        let payload = Payload { msg: secret.as_bytes(), aad: owner.as_bytes() };
        let ciphertext = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a secret is shorter than the cipher's limit of 256 GiB");
        Sealed { key_id: self.sealing.clone(), bytes: [&nonce[..], &ciphertext].concat().into() }
    }

    /// Decrypts a secret of its owner.
    pub fn open(&self, owner: &str, sealed: &Sealed) -> Result<Clear, SealError> {
        let cipher = self
            .keys
            .get(&sealed.key_id)
            .ok_or_else(|| SealError::UnknownKey { key_id: sealed.key_id.clone() })?;
        let (nonce, ciphertext) =
            sealed.bytes.split_first_chunk::<{ Self::NONCE_LENGTH }>().ok_or(SealError::Altered)?;
        let payload = Payload { msg: ciphertext, aad: owner.as_bytes() };
        let clear =
            cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Altered)?;
        String::from_utf8(clear).map(Clear::new).map_err(|_| SealError::Altered)
    }

    /// Seals anew, with the key that seals, whatever of an endpoint was sealed with another one; `None`
    /// if there is nothing. A secret that has expired by `now` and does not open is left out.
    ///
    /// # Errors
    ///
    /// The first value that does not open.
    pub fn reseal(
        &self,
        endpoint: &Endpoint,
        now: Timestamp,
        mut nonce: impl FnMut() -> [u8; Self::NONCE_LENGTH],
    ) -> Result<Option<Endpoint>, Unopenable> {
        self.check(endpoint, now)?;
        if sealing_keys(endpoint).all(|key| key == self.sealing) {
            return Ok(None);
        }
        let mut again = |owner: &str, sealed: &Sealed| {
            let clear = self.open(owner, sealed).ok()?;
            Some(self.seal(owner, clear.expose(), nonce()))
        };
        let mut resealed = endpoint.clone();
        let owner = secret_owner(endpoint.id);
        resealed.secrets.retain_mut(|secret| {
            let sealed = again(&owner, &secret.sealed);
            sealed.map(|sealed| secret.sealed = sealed).is_some()
        });
        let headers = resealed.headers.iter_mut();
        let headers = headers.map(|(name, sealed)| (header_owner(endpoint.id, name), sealed));
        for (owner, sealed) in headers.chain(resealed.security.sealed_mut(endpoint.id)) {
            if let Some(anew) = again(&owner, sealed) {
                *sealed = anew;
            }
        }
        Ok(Some(resealed))
    }

    /// Checks that everything opens that a request to the endpoint at `now` needs: its live
    /// secrets, its headers, what they show of us and the key of a client certificate. Secrets that have expired count for nothing.
    ///
    /// A service does this at its start for every endpoint that is configured, and refuses to run
    /// with keys that are not the installation's.
    ///
    /// # Errors
    ///
    /// The first value that does not open.
    pub fn check(&self, endpoint: &Endpoint, now: Timestamp) -> Result<(), Unopenable> {
        let unopenable = |what: String, cause| Unopenable {
            tenant: endpoint.tenant.clone(),
            endpoint: endpoint.id,
            what,
            cause,
        };
        let owner = secret_owner(endpoint.id);
        for secret in endpoint.live_secrets(now) {
            let opened = self.open(&owner, &secret.sealed);
            opened.map_err(|cause| unopenable(String::from("the signing secret"), cause))?;
        }
        for (name, sealed) in &endpoint.headers {
            let opened = self.open(&header_owner(endpoint.id, name), sealed);
            opened.map_err(|cause| unopenable(format!("the header {name}"), cause))?;
        }
        for (what, owner, sealed) in endpoint.security.sealed(endpoint.id) {
            let opened = self.open(&owner, sealed);
            opened.map_err(|cause| unopenable(String::from(what), cause))?;
        }
        Ok(())
    }
}

/// Returns the ids of the keys that all of an endpoint is sealed with that is sealed, one for each.
pub fn sealing_keys(endpoint: &Endpoint) -> impl Iterator<Item = &str> {
    let secrets = endpoint.secrets.iter().map(|secret| &secret.sealed);
    let security = endpoint.security.sealed(endpoint.id).map(|(_, _, sealed)| sealed);
    let all = secrets.chain(endpoint.headers.values()).chain(security);
    all.map(|sealed| sealed.key_id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EndpointState,
        endpoint::{
            Authentication, ClientCertificate, Secret, Security, Tls, authentication_owner,
            client_key_owner,
        },
    };

    fn endpoint(keys: &Keyring) -> Endpoint {
        let id = EndpointId::new(Timestamp::EPOCH, [1; 10]);
        let secret = |expires_at| Secret {
            sealed: keys.seal(&secret_owner(id), "whsec_x", [7; 24]),
            created_at: Timestamp::EPOCH,
            expires_at,
        };
        Endpoint {
            id,
            tenant: "acme".parse().unwrap(),
            url: String::from("https://example.com/"),
            name: String::new(),
            description: String::new(),
            filters: Vec::new(),
            condition: None,
            secrets: vec![secret(None)],
            headers: BTreeMap::from([(
                String::from("x-token"),
                keys.seal(&header_owner(id, "x-token"), "t", [8; 24]),
            )]),
            state: EndpointState::Active,
            retry: None,
            timeout: None,
            concurrency: None,
            rate_limit: None,
            ordering: crate::endpoint::Ordering::None,
            batch: None,
            cancelled_before: None,
            trace_context: None,
            security: Security {
                authentication: Some(Authentication::Bearer {
                    token: keys.seal(&authentication_owner(id), "t0k3n", [9; 24]),
                }),
                tls: Some(Tls {
                    authorities: Vec::new(),
                    client: Some(ClientCertificate {
                        chain: Vec::new(),
                        key: keys.seal(&client_key_owner(id), "pem", [10; 24]),
                    }),
                }),
                validation: None,
            },
            metadata: BTreeMap::new(),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
        }
    }

    #[test]
    fn an_endpoint_is_checked_for_all_that_a_request_needs() {
        let (ours, theirs) = (ring(&[&key("ab")]), ring(&[&key("cd")]));
        let now = Timestamp::from_millis(1_000);
        assert_eq!(ours.check(&endpoint(&ours), now), Ok(()));
        let refused = ours.check(&endpoint(&theirs), now).unwrap_err();
        assert!(matches!(refused.cause, SealError::UnknownKey { .. }), "{refused:?}");
        assert!(refused.to_string().starts_with("the signing secret of endpoint ep_"));
        let mut with_header = endpoint(&ours);
        with_header.headers = endpoint(&theirs).headers;
        let refused = ours.check(&with_header, now).unwrap_err();
        assert_eq!(refused.what, "the header x-token");
        let mut with_token = endpoint(&ours);
        with_token.security.authentication = endpoint(&theirs).security.authentication;
        assert_eq!(ours.check(&with_token, now).unwrap_err().what, "the token");
        let mut with_key = endpoint(&ours);
        with_key.security.tls = endpoint(&theirs).security.tls;
        let refused = ours.check(&with_key, now).unwrap_err();
        assert_eq!(refused.what, "the key of the client certificate");
        let mut altered = endpoint(&ours);
        altered.headers =
            BTreeMap::from([(String::from("x-other"), endpoint(&ours).headers["x-token"].clone())]);
        assert_eq!(ours.check(&altered, now).unwrap_err().cause, SealError::Altered);
    }

    #[test]
    fn an_expired_secret_needs_no_key() {
        let (ours, theirs) = (ring(&[&key("ab")]), ring(&[&key("cd")]));
        let mut rotated = endpoint(&ours);
        let mut old = endpoint(&theirs).secrets;
        old[0].expires_at = Some(Timestamp::from_millis(1_000));
        rotated.secrets.extend(old);
        assert_eq!(ours.check(&rotated, Timestamp::from_millis(1_000)), Ok(()));
        assert!(ours.check(&rotated, Timestamp::from_millis(999)).is_err());
    }

    #[test]
    fn an_endpoint_is_sealed_anew_with_the_first_key() {
        let (old, theirs) = (ring(&[&key("ab")]), ring(&[&key("ef")]));
        let both = ring(&[&key("cd"), &key("ab")]);
        let new = ring(&[&key("cd")]);
        let now = Timestamp::from_millis(1_000);
        let mut endpoint = endpoint(&old);
        let mut expired = endpoint.secrets[0].clone();
        (expired.expires_at, expired.sealed) = (Some(now), theirs.seal("x", "gone", [5; 24]));
        endpoint.secrets.push(expired);
        let mut number = 0;
        let mut nonce = || {
            number += 1;
            [number; 24]
        };
        let resealed =
            both.reseal(&endpoint, now, &mut nonce).unwrap().expect("it was another key");
        assert!(sealing_keys(&resealed).all(|key| key == new.sealing_key_id()));
        assert_eq!(sealing_keys(&resealed).count(), 4, "the secret, a header, a token and a key");
        assert_eq!(new.check(&resealed, now), Ok(()));
        let secret = &resealed.secrets[0].sealed;
        assert_eq!(new.open(&secret_owner(endpoint.id), secret).unwrap().expose(), "whsec_x");
        assert_eq!(resealed.secrets.len(), 1, "what has expired and opens no more is left out");
        assert_eq!(both.reseal(&resealed, now, &mut nonce), Ok(None));
        assert!(new.reseal(&endpoint, now, &mut nonce).is_err());
    }

    fn ring(lines: &[&str]) -> Keyring {
        Keyring::parse(&lines.join("\n")).unwrap()
    }

    fn key(byte: &str) -> String {
        byte.repeat(32)
    }

    #[test]
    fn what_is_sealed_opens_for_its_owner_only() {
        let keys = ring(&["# made today", &key("ab")]);
        let sealed = keys.seal("endpoint/1", "whsec_x", [7; 24]);
        assert_eq!(keys.open("endpoint/1", &sealed).unwrap().expose(), "whsec_x");
        assert_eq!(keys.open("endpoint/2", &sealed), Err(SealError::Altered));
        assert!(
            !format!("{sealed:?} {keys:?} {:?}", keys.open("endpoint/1", &sealed))
                .contains("whsec")
        );
    }

    #[test]
    fn an_old_key_still_opens_what_it_sealed() {
        let sealed = ring(&[&key("ab")]).seal("a", "secret", [7; 24]);
        assert_eq!(ring(&[&key("cd"), &key("ab")]).open("a", &sealed).unwrap().expose(), "secret");
        assert!(matches!(
            ring(&[&key("cd")]).open("a", &sealed),
            Err(SealError::UnknownKey { .. })
        ));
    }

    #[test]
    fn a_key_file_without_a_key_is_refused() {
        for bad in ["", "# nothing", "abc", &key("zz")] {
            assert!(Keyring::parse(bad).is_err(), "{bad}");
        }
    }
}
