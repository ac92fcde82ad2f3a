//! Why data that is JSON cannot be understood.

/// What keeps filters and schemas from looking into data that is JSON otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A number is beyond the range of 64-bit floating point, for example `1e400`.
    #[error("the data has a number that is too large for 64 bits")]
    Number,
    /// A text has half of a surrogate pair.
    #[error("the data has text that is not Unicode")]
    Text,
    /// It lies too deep, or is no JSON.
    #[error("the data lies too deep, or is no JSON")]
    Other,
}

impl Unread {
    /// Says why it could not be read. All of these are errors of syntax for the reader, so its words
    /// have to tell them apart.
    pub(crate) fn of(error: &serde_json::Error) -> Self {
        let words = error.to_string();
        if words.starts_with("number out of range") {
            Self::Number
        } else if words.contains("surrogate") || words.contains("hex escape") {
            Self::Text
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (data, expected) in [
            ("[1e400]", Unread::Number),
            (r#"{"a":"\ud800"}"#, Unread::Text),
            (r#"{"a":"\ud800\u0041"}"#, Unread::Text),
            (r#""\udc00""#, Unread::Text),
            (&*deep, Unread::Other),
            ("[", Unread::Other),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(data).unwrap_err();
            assert_eq!(Unread::of(&error), expected, "{data}: {error}");
        }
    }
}
