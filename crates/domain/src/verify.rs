//! The receiver's side of a signature: what `fanfare listen` does with what arrives.
//!
//! A receiver knows of a request only its headers and its body. So each placeholder of the signed
//! text is read off the header whose value is that placeholder and nothing else.

use subtle::ConstantTimeEq as _;

use crate::{
    profile::{
        Profile, SecretError,
        template::{Piece, Template},
    },
    seal::Clear,
    signing::Signer,
};

/// A request whose signature could not be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// A header that the signature needs is missing.
    #[error("the header {0} is missing")]
    HeaderMissing(String),
    /// What is signed cannot be known from the headers.
    #[error("the profile's signed text cannot be rebuilt from its headers")]
    NotRebuildable,
    /// The secret is not one of the profile.
    #[error("the secret does not fit the profile")]
    Secret(#[from] SecretError),
    /// The signature is another.
    #[error("the signature does not fit the body and the secret")]
    Mismatch,
}

impl Profile {
    /// Confirms that a request with these headers and body was signed with the secret. `header`
    /// returns the value of a header by its name in lower case.
    ///
    /// Compares in constant time. The age of the timestamp is the caller's to judge.
    pub fn verify<'a>(
        &self,
        secret: &Clear,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &[u8],
    ) -> Result<(), Unverified> {
        let missing = |name: &str| Unverified::HeaderMissing(name.to_owned());
        let name = &*self.signature().header;
        let signature = header(name).ok_or_else(|| missing(name))?;
        let (before, after) = &self.signature().content;
        let before = self.rebuild(before, &header)?;
        let after = self.rebuild(after, &header)?;
        let expected =
            Signer::new(self, [secret])?.sign(&[before.as_bytes(), body, after.as_bytes()]);
        // While a rotation overlaps the header is a list; one entry of ours is enough.
        let confirmed = signature
            .split(' ')
            .any(|entry| bool::from(entry.as_bytes().ct_eq(expected.as_bytes())));
        if confirmed { Ok(()) } else { Err(Unverified::Mismatch) }
    }

    fn rebuild<'a>(
        &self,
        template: &Template,
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<String, Unverified> {
        let mut text = String::new();
        for piece in template.pieces() {
            if let Piece::Text(plain) = piece {
                text.push_str(plain);
                continue;
            }
            let carrier = self
                .headers()
                .iter()
                .find(|header| header.value.pieces() == std::slice::from_ref(piece))
                .ok_or(Unverified::NotRebuildable)?;
            let value = header(&carrier.name);
            text.push_str(
                value.ok_or_else(|| Unverified::HeaderMissing(carrier.name.to_string()))?,
            );
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        DeliveryId, EndpointId, Event, EventId, Timestamp, TraceContext,
        profile::{Attempt, Profiles},
        request::Rendered,
    };

    fn event() -> Event {
        Event {
            id: EventId::of_message("INBOX", 1, Timestamp::from_millis(1_700_000_000_000)),
            tenant: "acme".parse().unwrap(),
            event_type: "RAMP.UPDATE".parse().unwrap(),
            occurred_at: Timestamp::from_millis(1_700_000_000_000),
            accepted_at: None,
            config_revision: None,
            data: Bytes::from_static(b"{\"a\":1}"),
            ordering_key: None,
            attributes: std::collections::BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        }
    }

    #[test]
    fn what_a_profile_signs_its_receiver_confirms() {
        let profiles = Profiles::built_in();
        for profile in profiles.iter() {
            let secret =
                profile.generate_secret([7; 32]).unwrap_or_else(|_| Clear::new("s".repeat(40)));
            let signer = Signer::new(profile, [&secret]).unwrap();
            let event = event();
            let delivery = DeliveryId::of(event.id, EndpointId::from_bytes([1; 16]), 0);
            let at = Timestamp::from_millis(1_700_000_001_000);
            let rendered = Rendered::new(&Arc::clone(profile), &event).unwrap();
            let request = rendered.request(&signer, &Attempt { delivery, number: 1, at });
            let verify = |secret: &Clear, body: &[u8]| {
                profile.verify(secret, |name| request.header(name), body)
            };
            assert_eq!(verify(&secret, &request.body), Ok(()), "{}", profile.name);
            assert_eq!(verify(&secret, b"{}"), Err(Unverified::Mismatch), "{}", profile.name);
            let none = profile.verify(&secret, |_| None, &request.body);
            assert!(matches!(none, Err(Unverified::HeaderMissing(_))), "{}", profile.name);
        }
    }
}
