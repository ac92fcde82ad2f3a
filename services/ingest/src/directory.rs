//! What ingest keeps of the configuration: which tenants there are, by which profile their events
//! are judged, and the catalogues of event types.

mod catalogue;

use std::{collections::BTreeMap, sync::Arc};

use fanfare_domain::{
    Change, Entity, EventType, TenantId, Timestamp,
    profile::{Profile, Profiles},
    tenant::UnknownTypes,
};
use fanfare_event_log::ConfigFold;
use tracing::error;

use self::catalogue::Catalogues;
pub(crate) use self::catalogue::{Entry, Prepared};

/// Tenants and operators' profiles.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    tenants: BTreeMap<TenantId, Known>,
    profiles: Profiles,
    catalogues: Catalogues,
}

/// What is known of a tenant.
#[derive(Debug)]
struct Known {
    /// The name of its profile.
    profile: Arc<str>,
    unknown_types: UnknownTypes,
}

impl Directory {
    /// Returns the name of a tenant's profile; `None` if there is no such tenant.
    pub(crate) fn profile_of(&self, tenant: &TenantId) -> Option<&str> {
        self.tenants.get(tenant).map(|known| &*known.profile)
    }

    /// Returns what becomes of events of a tenant whose type is in no catalogue.
    pub(crate) fn unknown_types(&self, tenant: &TenantId) -> UnknownTypes {
        self.tenants.get(tenant).map_or(UnknownTypes::Allowed, |known| known.unknown_types)
    }

    /// Returns the entry of a type: the tenant's own, or else the installation's.
    pub(crate) fn entry(&self, tenant: &TenantId, event_type: &EventType) -> Option<&Entry> {
        self.catalogues.entry(tenant, event_type)
    }

    /// Returns a profile that is built in or that an operator added.
    pub(crate) fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.get(name)
    }

    fn take_profile(&mut self, name: &str, toml: &str) {
        let taken = match Profile::parse(toml) {
            Ok(profile) if profile.name == name => {
                self.profiles.insert(Arc::new(profile)).map_err(|taken| taken.to_string())
            }
            Ok(profile) => Err(format!("it calls itself {}", profile.name)),
            Err(malformed) => Err(malformed.to_string()),
        };
        if let Err(error) = taken {
            // Its tenants' events are refused: better than to accept what cannot be delivered.
            error!(profile = name, error, "a profile of the configuration cannot be used");
            self.profiles.remove(name);
        }
    }
}

impl ConfigFold for Directory {
    fn apply(&mut self, _revision: u64, _stored_at: Timestamp, change: &Change) {
        match (&change.entity, change.deleted) {
            (Entity::Tenant(tenant), false) => {
                let profile = Arc::from(tenant.profile.as_str());
                let known = Known { profile, unknown_types: tenant.unknown_types };
                self.tenants.insert(tenant.id.clone(), known);
            }
            (Entity::Tenant(tenant), true) => drop(self.tenants.remove(&tenant.id)),
            (Entity::Profile(source), false) => self.take_profile(&source.name, &source.toml),
            (Entity::Profile(source), true) => self.profiles.remove(&source.name),
            (Entity::EventType(entry), deleted) => self.catalogues.apply(entry, deleted),
            (Entity::Endpoint(_) | Entity::ApiKey(_), _) => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use fanfare_domain::{Tenant, TraceContext, config::ProfileSource};

    use super::*;

    fn change(entity: Entity, deleted: bool) -> Change {
        let (actor, reason) = (String::from("test"), String::new());
        Change { entity, deleted, actor, reason, trace: TraceContext::default() }
    }

    /// A directory with one tenant for each pair of id and profile.
    pub(crate) fn directory(tenants: &[(&str, &str)]) -> Directory {
        let mut directory = Directory::default();
        for (id, profile) in tenants {
            directory.apply(1, Timestamp::EPOCH, &change(tenant(id, profile), false));
        }
        directory
    }

    fn tenant(id: &str, profile: &str) -> Entity {
        Entity::Tenant(Arc::new(Tenant {
            id: id.parse().unwrap(),
            name: String::new(),
            profile: profile.to_owned(),
            unknown_types: UnknownTypes::Allowed,
            plan: None,
            endpoints_max: None,
            created_at: Timestamp::EPOCH,
            rate_limit: None,
            expunge: None,
        }))
    }

    fn profile(name: &str, toml: String) -> Entity {
        Entity::Profile(Arc::new(ProfileSource { name: name.to_owned(), toml }))
    }

    #[test]
    fn a_deleted_tenant_is_unknown_and_can_come_back() {
        let acme: TenantId = "acme".parse().unwrap();
        let mut directory = directory(&[("acme", "killb")]);
        assert_eq!(directory.profile_of(&acme), Some("killb"));
        directory.apply(2, Timestamp::EPOCH, &change(tenant("acme", "killb"), true));
        assert_eq!(directory.profile_of(&acme), None);
        directory.apply(3, Timestamp::EPOCH, &change(tenant("acme", "kryptos"), false));
        assert_eq!(directory.profile_of(&acme), Some("kryptos"));
    }

    #[test]
    fn an_unusable_profile_is_none() {
        let toml = include_str!("../../../deploy/profiles/kryptos.toml");
        let own = toml.replacen("\"kryptos\"", "\"own\"", 1);
        let mut directory = Directory::default();
        directory.apply(1, Timestamp::EPOCH, &change(profile("own", own.clone()), false));
        assert!(directory.profile("own").is_some());
        for unusable in [String::from("name = 1"), own.replace("\"own\"", "\"other\"")] {
            directory.apply(2, Timestamp::EPOCH, &change(profile("own", unusable), false));
            assert!(directory.profile("own").is_none());
        }
    }
}
