//! Writing messages field by field, from borrowed values.
//!
//! The generated types own their text, so encoding through them would clone every string and
//! allocate for every id, only to drop them. Here a message is a function over a [`Sink`]: run
//! over a counter it gives the length, and over a buffer the bytes. Tests decode what it writes
//! with the generated types, encode that again and compare, so the two cannot drift apart.

use std::time::Duration;

use bytes::Bytes;
use fanfare_domain::{Timestamp, TraceContext, fact::InBatch};
use prost::encoding::{WireType, encode_varint, encoded_len_varint};

use crate::error::DecodeError;

/// The fields of a message, in ascending order of their numbers.
pub(crate) trait Fields {
    /// Writes each field that differs from its default.
    fn write(&self, out: &mut impl Sink);

    /// Returns how many bytes the fields take.
    fn length(&self) -> usize {
        let mut count = Count(0);
        self.write(&mut count);
        count.0
    }

    /// Returns the message, in a buffer of its size.
    fn to_bytes(&self) -> Bytes {
        let mut buffer = Vec::with_capacity(self.length());
        self.write(&mut buffer);
        buffer.into()
    }
}

/// A place for fields. The first argument of each method is the field's number.
pub(crate) trait Sink: Sized {
    /// Takes a variable-length number.
    fn varint(&mut self, value: u64);

    /// Takes bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// Takes a field's number and how its value is laid out.
    fn key(&mut self, number: u32, layout: WireType) {
        self.varint((u64::from(number) << 3) | layout as u64);
    }

    /// Takes an unsigned number; 0 is the default.
    fn uint(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.some_uint(number, value);
        }
    }

    /// Takes an unsigned number that is there even if it is 0.
    fn some_uint(&mut self, number: u32, value: u64) {
        self.key(number, WireType::Varint);
        self.varint(value);
    }

    /// Takes an instant; the epoch is the default.
    fn time(&mut self, number: u32, value: Timestamp) {
        if value != Timestamp::EPOCH {
            self.some_time(number, Some(value));
        }
    }

    /// Takes an instant that may be absent.
    fn some_time(&mut self, number: u32, value: Option<Timestamp>) {
        if let Some(value) = value {
            self.key(number, WireType::SixtyFourBit);
            self.raw(&value.as_nanos().to_le_bytes());
        }
    }

    /// Takes bytes; none is the default.
    fn bytes(&mut self, number: u32, value: &[u8]) {
        if !value.is_empty() {
            self.some_bytes(number, value);
        }
    }

    /// Takes bytes that are there even if there are none.
    fn some_bytes(&mut self, number: u32, value: &[u8]) {
        self.key(number, WireType::LengthDelimited);
        self.varint(value.len() as u64);
        self.raw(value);
    }

    /// Takes text; the empty one is the default.
    fn text(&mut self, number: u32, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    /// Takes text that may be absent.
    fn some_text(&mut self, number: u32, value: Option<&str>) {
        if let Some(value) = value {
            self.some_bytes(number, value.as_bytes());
        }
    }

    /// Takes `traceparent` and, under the next number, `tracestate`.
    fn trace(&mut self, number: u32, trace: &TraceContext) {
        let TraceContext { traceparent, tracestate } = trace;
        self.text(number, traceparent);
        self.text(number + 1, tracestate);
    }

    /// Takes the batch that a delivery was part of, if it was.
    fn in_batch(&mut self, number: u32, batch: Option<InBatch>) {
        if let Some(batch) = batch {
            self.message(number, &batch);
        }
    }

    /// Takes a message, also an empty one.
    fn message(&mut self, number: u32, fields: &impl Fields);

    /// Takes a message that holds a payload, which is not to be moved once it is written.
    fn message_with_payload(&mut self, number: u32, fields: &impl Fields) {
        self.key(number, WireType::LengthDelimited);
        self.varint(fields.length() as u64);
        fields.write(self);
    }
}

impl Sink for Vec<u8> {
    fn varint(&mut self, value: u64) {
        encode_varint(value, self);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    /// The length is written once the fields are: counting them first, at each level anew, costs
    /// more than moving some hundred bytes by one or two.
    fn message(&mut self, number: u32, fields: &impl Fields) {
        self.key(number, WireType::LengthDelimited);
        let start = self.len();
        self.push(0);
        fields.write(self);
        let length = (self.len() - start - 1) as u64;
        let more = encoded_len_varint(length) - 1;
        if more > 0 {
            let end = self.len();
            self.resize(end + more, 0);
            self.copy_within(start + 1..end, start + 1 + more);
        }
        if let Some(mut place) = self.get_mut(start..=start + more) {
            encode_varint(length, &mut place);
        }
    }
}

/// Counts bytes.
struct Count(usize);

impl Sink for Count {
    fn varint(&mut self, value: u64) {
        self.0 += encoded_len_varint(value);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn message(&mut self, number: u32, fields: &impl Fields) {
        self.key(number, WireType::LengthDelimited);
        let length = fields.length();
        self.varint(length as u64);
        self.0 += length;
    }
}

/// Returns how many bytes a message takes as a field of another one.
pub(crate) fn length_as_field(number: u32, fields: &impl Fields) -> usize {
    let mut count = Count(0);
    count.message(number, fields);
    count.0
}

/// Returns a duration in nanoseconds, or the longest that there is: some 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Catches, where debug assertions are on, a value that breaks an invariant of its record: it
/// would be written, and be unreadable for ever.
pub(crate) fn debug_assert_readable<T>(read: impl FnOnce() -> Result<T, DecodeError>) {
    if cfg!(debug_assertions) {
        let error = read().err();
        debug_assert!(error.is_none(), "what is written must be readable: {error:?}");
    }
}

/// An entry of a map of texts.
pub(crate) struct TextEntry<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl Fields for TextEntry<'_> {
    fn write(&self, out: &mut impl Sink) {
        let Self(key, value) = self;
        out.text(1, key);
        out.text(2, value);
    }
}
