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
use zeroize::{Zeroize as _, Zeroizing};

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

/// A secret in the clear. Shows as `***`, and is erased when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Clear(Zeroizing<String>);

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
}

#[cfg(test)]
mod tests {
    use super::*;

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
