//! Batches: several events in one request, as a JSON array.
//!
//! ```text
//! profile ──▶ Batch ◀── event, event, …     Batch ──signer──▶ Request
//! ```
//!
//! Each element is the event's own body, with its id in it. The batch has an id of its own, a
//! function of its deliveries: the same ones tried again have the same id, with more or fewer of
//! them it is another. Timestamp and signature are of the whole request.

use std::sync::Arc;

use crate::{
    BatchId, DeliveryId, Event, Signer, TenantId, Timestamp,
    body::DataRefused,
    profile::{Attempt, Profile},
    request::Request,
};

/// The request of a batch, as it is put together.
#[derive(Clone, Debug)]
pub struct Batch {
    profile: Arc<Profile>,
    number: u32,
    at: Timestamp,
    body: String,
    deliveries: Vec<DeliveryId>,
    tenant: Option<TenantId>,
}

/// Whether an event is in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Added,
    /// It is not: with it the body would be too large.
    TooLarge,
}

impl Batch {
    /// The most bytes of a body that carries more than one event.
    pub const BYTES_MAX: usize = 1 << 20;

    /// Begins the request of attempt number `number` of some deliveries of one tenant, made `at`
    /// that time. `None` if the profile has no batches.
    pub fn new(profile: &Arc<Profile>, number: u32, at: Timestamp) -> Option<Self> {
        profile.has_batches().then(|| Self {
            profile: Arc::clone(profile),
            number,
            at,
            body: String::from("["),
            deliveries: Vec::new(),
            tenant: None,
        })
    }

    /// Adds the event of a delivery. Fails only for data that the profile would not have admitted;
    /// then nothing is added.
    pub fn add(&mut self, event: &Event, delivery: DeliveryId) -> Result<Fit, DataRefused> {
        let Some(rules) = &self.profile.batch else { return Ok(Fit::TooLarge) };
        let attempt = Attempt { delivery, number: self.number, at: self.at };
        let element = rules.element.render_text(event, &attempt)?;
        let is_first = self.deliveries.is_empty();
        // With the comma before it and the bracket in the end.
        if !is_first && self.body.len() + element.len() + 2 > Self::BYTES_MAX {
            return Ok(Fit::TooLarge);
        }
        if !is_first {
            self.body.push(',');
        }
        self.body.push_str(&element);
        self.deliveries.push(delivery);
        self.tenant.get_or_insert_with(|| event.tenant.clone());
        Ok(Fit::Added)
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Tells whether it has no event.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Identifies it as it is now.
    pub fn id(&self) -> BatchId {
        BatchId::of(self.deliveries.iter().copied())
    }

    /// Builds and signs the request. `None` if there is no event.
    pub fn request(self, signer: &Signer) -> Option<Request> {
        self.build(|pieces| signer.sign(pieces))
    }

    /// Builds the request as it was sent, with the signature that is on record. `None` if there is
    /// no event.
    pub fn request_as_sent(self, signature: &str) -> Option<Request> {
        self.build(|_| String::from(signature))
    }

    fn build(mut self, sign: impl FnOnce(&[&[u8]]) -> String) -> Option<Request> {
        let (rules, id) = (self.profile.batch.as_ref()?, self.id());
        let (tenant, delivery) = (self.tenant.as_ref()?, *self.deliveries.first()?);
        let attempt = Attempt { delivery, number: self.number, at: self.at };
        self.body.push(']');
        let (before, after) = &rules.content;
        let before = before.text_for(id, tenant, &attempt);
        let after = after.text_for(id, tenant, &attempt);
        let signature = sign(&[before.as_bytes(), self.body.as_bytes(), after.as_bytes()]);
        let headers = rules.headers.iter();
        let headers = headers
            .map(|(name, value)| (Arc::clone(name), value.text_for(id, tenant, &attempt).into()));
        let headers = headers.collect();
        Some(Request::new(headers, (&self.profile, signature), self.body.into()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::{
        EndpointId,
        profile::{Profiles, tests::event},
        seal::Clear,
    };

    const AT: Timestamp = Timestamp::from_millis(1_700_000_001_500);
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn standard() -> Arc<Profile> {
        Arc::clone(Profiles::built_in().get(Profile::DEFAULT).unwrap())
    }

    fn numbered(n: u8, data: &str) -> (Event, DeliveryId) {
        let mut event = event("invoice.paid", data);
        event.id = crate::EventId::new(event.occurred_at, [n; 10]);
        let delivery = DeliveryId::of(event.id, EndpointId::from_bytes([1; 16]), 0);
        (event, delivery)
    }

    fn batch(of: &[(Event, DeliveryId)]) -> Batch {
        let mut batch = Batch::new(&standard(), 2, AT).unwrap();
        for (event, delivery) in of {
            assert_eq!(batch.add(event, *delivery), Ok(Fit::Added));
        }
        batch
    }

    #[test]
    fn a_batch_is_an_array_of_bodies_with_their_ids() {
        let events = [numbered(1, r#"{ "n": 1.50 }"#), numbered(2, "[]")];
        let signer = Signer::new(&standard(), [&Clear::new(String::from(SECRET))]).unwrap();
        let id = batch(&events).id();
        let request = batch(&events).request(&signer).unwrap();
        let own = |(event, delivery): &(Event, DeliveryId)| {
            let rendered = crate::Rendered::new(&standard(), event).unwrap();
            let body = rendered.body(&Attempt { delivery: *delivery, number: 2, at: AT });
            let body = std::str::from_utf8(&body).unwrap().replacen('{', "", 1);
            format!(r#"{{"id":"{}",{body}"#, event.id)
        };
        let expected = format!("[{},{}]", own(&events[0]), own(&events[1]));
        assert_eq!(request.body, expected);
        assert!(expected.contains("1.50"), "numbers are exact");
        assert_eq!(request.header("webhook-id"), Some(&*id.to_string()));
        assert_eq!(request.header("webhook-timestamp"), Some("1700000001"));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let content = format!("{id}.1700000001.{expected}");
        assert_eq!(request.signature(), signer.sign(&[content.as_bytes()]));
        let secret = Clear::new(String::from(SECRET));
        let verified =
            standard().verify(&secret, |name| request.header(name), request.body.as_ref());
        assert_eq!(verified, Ok(()), "as any receiver of the profile verifies it");
    }

    #[test]
    fn the_same_events_are_the_same_batch() {
        let [one, two, three] = [1, 2, 3].map(|n| numbered(n, "{}"));
        let ids = |of: &[&(Event, DeliveryId)]| {
            batch(&of.iter().copied().cloned().collect::<Vec<_>>()).id()
        };
        assert_eq!(ids(&[&one, &two]), ids(&[&two, &one]));
        assert_ne!(ids(&[&one, &two]), ids(&[&one, &two, &three]));
        assert_ne!(ids(&[&one]), ids(&[&two]));
    }

    #[test]
    fn a_body_is_never_too_large_but_of_one_event() {
        let huge = format!("\"{}\"", "x".repeat(Batch::BYTES_MAX));
        let large = format!("\"{}\"", "x".repeat(Batch::BYTES_MAX / 3));
        let signer = Signer::new(&standard(), [&Clear::new(String::from(SECRET))]).unwrap();
        let (event, delivery) = numbered(1, &huge);
        let mut alone = Batch::new(&standard(), 1, AT).unwrap();
        assert_eq!(alone.add(&event, delivery), Ok(Fit::Added));
        let mut batch = Batch::new(&standard(), 1, AT).unwrap();
        let fits: Vec<_> = (1..=4)
            .map(|n| {
                let (event, delivery) = numbered(n, &large);
                batch.add(&event, delivery).unwrap()
            })
            .collect();
        assert_eq!(fits, [Fit::Added, Fit::Added, Fit::TooLarge, Fit::TooLarge]);
        let (event, delivery) = numbered(5, "{}");
        assert_eq!(batch.add(&event, delivery), Ok(Fit::Added), "a small one still fits");
        let body = batch.request(&signer).unwrap().body;
        assert!(body.len() <= Batch::BYTES_MAX);
        let elements: Vec<Value> = serde_json::from_slice(&body).unwrap();
        assert_eq!(elements.len(), 3);
    }

    #[test]
    fn data_that_is_not_json_leaves_the_batch_as_it_was() {
        let mut batch = batch(&[numbered(1, "{}")]);
        let (mut event, delivery) = numbered(2, "{}");
        event.data = Bytes::from_static(b"},{");
        assert!(batch.add(&event, delivery).is_err());
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn a_profile_without_batches_makes_none() {
        for name in ["kryptos", "killb", "kyberaccess"] {
            let profile = Arc::clone(Profiles::built_in().get(name).unwrap());
            assert!(Batch::new(&profile, 1, AT).is_none(), "{name}");
        }
    }
}
