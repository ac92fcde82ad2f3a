//! Signing secrets: where they come from, and what is one.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::Profile;
use crate::{
    seal::Clear,
    signing::{self, ED25519_SECRET_PREFIX},
};

/// What a profile's signing secrets look like.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRules {
    /// Who makes them up.
    pub origin: SecretOrigin,
    /// How the key is made from the text.
    pub key: KeyForm,
    /// What the text begins with: always for [`KeyForm::Base64`], otherwise if the service made it.
    #[serde(default)]
    pub prefix: String,
    /// The least length: bytes of the key for [`KeyForm::Base64`], otherwise characters.
    pub length_min: usize,
    /// The greatest length, in the same measure.
    pub length_max: usize,
}

/// Who makes up a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretOrigin {
    /// The service, always.
    Generated,
    /// The caller, always.
    Supplied,
    /// The caller, or the service if the caller does not.
    Either,
}

/// How the key of an HMAC is made from a secret's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyForm {
    /// It is what the text after the prefix says in base 64.
    Base64,
    /// It is the text's characters in UTF-8, prefix included.
    Utf8,
}

/// What a secret's length is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Characters of the text.
    Characters,
    /// Bytes of the key.
    Bytes,
}

/// A secret that cannot be used. The text says nothing of the secret but its length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is too short.
    #[error(
        "the secret has {length} {measure}, and needs at least {min}: please choose a longer one"
    )]
    TooShort {
        /// Its length.
        length: usize,
        /// The least length.
        min: usize,
        /// What both are counted in.
        measure: Measure,
    },
    /// It is too long.
    #[error("the secret has {length} {measure}, and can have {max} at most")]
    TooLong {
        /// Its length.
        length: usize,
        /// The greatest length.
        max: usize,
        /// What both are counted in.
        measure: Measure,
    },
    /// It does not begin as it should.
    #[error("the secret does not begin with {prefix}")]
    PrefixMissing {
        /// What it should begin with.
        prefix: String,
    },
    /// What follows the prefix is not base 64.
    #[error("the secret is not base64 with padding after its prefix")]
    NotBase64,
    /// It has control characters.
    #[error("the secret has control characters")]
    ControlCharacters,
    /// It begins like an Ed25519 secret, and is none.
    #[error("an Ed25519 secret is whsk_ and base64 of 64 bytes: the seed and the public key")]
    Ed25519Malformed,
    /// Its public key is not that of its seed.
    #[error("the public key of the Ed25519 secret does not belong to its seed")]
    Ed25519Mismatch,
    /// The profile has no Ed25519 signatures.
    #[error("this profile has no Ed25519 signatures")]
    Ed25519Unknown,
    /// The profile's secrets are made by the service.
    #[error("the service makes the secrets of this profile: leave it out")]
    ServiceGenerates,
    /// The profile's secrets are made by the caller.
    #[error("this profile needs a secret from the caller, of at least {min} {measure}")]
    CallerSupplies {
        /// The least length.
        min: usize,
        /// What it is counted in.
        measure: Measure,
    },
    /// There is no secret to sign with.
    #[error("the endpoint has no live secret")]
    Missing,
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Characters => "characters",
            Self::Bytes => "bytes",
        })
    }
}

impl Profile {
    /// Checks a secret that a caller supplied.
    pub fn check_secret(&self, secret: &str) -> Result<(), SecretError> {
        let rules = self.secret();
        match rules.origin {
            SecretOrigin::Generated => Err(SecretError::ServiceGenerates),
            SecretOrigin::Supplied | SecretOrigin::Either => {
                if self.has_ed25519() && secret.starts_with(ED25519_SECRET_PREFIX) {
                    signing::check_ed25519(secret)
                } else {
                    rules.check(secret)
                }
            }
        }
    }

    /// Makes a secret from bytes that the caller drew by chance.
    ///
    /// Fails with [`SecretError::CallerSupplies`] where the service makes none.
    pub fn generate_secret(&self, random: [u8; 32]) -> Result<Clear, SecretError> {
        let rules = self.secret();
        match rules.origin {
            SecretOrigin::Supplied => {
                Err(SecretError::CallerSupplies { min: rules.length_min, measure: rules.measure() })
            }
            SecretOrigin::Generated | SecretOrigin::Either => {
                Ok(rules.generate(&Zeroizing::new(random)))
            }
        }
    }

    /// Makes an Ed25519 secret from bytes that the caller drew by chance. Its public key is
    /// [`signing::public_key`].
    pub fn generate_ed25519(&self, random: [u8; 32]) -> Result<Clear, SecretError> {
        let seed = Zeroizing::new(random);
        if self.has_ed25519() {
            Ok(signing::ed25519_secret(&seed))
        } else {
            Err(SecretError::Ed25519Unknown)
        }
    }

    /// Tells whether secrets can be Ed25519 keys.
    pub fn has_ed25519(&self) -> bool {
        self.signature.ed25519_prefix.is_some()
    }
}

impl SecretRules {
    /// The greatest length that a profile can allow, in either measure.
    pub const LENGTH_MAX: usize = 1_024;

    /// Returns what the lengths are counted in.
    pub const fn measure(&self) -> Measure {
        match self.key {
            KeyForm::Base64 => Measure::Bytes,
            KeyForm::Utf8 => Measure::Characters,
        }
    }

    /// Returns the key that a secret stands for, whatever its length.
    pub(crate) fn key_bytes(&self, secret: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        match self.key {
            KeyForm::Utf8 => Ok(Zeroizing::new(secret.as_bytes().to_vec())),
            KeyForm::Base64 => {
                let text = secret
                    .strip_prefix(&self.prefix)
                    .ok_or_else(|| SecretError::PrefixMissing { prefix: self.prefix.clone() })?;
                let key = BASE64_STANDARD.decode(text).map_err(|_| SecretError::NotBase64)?;
                Ok(Zeroizing::new(key))
            }
        }
    }

    pub(super) fn check(&self, secret: &str) -> Result<(), SecretError> {
        let measure = self.measure();
        let length = match self.key {
            KeyForm::Base64 => self.key_bytes(secret)?.len(),
            KeyForm::Utf8 => secret.chars().count(),
        };
        if length < self.length_min {
            return Err(SecretError::TooShort { length, min: self.length_min, measure });
        }
        if length > self.length_max {
            return Err(SecretError::TooLong { length, max: self.length_max, measure });
        }
        if secret.chars().any(char::is_control) {
            return Err(SecretError::ControlCharacters);
        }
        Ok(())
    }

    pub(super) fn generate(&self, random: &[u8; 32]) -> Clear {
        // Room for the longer form, so that no copy is left behind by growing.
        let mut text = String::with_capacity(self.prefix.len() + 64);
        text.push_str(&self.prefix);
        match self.key {
            KeyForm::Base64 => BASE64_STANDARD.encode_string(random, &mut text),
            KeyForm::Utf8 => HEXLOWER.encode_append(random, &mut text),
        }
        Clear::new(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::profile::Profiles;

    fn profile(name: &str) -> Arc<Profile> {
        Arc::clone(Profiles::built_in().get(name).unwrap())
    }

    #[test]
    fn a_generated_secret_has_the_providers_form() {
        let standard = profile("standard-webhooks").generate_secret([7; 32]).unwrap();
        assert_eq!(standard.expose(), "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
        assert_eq!(profile("standard-webhooks").check_secret(standard.expose()), Ok(()));
        for (name, prefix) in [("kryptos", "krs_"), ("kyberaccess", "kas_")] {
            let secret = profile(name).generate_secret([0xab; 32]).unwrap();
            assert_eq!(secret.expose(), format!("{prefix}{}", "ab".repeat(32)));
            assert_eq!(
                profile(name).check_secret(secret.expose()),
                Err(SecretError::ServiceGenerates)
            );
        }
    }

    #[test]
    fn a_caller_that_must_supply_a_secret_is_told_both_lengths() {
        let killb = profile("killb");
        let error = killb.check_secret("too short").unwrap_err();
        assert_eq!(
            error,
            SecretError::TooShort { length: 9, min: 32, measure: Measure::Characters }
        );
        let said = error.to_string();
        assert!(said.contains('9') && said.contains("32"), "{said}");
        // Characters are counted, not bytes.
        assert_eq!(killb.check_secret(&"é".repeat(31)).map_err(|_| ()), Err(()));
        assert_eq!(killb.check_secret(&"é".repeat(32)), Ok(()));
        assert!(matches!(killb.check_secret(&"x".repeat(257)), Err(SecretError::TooLong { .. })));
        assert_eq!(killb.check_secret(&"x\n".repeat(20)), Err(SecretError::ControlCharacters));
        assert!(matches!(
            killb.generate_secret([1; 32]),
            Err(SecretError::CallerSupplies { min: 32, .. })
        ));
    }

    #[test]
    fn a_secret_of_standard_webhooks_is_24_to_64_bytes_in_base64() {
        let standard = profile("standard-webhooks");
        let of = |length: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![1; length]));
        assert_eq!(standard.check_secret(&of(24)), Ok(()));
        assert_eq!(standard.check_secret(&of(64)), Ok(()));
        assert!(matches!(
            standard.check_secret(&of(23)),
            Err(SecretError::TooShort { length: 23, min: 24, .. })
        ));
        assert!(matches!(
            standard.check_secret(&of(65)),
            Err(SecretError::TooLong { length: 65, max: 64, .. })
        ));
        assert!(matches!(
            standard.check_secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            Err(SecretError::PrefixMissing { .. })
        ));
        for bad in [
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS-",
            "whsec_ MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert_eq!(standard.check_secret(bad), Err(SecretError::NotBase64), "{bad}");
        }
    }

    #[test]
    fn an_ed25519_secret_is_a_pair() {
        let standard = profile("standard-webhooks");
        let secret = standard.generate_ed25519([9; 32]).unwrap();
        assert_eq!(standard.check_secret(secret.expose()), Ok(()));
        assert!(signing::public_key(&secret).unwrap().starts_with("whpk_"));
        assert_eq!(signing::public_key(&Clear::new(String::from("whsec_AAAA"))), None);
        assert_eq!(standard.check_secret("whsk_AAAA"), Err(SecretError::Ed25519Malformed));
        let longer = format!("whsk_{}", BASE64_STANDARD.encode([1; 65]));
        assert_eq!(standard.check_secret(&longer), Err(SecretError::Ed25519Malformed));
        assert_eq!(
            profile("killb").generate_ed25519([9; 32]).map(drop),
            Err(SecretError::Ed25519Unknown)
        );
    }
}
