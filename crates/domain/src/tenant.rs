//! Tenants: customers of the operator, who own endpoints and events.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    str::FromStr,
    sync::Arc,
};

use crate::{Timestamp, endpoint::RateLimit};

/// Identifies a tenant; chosen by the operator, and one token of every subject.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Text that is not a tenant id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant id is 1 to {max} of the characters a-z A-Z 0-9 - _, and begins with a letter or digit", max = TenantId::LENGTH_MAX)]
pub struct MalformedTenantId;

impl TenantId {
    /// The longest id, in bytes.
    pub const LENGTH_MAX: usize = 64;

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the id as text that is not copied.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for TenantId {
    type Err = MalformedTenantId;

    fn from_str(text: &str) -> Result<Self, MalformedTenantId> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let admitted = text.len() <= Self::LENGTH_MAX
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && text.bytes().all(plain);
        if admitted { Ok(Self(Arc::from(text))) } else { Err(MalformedTenantId) }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One copy of each tenant's id, for those who keep it with very many things.
#[derive(Debug, Default)]
pub struct TenantIds(BTreeSet<TenantId>);

impl TenantIds {
    /// Returns the copy.
    pub fn shared(&mut self, id: &TenantId) -> TenantId {
        if let Some(kept) = self.0.get(id) {
            return kept.clone();
        }
        self.0.insert(id.clone());
        id.clone()
    }
}

/// What becomes of a tenant's events whose type is neither in its catalogue of event types nor in the
/// installation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownTypes {
    /// They are taken.
    #[default]
    Allowed,
    /// They are refused.
    Refused,
}

/// A customer of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Identifies the tenant.
    pub id: TenantId,
    /// What people call it; up to 256 bytes, may be empty.
    pub name: String,
    /// The name of the profile that its webhooks follow, for example `standard-webhooks`.
    /// Fixed once the tenant has endpoints or events.
    pub profile: String,
    /// Over how much time first attempts are spread, all its endpoints together; not at all if not
    /// set. Each delivery gets a time before which it is not begun, when its event is routed. What
    /// is later than that for another reason (a pause, a busy endpoint) is not spread again, what
    /// is tried again does not count, and beyond seven days it is spread no further.
    pub rate_limit: Option<RateLimit>,
    /// The plan of the profile that the limits were taken from; not set for none.
    pub plan: Option<String>,
    /// How many endpoints it may have, whatever their state; any number if not set. Those that it
    /// has when the limit is set stay.
    pub endpoints_max: Option<NonZeroU32>,
    /// What becomes of events whose type is in no catalogue.
    pub unknown_types: UnknownTypes,
    /// When it was created.
    pub created_at: Timestamp,
    /// That what was kept for a tenant of this id is removed, if somebody asked for that.
    pub expunge: Option<Expunge>,
}

/// The removal of everything that was kept for a tenant. It begins with the record that deletes the
/// tenant, and ends with another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expunge {
    /// How it stands.
    pub stage: ExpungeStage,
    /// Events up to this sequence of EVENTS are the removed tenant's: nobody is shown anything of
    /// them, also where there is a tenant of this id again.
    pub through: u64,
    /// When it was asked for.
    pub begun_at: Timestamp,
    /// How many things of each kind were removed. What was removed by a process that was killed
    /// before it wrote so is not counted.
    pub removed: BTreeMap<String, u64>,
}

/// How the removal of a tenant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpungeStage {
    /// It goes on.
    Running,
    /// It is done, since then.
    Finished(Timestamp),
    /// It was done then, and the record is that of a later tenant of the id.
    Earlier(Timestamp),
}

impl Expunge {
    /// Notes that things of a kind were removed.
    pub fn count(&mut self, kind: &str, count: u64) {
        match self.removed.get_mut(kind) {
            Some(known) => *known = known.saturating_add(count),
            None => drop(self.removed.insert(String::from(kind), count)),
        }
    }

    /// Returns what is to stand in the records of a later tenant of the id; none while it goes on.
    pub fn earlier(&self) -> Option<Self> {
        let stage = match self.stage {
            ExpungeStage::Running => return None,
            ExpungeStage::Finished(at) | ExpungeStage::Earlier(at) => ExpungeStage::Earlier(at),
        };
        Some(Self { stage, removed: BTreeMap::new(), ..self.clone() })
    }
}

impl Tenant {
    /// Returns what stays of a tenant in the record that removes it: its id, and how its webhooks
    /// were made.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self {
            id: self.id.clone(),
            name: String::new(),
            profile: self.profile.clone(),
            rate_limit: None,
            plan: None,
            endpoints_max: None,
            unknown_types: UnknownTypes::Allowed,
            created_at: self.created_at,
            expunge: self.expunge.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_id_is_kept_once() {
        let mut ids = TenantIds::default();
        let id = || "acme".parse::<TenantId>().unwrap();
        let (first, second) = (ids.shared(&id()), ids.shared(&id()));
        assert!(Arc::ptr_eq(&first.0, &second.0));
    }

    #[test]
    fn a_removal_counts_what_it_removed_and_a_later_tenant_knows_up_to_where() {
        let mut expunge = Expunge {
            stage: ExpungeStage::Running,
            through: 7,
            begun_at: Timestamp::EPOCH,
            removed: BTreeMap::new(),
        };
        expunge.count("events", 2);
        expunge.count("events", 3);
        assert_eq!(expunge.removed.get("events"), Some(&5));
        assert_eq!(expunge.earlier(), None);
        let end = Timestamp::from_millis(9);
        expunge.stage = ExpungeStage::Finished(end);
        let earlier = expunge.earlier().unwrap();
        assert_eq!((earlier.stage, earlier.through), (ExpungeStage::Earlier(end), 7));
        assert!(earlier.removed.is_empty());
    }

    #[test]
    fn an_id_cannot_leave_its_place_in_a_subject() {
        for good in ["acme", "A-1_b", "7"] {
            assert_eq!(good.parse::<TenantId>().unwrap().as_str(), good);
        }
        let long = "a".repeat(65);
        for bad in ["", "a.b", "*", ">", "a b", "_aside", "-a", "é", "$JS", &long] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
    }
}
