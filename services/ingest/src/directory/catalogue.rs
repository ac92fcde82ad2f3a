//! The catalogues of event types, with their schemas ready.

use std::collections::BTreeMap;

use fanfare_domain::{
    EventType, TenantId,
    config::{EventTypeEntry, Validation},
    schema::Schema,
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
    /// The schema, if anybody looks. `None` under a validation other than off: it cannot be used.
    pub(crate) schema: Option<Schema>,
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
    } else {
        types.insert(entry.event_type.clone(), Entry::of(entry));
    }
}

impl Entry {
    /// Makes the schema ready, once for each change.
    fn of(entry: &EventTypeEntry) -> Self {
        let validation = entry.validation;
        let schema = match validation {
            Validation::Off => None,
            Validation::Report | Validation::Enforce => Schema::parse(&entry.schema)
                .inspect_err(|refused| {
                    let event_type = entry.event_type.as_str();
                    error!(error = %refused, event_type, "a schema of the catalogue cannot be used");
                })
                .ok(),
        };
        Self { validation, schema }
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
        Some((entry.validation, entry.schema.is_some()))
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
}
