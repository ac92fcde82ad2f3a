//! Signatures: what receivers check to know that a request is ours and was not altered.
//!
//! Keys are made ready once per endpoint and rotation; a signature then costs one pass over the
//! body (two for Ed25519), which is read where it lies.

use std::{fmt, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::HEXLOWER;
use ed25519_dalek::{
    Digest as _, Sha512, SigningKey, VerifyingKey,
    hazmat::{ExpandedSecretKey, raw_sign_byupdate},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    profile::{Profile, SecretError, SecretRules, template::Template},
    seal::Clear,
};

/// What the text of an Ed25519 secret begins with.
pub(crate) const ED25519_SECRET_PREFIX: &str = "whsk_";
/// What the text of an Ed25519 public key begins with.
const ED25519_PUBLIC_PREFIX: &str = "whpk_";

/// How a profile's requests are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureRules {
    /// The header that carries the signature; in lower case.
    pub header: Arc<str>,
    /// How the HMAC-SHA256 is written.
    pub encoding: Encoding,
    /// What stands before an HMAC in the header, for example `v1,`.
    pub prefix: String,
    /// What stands before an Ed25519 signature; `None` if there are none.
    pub ed25519_prefix: Option<String>,
    /// Which secrets sign while a rotation overlaps.
    pub secrets: SigningSecrets,
    /// What is signed before the body, and after it.
    pub(crate) content: (Template, Template),
    pub(crate) secret: SecretRules,
}

/// How the bytes of an HMAC are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Hexadecimal digits in lower case.
    Hex,
    /// Base 64 with padding.
    Base64,
}

/// Which of an endpoint's live secrets sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningSecrets {
    /// All of them: the header is a list.
    All,
    /// The newest: the header is one signature.
    Newest,
}

/// The live secrets of an endpoint, ready to sign. Erased when dropped.
#[derive(Clone)]
pub struct Signer {
    rules: Arc<SignatureRules>,
    hmac: Vec<Hmac<Sha256>>,
    ed25519: Vec<Arc<Ed25519Key>>,
}

struct Ed25519Key {
    secret: ExpandedSecretKey,
    public: VerifyingKey,
}

/// A secret of either kind.
enum Key {
    Hmac(Box<Hmac<Sha256>>),
    Ed25519(Arc<Ed25519Key>),
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("header", &self.rules.header).finish_non_exhaustive()
    }
}

impl Signer {
    /// Makes an endpoint's live secrets ready, newest first.
    pub fn new<'a>(
        profile: &Profile,
        secrets: impl IntoIterator<Item = &'a Clear>,
    ) -> Result<Self, SecretError> {
        let rules = Arc::clone(&profile.signature);
        let used = match rules.secrets {
            SigningSecrets::All => usize::MAX,
            SigningSecrets::Newest => 1,
        };
        let mut signer = Self { rules, hmac: Vec::new(), ed25519: Vec::new() };
        for secret in secrets.into_iter().take(used) {
            match Key::parse(&signer.rules, secret.expose())? {
                Key::Hmac(key) => signer.hmac.push(*key),
                Key::Ed25519(key) => signer.ed25519.push(key),
            }
        }
        if signer.hmac.is_empty() && signer.ed25519.is_empty() {
            return Err(SecretError::Missing);
        }
        Ok(signer)
    }

    /// Signs the parts as if they were one text, and returns the header's value: one entry per
    /// secret, separated by single spaces, HMACs first.
    pub fn sign(&self, parts: &[&[u8]]) -> String {
        let mut value = String::with_capacity(96 * (self.hmac.len() + self.ed25519.len()));
        for key in &self.hmac {
            let mut mac = key.clone();
            for part in parts {
                mac.update(part);
            }
            let code = mac.finalize().into_bytes();
            begin_entry(&mut value, &self.rules.prefix);
            match self.rules.encoding {
                Encoding::Hex => HEXLOWER.encode_append(&code, &mut value),
                Encoding::Base64 => BASE64_STANDARD.encode_string(code, &mut value),
            }
        }
        for key in &self.ed25519 {
            begin_entry(&mut value, self.rules.ed25519_prefix.as_deref().unwrap_or_default());
            BASE64_STANDARD.encode_string(key.sign(parts), &mut value);
        }
        value
    }
}

fn begin_entry(value: &mut String, prefix: &str) {
    if !value.is_empty() {
        value.push(' ');
    }
    value.push_str(prefix);
}

impl Key {
    fn parse(rules: &SignatureRules, secret: &str) -> Result<Self, SecretError> {
        if rules.ed25519_prefix.is_some() && secret.starts_with(ED25519_SECRET_PREFIX) {
            return Ed25519Key::parse(secret).map(Arc::new).map(Self::Ed25519);
        }
        let key = rules.secret.key_bytes(secret)?;
        let mac = Hmac::new_from_slice(&key).expect("an HMAC takes keys of any length");
        Ok(Self::Hmac(Box::new(mac)))
    }
}

impl Ed25519Key {
    fn of_seed(seed: &[u8; 32]) -> Self {
        let public = SigningKey::from_bytes(seed).verifying_key();
        Self { secret: ExpandedSecretKey::from(seed), public }
    }

    /// Reads `whsk_` and base 64 of the seed and the public key.
    fn parse(secret: &str) -> Result<Self, SecretError> {
        let text = secret.strip_prefix(ED25519_SECRET_PREFIX).unwrap_or_default();
        let bytes = Zeroizing::new(
            BASE64_STANDARD.decode(text).map_err(|_| SecretError::Ed25519Malformed)?,
        );
        let (seed, public) = bytes.split_first_chunk().ok_or(SecretError::Ed25519Malformed)?;
        if public.len() != ed25519_dalek::PUBLIC_KEY_LENGTH {
            return Err(SecretError::Ed25519Malformed);
        }
        // The public key is an input of the signature: a foreign one would give the seed away.
        let key = Self::of_seed(seed);
        if key.public.as_bytes() == public { Ok(key) } else { Err(SecretError::Ed25519Mismatch) }
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; 64] {
        let update = |hash: &mut Sha512| {
            for part in parts {
                hash.update(part);
            }
            Ok(())
        };
        raw_sign_byupdate(&self.secret, update, &self.public)
            .expect("only the update could fail, and it does not")
            .to_bytes()
    }
}

/// Checks the text of an Ed25519 secret.
pub(crate) fn check_ed25519(secret: &str) -> Result<(), SecretError> {
    Ed25519Key::parse(secret).map(drop)
}

/// Writes the Ed25519 secret with that seed.
pub(crate) fn ed25519_secret(seed: &[u8; 32]) -> Clear {
    let pair = Zeroizing::new(SigningKey::from_bytes(seed).to_keypair_bytes());
    let mut text = String::with_capacity(96);
    text.push_str(ED25519_SECRET_PREFIX);
    BASE64_STANDARD.encode_string(*pair, &mut text);
    Clear::new(text)
}

/// Returns the public key that receivers check an Ed25519 secret's signatures with, `whpk_…`;
/// `None` for a secret of another kind.
pub fn public_key(secret: &Clear) -> Option<String> {
    let key = ed25519_public(secret)?;
    Some(format!("{ED25519_PUBLIC_PREFIX}{}", BASE64_STANDARD.encode(key)))
}

/// Returns the bytes of the same; `None` for a secret of another kind.
pub fn ed25519_public(secret: &Clear) -> Option<[u8; 32]> {
    Ed25519Key::parse(secret.expose()).ok().map(|key| key.public.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profiles;

    const ED25519: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const FIRST_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const ED25519_SIGNATURE: &str = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
    const FIRST_CONTENT: [&[u8]; 3] =
        [b"msg_p5jXN8AQM9LWM0D4loKWxJek.", b"1614265330.", br#"{"test": 2432232314}"#];

    fn clear(text: &str) -> Clear {
        Clear::new(String::from(text))
    }

    fn signer(profile: &str, secrets: &[&str]) -> Result<Signer, SecretError> {
        let secrets: Vec<_> = secrets.iter().map(|secret| clear(secret)).collect();
        Signer::new(Profiles::built_in().get(profile).unwrap(), &secrets)
    }

    fn standard(secrets: &[&str], parts: &[&[u8]]) -> String {
        signer("standard-webhooks", secrets).unwrap().sign(parts)
    }

    #[test]
    fn the_reference_vectors_of_standard_webhooks_hold() {
        assert_eq!(standard(&[FIRST], &FIRST_CONTENT), FIRST_SIGNATURE);
        let second: [&[u8]; 1] = [br#"msg_27UH4WbU6Z5A5EzD8u03UvzRbpk.1649367553.{"email":"test@example.com","username":"test_user"}"#];
        assert_eq!(
            standard(&["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"], &second),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        assert_eq!(standard(&[ED25519], &FIRST_CONTENT), ED25519_SIGNATURE);
        assert_eq!(
            public_key(&clear(ED25519)).unwrap(),
            "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
        );
    }

    #[test]
    fn a_rotation_signs_with_every_secret_and_hmac_first() {
        assert_eq!(
            standard(&[ED25519, FIRST], &FIRST_CONTENT),
            format!("{FIRST_SIGNATURE} {ED25519_SIGNATURE}")
        );
    }

    #[test]
    fn a_profile_with_one_signature_uses_the_newest_secret() {
        // RFC 4231, test case 2.
        let value = signer("kryptos", &["Jefe", "older"])
            .unwrap()
            .sign(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(value, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let value =
            signer("kyberaccess", &["Jefe"]).unwrap().sign(&[b"what do ya want for nothing?"]);
        assert_eq!(
            value,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn an_endpoint_without_a_usable_secret_signs_nothing() {
        assert_eq!(signer("killb", &[]).map(drop), Err(SecretError::Missing));
        assert_eq!(
            signer("standard-webhooks", &["whsec_!"]).map(drop),
            Err(SecretError::NotBase64)
        );
        let other = ED25519.replace("VKIDij2", "VKIDij3");
        assert_eq!(
            signer("standard-webhooks", &[&other]).map(drop),
            Err(SecretError::Ed25519Mismatch)
        );
    }

    #[test]
    fn a_signer_shows_no_key() {
        let shown = format!("{:?}", signer("standard-webhooks", &[FIRST, ED25519]).unwrap());
        assert_eq!(shown, r#"Signer { header: "webhook-signature", .. }"#);
    }
}
