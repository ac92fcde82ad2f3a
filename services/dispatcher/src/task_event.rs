//! The event of a task, shared by the attempts for its targets.

use std::sync::{Arc, OnceLock};

use fanfare_domain::{
    DeliveryRef, Event, StoredEvent, Target, Timestamp, TraceContext, profile::Profile,
    request::Rendered,
};

use crate::memory::Bytes;

/// An event that several deliveries of a task share, rendered once.
#[derive(Debug)]
pub(crate) struct TaskEvent {
    stored: StoredEvent,
    rendered: OnceLock<Arc<Rendered>>,
    _memory: Arc<Bytes>,
}

impl TaskEvent {
    /// Wraps an event that is not rendered yet.
    pub(crate) fn new(stored: StoredEvent, memory: Arc<Bytes>) -> Self {
        Self { stored, rendered: OnceLock::new(), _memory: memory }
    }

    /// The trace that the event belongs to.
    pub(crate) fn trace(&self) -> &TraceContext {
        &self.stored.event.trace
    }

    /// When the event was accepted.
    pub(crate) fn accepted_at(&self) -> Timestamp {
        self.stored.accepted_at
    }

    /// How many bytes its data has.
    pub(crate) fn bytes(&self) -> usize {
        self.stored.event.data.len()
    }

    /// The event itself.
    pub(crate) fn event(&self) -> &Event {
        &self.stored.event
    }

    /// Names the delivery of the event to a target.
    pub(crate) fn delivery(&self, target: &Target, generation: u32) -> DeliveryRef {
        let event = &self.stored.event;
        DeliveryRef {
            id: target.delivery,
            tenant: event.tenant.clone(),
            event: event.id,
            event_sequence: self.stored.sequence,
            event_type: event.event_type.clone(),
            endpoint: target.endpoint,
            generation,
            accepted_at: self.stored.accepted_at,
        }
    }

    /// Returns it in a profile's form; the error says why it has none.
    pub(crate) fn render(&self, profile: &Arc<Profile>) -> Result<Arc<Rendered>, String> {
        // All targets of a task are of one tenant, which has one profile.
        if let Some(rendered) = self.rendered.get()
            && Arc::ptr_eq(rendered.profile(), profile)
        {
            return Ok(Arc::clone(rendered));
        }
        let rendered =
            Rendered::new(profile, &self.stored.event).map_err(|error| error.to_string())?;
        let rendered = Arc::new(rendered);
        // Where another profile's is kept already, this one is used and forgotten.
        let _kept = self.rendered.set(Arc::clone(&rendered));
        Ok(rendered)
    }
}
