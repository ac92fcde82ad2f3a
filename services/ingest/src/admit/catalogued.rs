//! What the catalogues of event types say of an event.

use std::sync::Arc;

use fanfare_domain::{
    EventType, TenantId, config::Validation, schema::Violation, tenant::UnknownTypes,
};

use super::{Reason, Rejection};
use crate::directory::{Directory, Prepared};

/// What is to be asked about an event's data. Asking takes time, and needs no configuration.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Nothing.
    Nothing,
    /// The type is in no catalogue, and the tenant refuses such.
    Unknown,
    /// Whether it follows the schema of its type.
    Follows(Arc<Prepared>, Validation),
}

impl Asked {
    /// Looks an event's type up.
    pub(super) fn of(tenant: &TenantId, event_type: &EventType, directory: &Directory) -> Self {
        match (directory.entry(tenant, event_type), directory.unknown_types(tenant)) {
            (None, UnknownTypes::Refused) => Self::Unknown,
            (None, UnknownTypes::Allowed) => Self::Nothing,
            (Some(entry), _) => match &entry.schema {
                Some(schema) => Self::Follows(Arc::clone(schema), entry.validation),
                None => Self::Nothing,
            },
        }
    }

    /// Tells whether looking at data of a length takes so long that others have to wait.
    pub(crate) fn is_heavy(&self, length: usize) -> bool {
        match self {
            Self::Nothing | Self::Unknown => false,
            Self::Follows(schema, _) => schema.is_heavy(length),
        }
    }

    /// Looks at an event. Returns how its data leaves its schema, if that is to be reported only.
    pub(crate) fn look(
        &self,
        event_type: &EventType,
        data: &[u8],
    ) -> Result<Option<Violation>, Rejection> {
        match self {
            Self::Nothing => Ok(None),
            Self::Unknown => {
                let detail = format_args!("the type {event_type} is not in the catalogue");
                Err(Reason::UnknownEventType.because(detail))
            }
            Self::Follows(schema, validation) => match (validation, schema.check(data).err()) {
                (Validation::Off, _) | (_, None) => Ok(None),
                (Validation::Report, found) => Ok(found),
                (Validation::Enforce, Some(violation)) => {
                    Err(Reason::SchemaViolation.because(violation))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_asked_as_the_validation_says() {
        let event_type: EventType = "a.b".parse().unwrap();
        let asked = |validation, schema: &str| {
            Asked::Follows(Arc::new(Prepared::new(&event_type, schema)), validation)
        };
        let look = |asked: &Asked, data: &[u8]| {
            let looked = asked.look(&event_type, data).map_err(|rejection| rejection.reason);
            looked.map(|violation| violation.is_some())
        };
        let number = r#"{"type":"number"}"#;
        assert_eq!(look(&asked(Validation::Enforce, number), b"1"), Ok(false));
        assert_eq!(look(&asked(Validation::Enforce, number), b"{}"), Err(Reason::SchemaViolation));
        assert_eq!(look(&asked(Validation::Report, number), b"{}"), Ok(true));
        assert_eq!(look(&asked(Validation::Enforce, "{"), b"1"), Err(Reason::SchemaViolation));
        assert_eq!(look(&Asked::Unknown, b"1"), Err(Reason::UnknownEventType));
        assert_eq!(look(&Asked::Nothing, b"1"), Ok(false));
    }

    #[test]
    fn what_takes_time_is_known_before() {
        let event_type: EventType = "a.b".parse().unwrap();
        let values: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
        let schema = format!(r#"{{"items":{{"enum":[{}]}}}}"#, values.join(","));
        let asked =
            Asked::Follows(Arc::new(Prepared::new(&event_type, &schema)), Validation::Enforce);
        assert!(asked.is_heavy(1), "it is not compiled yet");
        assert!(asked.look(&event_type, b"[1]").is_ok());
        assert!(!asked.is_heavy(100));
        assert!(asked.is_heavy(100_000));
        assert!(!Asked::Unknown.is_heavy(100_000));
    }
}
