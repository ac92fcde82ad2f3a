//! Templates of a profile: text with placeholders such as `{event_id}`.
//!
//! Read once, when the profile is; filled in two steps, because most of a request is the same for
//! every target and attempt of an event:
//!
//! ```text
//! Template ──event──▶ Filled ──attempt──▶ text
//! ```

use std::fmt::Write as _;

use crate::{DeliveryId, Event, EventId, Timestamp};

/// One attempt of a delivery, as far as a request depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempt's number, counted from 1.
    pub number: u32,
    /// When it begins: the time that receivers see and that is signed.
    pub at: Timestamp,
}

/// What a template can say of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventValue {
    Id,
    Uuid,
    Type,
    TypeFirst,
    TypeRest,
    OccurredAt,
    OccurredAtUnix,
    Tenant,
}

/// What a template can say of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptValue {
    Delivery,
    Number,
    Index,
    At,
    AtUnix,
}

/// A part of a template. The hole is what only some templates have: `{data}`, `{body}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Event(EventValue),
    Attempt(AttemptValue),
    Hole,
}

/// Text with placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

/// A template that knows its event, and what is in its hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filled(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Attempt(AttemptValue),
}

/// Text that is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no counterpart.
    #[error("a brace without its counterpart in {0:?}; a placeholder is a name in braces")]
    Unbalanced(String),
    /// No placeholder has that name, or not in this place.
    #[error("there is no placeholder {{{0}}} here")]
    Unknown(String),
}

const EVENT_VALUES: [(&str, EventValue); 8] = [
    ("event_id", EventValue::Id),
    ("event_uuid", EventValue::Uuid),
    ("event_type", EventValue::Type),
    ("event_type_first", EventValue::TypeFirst),
    ("event_type_rest", EventValue::TypeRest),
    ("occurred_at", EventValue::OccurredAt),
    ("occurred_at_unix", EventValue::OccurredAtUnix),
    ("tenant_id", EventValue::Tenant),
];

const ATTEMPT_VALUES: [(&str, AttemptValue); 5] = [
    ("delivery_id", AttemptValue::Delivery),
    ("attempt", AttemptValue::Number),
    ("attempt_index", AttemptValue::Index),
    ("attempted_at", AttemptValue::At),
    ("attempted_at_unix", AttemptValue::AtUnix),
];

impl Piece {
    fn named(name: &str, hole: Option<&str>) -> Option<Self> {
        let event = EVENT_VALUES.iter().find(|(known, _)| *known == name);
        let attempt = ATTEMPT_VALUES.iter().find(|(known, _)| *known == name);
        event
            .map(|(_, value)| Self::Event(*value))
            .or_else(|| attempt.map(|(_, value)| Self::Attempt(*value)))
            .or_else(|| (hole == Some(name)).then_some(Self::Hole))
    }

    /// Tells whether the piece is always a whole number.
    pub(crate) fn is_number(&self) -> bool {
        match self {
            Self::Event(EventValue::OccurredAtUnix)
            | Self::Attempt(AttemptValue::Number | AttemptValue::Index | AttemptValue::AtUnix) => {
                true
            }
            Self::Text(_) | Self::Event(_) | Self::Attempt(_) | Self::Hole => false,
        }
    }
}

impl Template {
    /// Reads a template in which the placeholder `hole`, if any, is allowed too.
    pub(crate) fn parse(text: &str, hole: Option<&str>) -> Result<Self, TemplateError> {
        let unbalanced = || TemplateError::Unbalanced(text.chars().take(128).collect());
        let mut template = Self::default();
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
            if plain.contains('}') || name.contains('{') {
                return Err(unbalanced());
            }
            let piece = Piece::named(name, hole)
                .ok_or_else(|| TemplateError::Unknown(name.chars().take(64).collect()))?;
            template.push_text(plain);
            template.push(piece);
            rest = after;
        }
        if rest.contains('}') {
            return Err(unbalanced());
        }
        template.push_text(rest);
        Ok(template)
    }

    /// Returns the parts, with no two texts in a row.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Appends a part.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.push_text(&text),
            Piece::Event(_) | Piece::Attempt(_) | Piece::Hole => self.0.push(piece),
        }
    }

    /// Appends text.
    pub(crate) fn push_text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            Some(_) | None if text.is_empty() => {}
            Some(_) | None => self.0.push(Piece::Text(String::from(text))),
        }
    }

    /// Returns how often the hole occurs.
    pub(crate) fn holes(&self) -> usize {
        self.0.iter().filter(|piece| **piece == Piece::Hole).count()
    }

    /// Splits the template at its first hole; without one, the second part is empty.
    pub(crate) fn split_at_hole(mut self) -> (Self, Self) {
        let hole = self.0.iter().position(|piece| *piece == Piece::Hole);
        let after = hole.map(|hole| self.0.drain(hole..).skip(1).collect()).unwrap_or_default();
        (self, Self(after))
    }

    /// Fills in what the event says, and whatever `hole` appends for the hole, some `room` bytes.
    pub(crate) fn fill<E>(
        &self,
        event: &Event,
        room: usize,
        mut hole: impl FnMut(&mut String) -> Result<(), E>,
    ) -> Result<Filled, E> {
        let lengths = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.len(),
            Piece::Event(value) => value.length(event),
            Piece::Hole => room,
            Piece::Attempt(_) => 0,
        });
        // Most are one text, which then never grows.
        let mut filled = Filled(vec![Part::Text(String::with_capacity(lengths.sum()))]);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.text().push_str(text),
                Piece::Event(value) => value.write(event, filled.text()),
                Piece::Attempt(value) => filled.0.push(Part::Attempt(*value)),
                Piece::Hole => hole(filled.text())?,
            }
        }
        filled.0.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(filled)
    }

    /// Fills in what the event says, in a template without a hole.
    pub(crate) fn fill_plain(&self, event: &Event) -> Filled {
        match self.fill(event, 0, |_| Ok::<(), std::convert::Infallible>(())) {
            Ok(filled) => filled,
            Err(never) => match never {},
        }
    }
}

impl Filled {
    /// Returns the text, if it is the same for every attempt.
    pub(crate) fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            [Part::Attempt(_)] | [_, _, ..] => None,
        }
    }

    /// Returns the text, if it is the same for every attempt; otherwise the whole again.
    pub(crate) fn into_constant(mut self) -> Result<String, Self> {
        match (self.0.pop(), self.0.is_empty()) {
            (None, _) => Ok(String::new()),
            (Some(Part::Text(text)), true) => Ok(text),
            (Some(part), _) => {
                self.0.push(part);
                Err(self)
            }
        }
    }

    /// Returns the text for an attempt.
    pub(crate) fn text_for(&self, attempt: &Attempt) -> String {
        if let Some(text) = self.constant() {
            return String::from(text);
        }
        // The longest value of an attempt is a delivery's id.
        let texts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Attempt(_) => 32,
        });
        let mut out = String::with_capacity(texts.sum());
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Attempt(value) => value.write(attempt, &mut out),
            }
        }
        out
    }

    fn text(&mut self) -> &mut String {
        if !matches!(self.0.last(), Some(Part::Text(_))) {
            self.0.push(Part::Text(String::new()));
        }
        let last = self.0.last_mut().and_then(|part| match part {
            Part::Text(text) => Some(text),
            Part::Attempt(_) => None,
        });
        last.expect("the last part is a text")
    }
}

/// Appends what shows as text.
macro_rules! append {
    ($out:expr, $($shown:tt)*) => {
        write!($out, $($shown)*).expect("writing to a string succeeds")
    };
}

// Every value is plain ASCII without quotes, backslashes or control characters, so that it stands
// in a header and in a JSON string as it is.
impl EventValue {
    fn write(self, event: &Event, out: &mut String) {
        let event_type = event.event_type.as_str();
        let halves = || event_type.split_once('.').unwrap_or((event_type, ""));
        match self {
            Self::Id => append!(out, "{}", event.id),
            Self::Uuid => write_uuid(event.id, out),
            Self::Type => out.push_str(event_type),
            Self::TypeFirst => out.push_str(halves().0),
            Self::TypeRest => out.push_str(halves().1),
            Self::OccurredAt => append!(out, "{}", event.occurred_at),
            Self::OccurredAtUnix => append!(out, "{}", event.occurred_at.as_secs()),
            Self::Tenant => out.push_str(event.tenant.as_str()),
        }
    }

    /// How many bytes the value has, or some more.
    fn length(self, event: &Event) -> usize {
        match self {
            Self::Id | Self::OccurredAt | Self::OccurredAtUnix => 32,
            Self::Uuid => 36,
            Self::Type | Self::TypeFirst | Self::TypeRest => event.event_type.as_str().len(),
            Self::Tenant => event.tenant.as_str().len(),
        }
    }
}

impl AttemptValue {
    /// Appends the value.
    pub(super) fn write(self, attempt: &Attempt, out: &mut String) {
        match self {
            Self::Delivery => append!(out, "{}", attempt.delivery),
            Self::Number => append!(out, "{}", attempt.number),
            Self::Index => append!(out, "{}", attempt.number.saturating_sub(1)),
            Self::At => append!(out, "{}", attempt.at),
            Self::AtUnix => append!(out, "{}", attempt.at.as_secs()),
        }
    }
}

/// Appends the id as a UUID of version 8 (RFC 9562, section 5.8): its own bytes but for the six
/// bits that say so.
pub(super) fn write_uuid(id: EventId, out: &mut String) {
    let bits = u128::from_be_bytes(*id.as_bytes());
    let bits = (bits & !(0xf << 76)) | (8 << 76);
    let bits = (bits & !(0b11 << 62)) | (0b10 << 62);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        append!(out, "{byte:02x}");
    }
}
