//! What can be looked for.

use std::{collections::BTreeSet, fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use fanfare_domain::{
    DeliveryId, EndpointId, EventId, EventType, TenantId, Timestamp, TypePattern,
};

use crate::rows::State;

/// Which deliveries. All that is said has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Whose.
    pub tenant: TenantId,
    /// To which endpoint.
    pub endpoint: Option<EndpointId>,
    /// In one of these states; none for any.
    pub states: BTreeSet<State>,
    /// Of this type.
    pub event_type: Option<EventType>,
    /// Of a type that the pattern chooses.
    pub pattern: Option<TypePattern>,
    /// Of this event.
    pub event: Option<EventId>,
    /// Of events accepted at that time or later, to the millisecond.
    pub since: Option<Timestamp>,
    /// Of events accepted before that time, to the millisecond.
    pub until: Option<Timestamp>,
    /// What a person typed: an id of an event or a delivery, the beginning of an event's id, or
    /// a part of a type, whatever the case of its letters.
    pub text: Option<String>,
}

impl Filter {
    /// All deliveries of a tenant.
    pub const fn of(tenant: TenantId) -> Self {
        Self {
            tenant,
            endpoint: None,
            states: BTreeSet::new(),
            event_type: None,
            pattern: None,
            event: None,
            since: None,
            until: None,
            text: None,
        }
    }
}

/// Which events. All that is said has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Whose.
    pub tenant: TenantId,
    /// Of this type.
    pub event_type: Option<EventType>,
    /// Of a type that the pattern chooses.
    pub pattern: Option<TypePattern>,
    /// Accepted at that time or later, to the millisecond.
    pub since: Option<Timestamp>,
    /// Accepted before that time, to the millisecond.
    pub until: Option<Timestamp>,
    /// What a person typed: an event's id or its beginning, or a part of a type, whatever the case
    /// of its letters.
    pub text: Option<String>,
}

impl EventFilter {
    /// All events of a tenant.
    pub const fn of(tenant: TenantId) -> Self {
        Self { tenant, event_type: None, pattern: None, since: None, until: None, text: None }
    }
}

/// Where a page ended. Its text means nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(super) [u8; 16]);

/// Text that is no cursor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct MalformedCursor;

/// What the text of a cursor begins with, so that another kind can follow.
const CURSOR: &str = "1";

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CURSOR}{}", BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let id = text.strip_prefix(CURSOR).ok_or(MalformedCursor)?;
        let id = BASE64URL_NOPAD.decode(id.as_bytes()).map_err(|_| MalformedCursor)?;
        id.try_into().map(Self).map_err(|_| MalformedCursor)
    }
}

/// What a person may have meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// An event.
    Event(EventId),
    /// A delivery.
    Delivery(DeliveryId),
    /// Events whose ids begin alike: the lowest and the highest such id.
    Events(EventId, EventId),
    /// A part of a type.
    Type,
}

impl Meant {
    pub(super) fn by(text: &str) -> Self {
        let text = text.trim();
        if let Ok(event) = text.parse() {
            return Self::Event(event);
        }
        if let Ok(delivery) = text.parse() {
            return Self::Delivery(delivery);
        }
        beginning(text).map_or(Self::Type, |(low, high)| Self::Events(low, high))
    }
}

/// Reads the beginning of an event's id: the prefix and some of the 26 symbols.
fn beginning(text: &str) -> Option<(EventId, EventId)> {
    let symbols = text.strip_prefix("evt_")?;
    let missing = 26_usize.checked_sub(symbols.len())?;
    // The last symbol has three bits: its highest value is 28.
    let low = format!("{text}{}", "0".repeat(missing));
    let high = format!("{text}{}w", "z".repeat(missing.checked_sub(1)?));
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// The lowest id of a time.
pub(crate) fn lowest(time: Timestamp) -> [u8; 16] {
    *EventId::new(time, [0; 10]).as_bytes()
}

/// The highest id of a time.
pub(crate) fn highest(time: Timestamp) -> [u8; 16] {
    *EventId::new(time, [0xff; 10]).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let cursor = Cursor([7; 16]);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "1", "1AAAA", "2BwcHBwcHBwcHBwcHBwcHBw", "1é"] {
            assert_eq!(bad.parse::<Cursor>(), Err(MalformedCursor), "{bad}");
        }
    }

    #[test]
    fn what_is_typed_is_an_id_or_its_beginning_or_a_type() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let event = EventId::new(now, [0x5a; 10]);
        let delivery = DeliveryId::from_bytes(*event.as_bytes());
        let text = event.to_string();
        assert_eq!(Meant::by(&format!(" {text} ")), Meant::Event(event));
        assert_eq!(Meant::by(&delivery.to_string()), Meant::Delivery(delivery));
        assert_eq!(Meant::by("invoice"), Meant::Type);
        assert_eq!(Meant::by("evt_!"), Meant::Type);
        for length in 4..text.len() {
            let typed: String = text.chars().take(length).collect();
            let Meant::Events(low, high) = Meant::by(&typed) else { panic!("{typed}") };
            assert!(low <= event && event <= high, "{typed}");
            let begins = |id: EventId| id.to_string().starts_with(&typed);
            assert!(begins(low) && begins(high));
        }
    }
}
