//! Frames of `HTTP/2` (RFC 9113), made by hand: right and wrong ones.

use bytes::Bytes;

/// Types of frames.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Flags.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
/// The header `:status: 200`, of the static table.
pub(super) const STATUS_200: &[u8] = &[0x88];

/// Makes a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [_, high, middle, low] = length;
    let mut bytes = vec![high, middle, low, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes.into()
}

/// Settings, as pairs of an identifier and a value.
pub(super) fn settings(pairs: &[(u16, u32)]) -> Bytes {
    let mut payload = Vec::new();
    for (id, value) in pairs {
        payload.extend(id.to_be_bytes());
        payload.extend(value.to_be_bytes());
    }
    frame(SETTINGS, 0, 0, &payload)
}

/// A header that is not put into the table, with a name and a value of less than 127 bytes.
pub(super) fn header(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(126);
    let mut bytes = vec![0, length(name)];
    bytes.extend(name.bytes());
    bytes.push(length(value));
    bytes.extend(value.bytes());
    bytes
}

/// A header whose name and value are long, with Huffman coding off.
pub(super) fn long_header(name: &str, bytes: usize) -> Vec<u8> {
    let mut field = vec![0x40, u8::try_from(name.len()).unwrap_or(126)];
    field.extend(name.bytes());
    field.push(127);
    let mut rest = bytes.saturating_sub(127);
    while rest >= 128 {
        field.push(u8::try_from(rest % 128).unwrap_or_default() | 0x80);
        rest /= 128;
    }
    field.push(u8::try_from(rest).unwrap_or_default());
    field.extend(std::iter::repeat_n(b'a', bytes));
    field
}
