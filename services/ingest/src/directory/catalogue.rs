//! The catalogues of event types, with their schemas.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use fanfare_domain::{
    EventType, TenantId,
    config::{EventTypeEntry, Validation},
    schema::{Schema, Violation},
};
use tracing::error;

/// The tenants' catalogues, and the installation's.
#[derive(Debug, Default)]
pub(super) struct Catalogues {
    tenants: BTreeMap<TenantId, BTreeMap<EventType, Entry>>,
    installation: BTreeMap<EventType, Entry>,
}

/// What is known of an event type.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What becomes of data that does not follow the schema.
    pub(crate) validation: Validation,
    /// The schema, if anybody looks.
    pub(crate) schema: Option<Arc<Prepared>>,
}

/// A schema that is made ready when it is asked for the first time: whoever folds the configuration
/// holds everybody up.
#[derive(Debug)]
pub(crate) struct Prepared {
    event_type: EventType,
    text: Box<str>,
    /// `None` if it cannot be used.
    ready: OnceLock<Option<Schema>>,
}

impl Catalogues {
    /// Returns a tenant's entry of a type, or else the installation's.
    pub(super) fn entry(&self, tenant: &TenantId, event_type: &EventType) -> Option<&Entry> {
        let own = self.tenants.get(tenant).and_then(|types| types.get(event_type));
        own.or_else(|| self.installation.get(event_type))
    }

    /// Takes a change of an entry.
    pub(super) fn apply(&mut self, entry: &EventTypeEntry, deleted: bool) {
        match &entry.tenant {
            None => put(&mut self.installation, entry, deleted),
            Some(tenant) => {
                let types = self.tenants.entry(tenant.clone()).or_default();
                put(types, entry, deleted);
                if types.is_empty() {
                    self.tenants.remove(tenant);
                }
            }
        }
    }
}

fn put(types: &mut BTreeMap<EventType, Entry>, entry: &EventTypeEntry, deleted: bool) {
    if deleted {
        types.remove(&entry.event_type);
        return;
    }
    let before = types.get(&entry.event_type).and_then(|before| before.schema.as_ref());
    let same = before.filter(|before| *before.text == *entry.schema).map(Arc::clone);
    let schema = match entry.validation {
        Validation::Off => None,
        Validation::Report | Validation::Enforce => {
            let new = || Arc::new(Prepared::new(&entry.event_type, &entry.schema));
            Some(same.unwrap_or_else(new))
        }
    };
    types.insert(entry.event_type.clone(), Entry { validation: entry.validation, schema });
}

impl Prepared {
    /// How much work may be done between others.
    const LIGHT_MAX: usize = 1 << 20;

    /// Takes a schema as it is.
    pub(crate) fn new(event_type: &EventType, text: &str) -> Self {
        Self { event_type: event_type.clone(), text: Box::from(text), ready: OnceLock::new() }
    }

    /// Tells whether looking at data of a length takes so long that others should not wait.
    pub(crate) fn is_heavy(&self, length: usize) -> bool {
        match self.ready.get() {
            None => true,
            Some(ready) => ready.as_ref().is_some_and(|it| it.work(length) > Self::LIGHT_MAX),
        }
    }

    /// Looks at data. If the schema cannot be used, nothing follows it: what should be enforced is
    /// better refused than taken.
    pub(crate) fn check(&self, data: &[u8]) -> Result<(), Violation> {
        match self.ready.get_or_init(|| self.parse()) {
            Some(schema) => schema.check(data),
            None => Err(Violation {
                path: String::new(),
                keyword: String::new(),
                reason: String::from("the schema is broken"),
            }),
        }
    }

    fn parse(&self) -> Option<Schema> {
        let tell = |refused: &_| {
            let event_type = self.event_type.as_str();
            error!(error = %refused, event_type, "a schema of the catalogue cannot be used");
        };
        Schema::parse(&self.text).inspect_err(tell).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tenant: Option<&str>, validation: Validation, schema: &str) -> EventTypeEntry {
        EventTypeEntry {
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
            event_type: "a.b".parse().unwrap(),
            description: String::new(),
            schema: String::from(schema),
            example: String::new(),
            validation,
        }
    }

    fn found(catalogues: &Catalogues, tenant: &str) -> Option<(Validation, bool)> {
        let entry = catalogues.entry(&tenant.parse().unwrap(), &"a.b".parse().unwrap())?;
        let is_ready = entry.schema.as_ref().is_some_and(|schema| schema.check(b"1").is_ok());
        Some((entry.validation, is_ready))
    }

    #[test]
    fn a_tenants_own_entry_counts_before_the_installations() {
        let mut catalogues = Catalogues::default();
        let everybodys = entry(None, Validation::Report, "{}");
        let own = entry(Some("acme"), Validation::Enforce, "{}");
        catalogues.apply(&everybodys, false);
        catalogues.apply(&own, false);
        assert_eq!(found(&catalogues, "acme"), Some((Validation::Enforce, true)));
        assert_eq!(found(&catalogues, "other"), Some((Validation::Report, true)));
        catalogues.apply(&own, true);
        assert_eq!(found(&catalogues, "acme"), Some((Validation::Report, true)));
        assert!(catalogues.tenants.is_empty());
        catalogues.apply(&everybodys, true);
        assert_eq!(found(&catalogues, "acme"), None);
    }

    #[test]
    fn a_schema_that_nobody_looks_at_is_not_made_ready_and_a_broken_one_is_none() {
        let mut catalogues = Catalogues::default();
        catalogues.apply(&entry(None, Validation::Off, "{}"), false);
        assert_eq!(found(&catalogues, "acme"), Some((Validation::Off, false)));
        catalogues.apply(&entry(None, Validation::Enforce, "{"), false);
        assert_eq!(found(&catalogues, "acme"), Some((Validation::Enforce, false)));
    }

    #[test]
    fn a_schema_is_made_ready_once() {
        let mut catalogues = Catalogues::default();
        let of = |catalogues: &Catalogues| {
            let entry = catalogues.entry(&"acme".parse().unwrap(), &"a.b".parse().unwrap());
            entry.and_then(|entry| entry.schema.clone()).unwrap()
        };
        catalogues.apply(&entry(None, Validation::Report, "{}"), false);
        let first = of(&catalogues);
        assert!(first.ready.get().is_none(), "nobody has asked");
        catalogues.apply(&entry(None, Validation::Enforce, "{}"), false);
        assert!(Arc::ptr_eq(&first, &of(&catalogues)), "the text is the same");
        catalogues.apply(&entry(None, Validation::Enforce, "true"), false);
        assert!(!Arc::ptr_eq(&first, &of(&catalogues)));
    }
}
