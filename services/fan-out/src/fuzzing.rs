//! A door to the index of patterns for `tests/fuzzing`, and for nobody else.

use fanfare_domain::{EndpointId, EventType, TypePattern};

use crate::routes::Patterns;

/// The patterns of one tenant's endpoints.
#[derive(Debug, Default)]
pub struct Index(Patterns);

impl Index {
    /// Notes that an endpoint has a pattern.
    pub fn insert(&mut self, pattern: &TypePattern, endpoint: EndpointId) {
        self.0.insert(pattern, endpoint);
    }

    /// Notes that an endpoint no longer has a pattern.
    pub fn remove(&mut self, pattern: &TypePattern, endpoint: EndpointId) {
        self.0.remove(pattern, endpoint);
    }

    /// Returns every endpoint that has a pattern for the type, in order and once.
    pub fn choose(&self, event_type: &EventType) -> Vec<EndpointId> {
        self.0.choose(event_type)
    }

    /// Tells whether nobody has a pattern.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
