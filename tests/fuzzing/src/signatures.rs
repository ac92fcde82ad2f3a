//! Signatures: receivers that follow the providers' recipes accept what we sign, and nothing else.
//!
//! Checked against HMAC built from SHA-256 by RFC 2104, and against the ordinary verification of
//! Ed25519. An input is a byte for the profile, one for the secrets, 32 for chance, and then the
//! event's data, a line `---` and a header that somebody made up.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use fanfare_domain::{
    Batch, Profile, Profiles, Rendered, Request, Signer, json::Limits, seal::Clear,
    signing::public_key,
};
use sha2::{Digest as _, Sha256};

use crate::{
    input::{halves, take},
    sample::{attempt, event},
};

/// Reads an input as an event, secrets and a header.
pub fn run(input: &[u8]) {
    let mut input = input;
    let [which, secrets] = take(&mut input);
    let seed: [u8; 32] = take(&mut input);
    let rest = String::from_utf8_lossy(input);
    let (data, header) = halves(&rest);
    let profiles = Profiles::built_in();
    let Some(profile) = profiles.iter().nth(usize::from(which % 4)) else { return };
    let data = match profile.admit_data(data.as_bytes(), &Limits::default()) {
        Ok(()) => String::from(data),
        // Any text is JSON, as one.
        Err(_) => serde_json::to_string(data).expect("a text can be written as JSON"),
    };
    let secrets = Secrets::of(profile, seed, secrets);
    let event = event("RAMP.UPDATE".parse().expect("it is a type"), data.as_bytes());
    let attempt = attempt(&event, u32::from(which) + 1);
    let rendered = Rendered::new(profile, &event).expect("what was admitted can be sent");
    let request = rendered.request(&secrets.signer(profile), &attempt);
    accepted(profile, &request, &secrets);
    forged(profile, &request, &secrets, header);
    assert_eq!(rendered.request_as_sent(request.signature(), &attempt), request, "shown again");
    if let Some(mut batch) = Batch::new(profile, 1, attempt.at) {
        batch.add(&event, attempt.delivery).expect("what was admitted can be sent");
        let request = batch.request(&secrets.signer(profile)).expect("there is an event in it");
        accepted(profile, &request, &secrets);
    }
}

/// The secrets of an endpoint, newest first.
struct Secrets(Vec<Clear>);

impl Secrets {
    /// Makes one to three secrets.
    fn of(profile: &Profile, seed: [u8; 32], which: u8) -> Self {
        let make = |seed: [u8; 32]| match profile.generate_secret(seed) {
            Ok(secret) => secret,
            // The caller makes it up: any text of the right length.
            Err(_) => Clear::new(BASE64_STANDARD.encode(seed)),
        };
        let mut all = vec![make(seed)];
        if which & 1 == 1 {
            all.push(make(seed.map(|byte| !byte)));
        }
        if let Ok(pair) = profile.generate_ed25519(seed) {
            match which & 6 {
                2 => all.push(pair),
                4 => all.insert(0, pair),
                6 => all = vec![pair],
                _ => {}
            }
        }
        Self(all)
    }

    fn signer(&self, profile: &Profile) -> Signer {
        Signer::new(profile, &self.0).expect("secrets that were made can be used")
    }
}

/// What is signed, by the providers' own words.
fn content(profile: &Profile, request: &Request) -> Vec<u8> {
    let header = |name| request.header(name).expect("the profile sets it").as_bytes();
    let (dot, body): (&[u8], &[u8]) = (b".", &request.body);
    match profile.name.as_str() {
        "standard-webhooks" => {
            [header("webhook-id"), dot, header("webhook-timestamp"), dot, body].concat()
        }
        "kyberaccess" => [header("x-kyberaccess-timestamp"), dot, body].concat(),
        _ => body.to_vec(),
    }
}

/// Every entry is the signature of one secret, and every secret has one; or the newest alone.
fn accepted(profile: &Arc<Profile>, request: &Request, secrets: &Secrets) {
    let content = content(profile, request);
    let entries: Vec<&str> = request.signature().split(' ').collect();
    let is_list = profile.name == "standard-webhooks";
    let used = if is_list { secrets.0.len() } else { 1 };
    assert_eq!(entries.len(), used, "{}", request.signature());
    for secret in secrets.0.iter().take(used) {
        let confirms = |entry: &&str| match public_key(secret).filter(|_| is_list) {
            Some(public) => confirms_ed25519(&public, entry, &content),
            None => *entry == hmac_entry(profile, secret.expose(), &content),
        };
        assert_eq!(
            entries.iter().copied().filter(|entry| confirms(entry)).count(),
            1,
            "{entries:?}"
        );
        let header = |name: &str| request.header(name);
        assert_eq!(profile.verify(secret, header, &request.body), Ok(()), "our own receiver");
    }
}

/// Another body, another secret or a header that somebody made up is not accepted.
fn forged(profile: &Profile, request: &Request, secrets: &Secrets, made_up: &str) {
    let Some(secret) = secrets.0.first() else { return };
    let header = |name: &str| request.header(name);
    let longer = [&request.body[..], b" "].concat();
    assert!(profile.verify(secret, header, &longer).is_err(), "a longer body");
    let mut altered = request.body.to_vec();
    if let Some(byte) = altered.get_mut(made_up.len() % request.body.len()) {
        *byte ^= 1;
    }
    assert!(profile.verify(secret, header, &altered).is_err(), "an altered body");
    let other = Secrets::of(profile, [0x5a; 32], 0);
    let is_ours = |other: &&Clear| secrets.0.iter().any(|own| own.expose() == other.expose());
    if let Some(other) = other.0.first().filter(|other| !is_ours(other)) {
        assert!(profile.verify(other, header, &request.body).is_err(), "another secret");
    }
    let name = &*profile.signature().header;
    let given = |asked: &str| if asked == name { Some(made_up) } else { request.header(asked) };
    let is_ours = |entry: &str| request.signature().split(' ').any(|own| own == entry);
    let found = profile.verify(secret, given, &request.body).is_ok();
    assert!(!found || made_up.split(' ').any(is_ours), "made up: {made_up:?}");
    let among = format!("{made_up} {} v1,", request.signature());
    let given = |asked: &str| if asked == name { Some(&*among) } else { request.header(asked) };
    assert_eq!(profile.verify(secret, given, &request.body), Ok(()), "one of many: {among:?}");
}

fn confirms_ed25519(public: &str, entry: &str, content: &[u8]) -> bool {
    let key = public.strip_prefix("whpk_").and_then(|key| BASE64_STANDARD.decode(key).ok());
    let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).expect("a public key has 32 bytes");
    let key = VerifyingKey::from_bytes(&key).expect("it is one");
    let signature = entry.strip_prefix("v1a,").and_then(|entry| BASE64_STANDARD.decode(entry).ok());
    let signature = signature.and_then(|bytes| Signature::from_slice(&bytes).ok());
    signature.is_some_and(|signature| key.verify_strict(content, &signature).is_ok())
}

fn hmac_entry(profile: &Profile, secret: &str, content: &[u8]) -> String {
    let hex = |code: [u8; 32]| code.map(|byte| format!("{byte:02x}")).concat();
    let utf8 = || hmac(secret.as_bytes(), content);
    match profile.name.as_str() {
        "standard-webhooks" => {
            let key =
                secret.strip_prefix("whsec_").and_then(|key| BASE64_STANDARD.decode(key).ok());
            let code = hmac(&key.expect("a secret is base 64"), content);
            format!("v1,{}", BASE64_STANDARD.encode(code))
        }
        "kyberaccess" => format!("sha256={}", hex(utf8())),
        _ => hex(utf8()),
    }
}

/// RFC 2104.
fn hmac(key: &[u8], content: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    let hashed: [u8; 32] = Sha256::digest(key).into();
    let short = if key.len() > block.len() { hashed.as_slice() } else { key };
    for (to, from) in block.iter_mut().zip(short) {
        *to = *from;
    }
    let [inner, outer] = [0x36, 0x5c].map(|pad| block.map(|byte: u8| byte ^ pad));
    let inner = Sha256::digest([inner.as_slice(), content].concat());
    Sha256::digest([outer.as_slice(), inner.as_slice()].concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_4231() {
        let code = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(code[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        let code = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(code[..4], [0x60, 0xe4, 0x31, 0x59]);
    }
}
