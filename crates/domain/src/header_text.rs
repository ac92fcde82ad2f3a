//! The values of headers, as they are shared by the requests that bear them.

use std::{fmt, ops::Deref};

use bytes::Bytes;

/// The value of a header. Cheap to clone: the clones are the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderText(Bytes);

impl HeaderText {
    /// Wraps what is there as long as the program runs.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        // It was made of text.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the bytes of the text, without copying them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl From<String> for HeaderText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Deref for HeaderText {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for HeaderText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_the_same_bytes() {
        let value = HeaderText::from(String::from("v1,é"));
        let clone = value.clone();
        assert_eq!((clone.as_str(), &*clone.to_string()), ("v1,é", "v1,é"));
        assert_eq!(value.as_ptr(), clone.as_ptr());
        assert_eq!(format!("{value:?}"), "\"v1,é\"");
        assert_eq!(value.into_bytes(), clone.into_bytes());
    }
}
