//! How long texts may be, and what may stand in them.

use std::collections::BTreeMap;

use crate::error::ApiError;

/// The longest name of a thing, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// The longest description, in bytes.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 2_048;
/// The most entries of metadata.
const METADATA_MAX: usize = 32;
/// The longest key of metadata, in bytes.
const METADATA_KEY_BYTES_MAX: usize = 64;
/// The longest value of metadata, in bytes.
const METADATA_VALUE_BYTES_MAX: usize = 512;

/// Admits a text of up to `max` bytes; line ends and tabs are the only control characters in it.
pub(crate) fn text(field: &str, text: &str, max: usize) -> Result<(), ApiError> {
    if text.len() > max {
        let why = format!("it has {} bytes, and can have {max} at most", text.len());
        return Err(ApiError::value(field, why));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(ApiError::value(field, "it has control characters"));
    }
    Ok(())
}

/// Admits a text of 1 to `max` bytes on one line.
pub(crate) fn line(field: &str, line: &str, max: usize) -> Result<(), ApiError> {
    if line.is_empty() {
        return Err(ApiError::value(field, "it is empty"));
    }
    if line.chars().any(char::is_control) {
        return Err(ApiError::value(field, "it has control characters"));
    }
    text(field, line, max)
}

/// Admits the caller's own notes.
pub(crate) fn metadata(metadata: &BTreeMap<String, String>) -> Result<(), ApiError> {
    if metadata.len() > METADATA_MAX {
        let why = format!("{} entries are more than {METADATA_MAX}", metadata.len());
        return Err(ApiError::value("metadata", why));
    }
    for (key, value) in metadata {
        line("metadata", key, METADATA_KEY_BYTES_MAX)?;
        text("metadata", value, METADATA_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_an_end_and_no_controls() {
        assert!(text("name", "two\nlines", 10).is_ok());
        assert!(text("name", "12345678901", 10).is_err());
        assert!(text("name", "\u{1b}[31m", 10).is_err());
        assert!(line("key", "", 10).is_err());
        assert!(line("key", "a\nb", 10).is_err());
    }

    #[test]
    fn metadata_is_small() {
        let entries = |count: usize, value: &str| {
            (0..count).map(|key| (key.to_string(), String::from(value))).collect()
        };
        assert!(metadata(&entries(32, "x")).is_ok());
        assert!(metadata(&entries(33, "x")).is_err());
        assert!(metadata(&entries(1, &"x".repeat(513))).is_err());
    }
}
