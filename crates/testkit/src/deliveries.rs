//! Naming deliveries of stored events.

use fanfare_domain::{DeliveryId, DeliveryRef, EndpointId, StoredEvent};

/// Names the delivery of an event to an endpoint, as the facts about it do.
pub fn delivery_of(stored: &StoredEvent, endpoint: EndpointId, generation: u32) -> DeliveryRef {
    let event = &stored.event;
    DeliveryRef {
        id: DeliveryId::of(event.id, endpoint, generation),
        tenant: event.tenant.clone(),
        event: event.id,
        event_sequence: stored.sequence,
        event_type: event.event_type.clone(),
        endpoint,
        generation,
        accepted_at: stored.accepted_at,
    }
}
