//! What can be wrong with bytes.

use std::{error::Error, fmt};

/// Bytes that are not a record of a version that we know.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not protobuf, or not this message.
    #[error("not a {message}")]
    Malformed {
        /// The message that was expected, by its protobuf name.
        message: &'static str,
        /// What was found instead.
        #[source]
        cause: prost::DecodeError,
    },
    /// A field that is always written is not there.
    #[error("{field} is missing")]
    Missing {
        /// Which field.
        field: Field,
    },
    /// A field of fixed length has another.
    #[error("{field} has {length} bytes instead of {expected}")]
    Length {
        /// Which field.
        field: Field,
        /// Its length, in bytes.
        length: usize,
        /// The right length, in bytes.
        expected: usize,
    },
    /// Text that does not follow its syntax.
    #[error("{field} is malformed")]
    Syntax {
        /// Which field.
        field: Field,
        /// What the syntax is, or where the text leaves it.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// A number, or a count of things, that cannot be.
    #[error("{field} is {value}, which is out of range")]
    OutOfRange {
        /// Which field.
        field: Field,
        /// The number.
        value: i64,
    },
    /// A value of an enum that this version does not know.
    #[error("{field} has value {value}, which this version does not know")]
    UnknownValue {
        /// Which field.
        field: Field,
        /// The value.
        value: i32,
    },
    /// JSON, but not a retry policy that this version knows.
    #[error("{field} is not a retry policy that this version knows")]
    UnknownPolicy {
        /// Which field.
        field: Field,
        /// What it does not know.
        #[source]
        cause: serde_json::Error,
    },
    /// None of the alternatives that this version knows: a newer version wrote another one, or
    /// there is none.
    #[error("{field} holds nothing that this version knows")]
    UnknownBody {
        /// Which field.
        field: Field,
    },
}

/// Where in a record something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field by its protobuf names, for example `AttemptMade.attempt`.
    pub name: &'static str,
    /// In which fact of a journal batch, counted from 0; `None` in other records.
    pub fact: Option<usize>,
}

impl DecodeError {
    /// Tells whether the record is sound as far as it can be read, and a newer version would
    /// read it.
    ///
    /// Who folds such a record into state must stop before it, so that an upgrade can go on from
    /// there; setting it aside would drop a fact. Who only shows records may set it aside.
    pub const fn is_from_newer_version(&self) -> bool {
        match self {
            Self::UnknownValue { .. } | Self::UnknownPolicy { .. } | Self::UnknownBody { .. } => {
                true
            }
            Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::Length { .. }
            | Self::Syntax { .. }
            | Self::OutOfRange { .. } => false,
        }
    }

    /// Adds in which fact of a batch it is.
    pub(crate) fn in_fact(mut self, index: usize) -> Self {
        match &mut self {
            Self::Missing { field }
            | Self::Length { field, .. }
            | Self::Syntax { field, .. }
            | Self::OutOfRange { field, .. }
            | Self::UnknownValue { field, .. }
            | Self::UnknownPolicy { field, .. }
            | Self::UnknownBody { field } => field.fact = Some(index),
            Self::Malformed { .. } => {}
        }
        self
    }
}

impl From<&'static str> for Field {
    fn from(name: &'static str) -> Self {
        Self { name, fact: None }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.fact.map_or(Ok(()), |index| write!(f, " of fact {index}"))
    }
}
