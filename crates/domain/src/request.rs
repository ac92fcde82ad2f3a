//! Requests: what is sent to an endpoint, from the event, the profile and the endpoint's secrets.
//!
//! ```text
//! event + profile ──▶ Rendered ──attempt, signer──▶ Request
//! ```
//!
//! All that is the same for every target and attempt is in [`Rendered`], made once. Per attempt
//! remain the short texts that differ, and the signature over the body where it lies.

use std::sync::Arc;

use bytes::Bytes;

pub use crate::profile::Attempt;
use crate::{
    Event, HeaderText,
    body::{Body, DataRefused},
    profile::{Profile, template::Filled},
    signing::Signer,
};

/// The name of a header that every request has.
pub const CONTENT_TYPE: &str = "content-type";
/// Its value.
const JSON: HeaderText = HeaderText::from_static("application/json");

/// An event, ready to be sent in the way of a profile.
#[derive(Clone, Debug)]
pub struct Rendered {
    profile: Arc<Profile>,
    body: Body,
    headers: Vec<Value>,
    content: (Filled, Filled),
}

/// The value of a header of the profile.
#[derive(Clone, Debug)]
enum Value {
    /// The same for every target and attempt.
    Shared(HeaderText),
    /// Different between attempts.
    PerAttempt(Filled),
}

impl Value {
    fn of(filled: Filled) -> Self {
        filled.into_constant().map_or_else(Self::PerAttempt, |text| Self::Shared(text.into()))
    }

    fn for_attempt(&self, attempt: &Attempt) -> HeaderText {
        match self {
            Self::Shared(text) => text.clone(),
            Self::PerAttempt(filled) => filled.text_for(attempt).into(),
        }
    }
}

/// What is sent: a POST with these headers and this body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names in lower case, each once, with values of visible ASCII. Without `host`,
    /// `content-length` and the endpoint's own headers.
    pub headers: Vec<(Arc<str>, HeaderText)>,
    /// The exact bytes.
    pub body: Bytes,
}

impl Rendered {
    /// Renders an event. Fails only for data that the profile would not have admitted.
    pub fn new(profile: &Arc<Profile>, event: &Event) -> Result<Self, DataRefused> {
        let (before, after) = &profile.signature.content;
        Ok(Self {
            profile: Arc::clone(profile),
            body: profile.body().render(event)?,
            headers: profile
                .headers()
                .iter()
                .map(|header| Value::of(header.value.fill_plain(event)))
                .collect(),
            content: (before.fill_plain(event), after.fill_plain(event)),
        })
    }

    /// Returns the profile that it was rendered with.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// Tells whether all attempts and targets have the same body. Then no request copies it.
    pub fn has_shared_body(&self) -> bool {
        match self.body {
            Body::Shared(_) => true,
            Body::PerAttempt(_) => false,
        }
    }

    /// Returns the body of an attempt.
    pub fn body(&self, attempt: &Attempt) -> Bytes {
        self.body.bytes_for(attempt)
    }

    /// Builds and signs the request of an attempt.
    pub fn request(&self, signer: &Signer, attempt: &Attempt) -> Request {
        let body = self.body(attempt);
        let (before, after) = (self.content.0.text_for(attempt), self.content.1.text_for(attempt));
        let signature = signer.sign(&[before.as_bytes(), &body, after.as_bytes()]);
        self.with_signature(signature, body, attempt)
    }

    /// Builds the request of an attempt as it was sent, with the signature that is on record.
    pub fn request_as_sent(&self, signature: &str, attempt: &Attempt) -> Request {
        self.with_signature(String::from(signature), self.body(attempt), attempt)
    }

    fn with_signature(&self, signature: String, body: Bytes, attempt: &Attempt) -> Request {
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        headers.push((content_type(), JSON));
        for (header, value) in self.profile.headers().iter().zip(&self.headers) {
            headers.push((Arc::clone(&header.name), value.for_attempt(attempt)));
        }
        headers.push((Arc::clone(&self.profile.signature.header), signature.into()));
        Request { headers, body }
    }
}

impl Request {
    /// Puts a request together from the profile's headers and its signature.
    pub(crate) fn new(
        mut headers: Vec<(Arc<str>, HeaderText)>,
        (profile, signature): (&Profile, String),
        body: Bytes,
    ) -> Self {
        headers.insert(0, (content_type(), JSON));
        headers.push((Arc::clone(&profile.signature.header), signature.into()));
        Self { headers, body }
    }

    /// Returns the value of the signature header.
    pub fn signature(&self) -> &str {
        self.headers.last().map_or("", |(_, value)| value)
    }

    /// Returns the value of a header; the name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| &**own == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn content_type() -> Arc<str> {
    static NAME: std::sync::LazyLock<Arc<str>> =
        std::sync::LazyLock::new(|| Arc::from(CONTENT_TYPE));
    Arc::clone(&NAME)
}
