//! What members tell each other: that they live, and who owns what.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fanfare_domain::Shard;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// Where the keys of a role are.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    role: String,
}

/// What a key of a role is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A member.
    Member(Arc<str>),
    /// The table.
    Table,
}

impl Keys {
    pub(super) fn of(role: &str) -> Self {
        Self { role: role.to_owned() }
    }

    /// The role.
    pub(super) fn role(&self) -> &str {
        &self.role
    }

    /// The key of the table.
    pub(super) fn table(&self) -> String {
        format!("{}.shards", self.role)
    }

    /// The key of a member.
    pub(super) fn member(&self, member: &str) -> String {
        format!("{}.member.{member}", self.role)
    }

    /// Reads a key.
    pub(super) fn parse(&self, key: &str) -> Option<Key> {
        if key == self.table() {
            return Some(Key::Table);
        }
        let member = key.strip_prefix(&self.role)?.strip_prefix(".member.")?;
        Some(Key::Member(Arc::from(member)))
    }
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It works.
    Live,
    /// It gives its shards away.
    Leaving,
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    state: State,
}

impl State {
    pub(super) fn encode(self) -> Bytes {
        encode(&Announcement { state: self })
    }

    /// Reads what a member says. A state that only a newer version knows is one in which it is
    /// given nothing.
    pub(super) fn decode(value: &[u8]) -> Self {
        match serde_json::from_slice::<Announcement>(value) {
            Ok(announcement) => announcement.state,
            Err(error) => {
                warn!(%error, "a member says what this version does not understand");
                Self::Leaving
            }
        }
    }
}

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners(pub(super) BTreeMap<Shard, Arc<str>>);

#[derive(Serialize, Deserialize)]
struct Table {
    owners: BTreeMap<u16, String>,
}

impl Owners {
    pub(super) fn encode(&self) -> Bytes {
        let owners = self.0.iter().map(|(shard, owner)| (shard.index(), String::from(&**owner)));
        encode(&Table { owners: owners.collect() })
    }

    /// Reads the table. One that cannot be read counts as empty: whatever it said, the claims in
    /// the journal guard the records.
    pub(super) fn decode(value: &[u8]) -> Self {
        let table = serde_json::from_slice::<Table>(value).unwrap_or_else(|error| {
            warn!(%error, "the table of owners cannot be read and counts as empty");
            Table { owners: BTreeMap::new() }
        });
        let owner = |(index, owner): (u16, String)| (Shard::from_index(index), Arc::from(owner));
        Self(table.owners.into_iter().map(owner).collect())
    }
}

fn encode(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("maps with plain keys become JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let keys = Keys::of("retry-scheduler");
        assert_eq!(keys.parse(&keys.table()), Some(Key::Table));
        let member = Key::Member(Arc::from("retry-scheduler-0a-2"));
        assert_eq!(keys.parse(&keys.member("retry-scheduler-0a-2")), Some(member));
        for other in ["retry-scheduler", "retry-scheduler.x", "dispatcher.shards", "shards"] {
            assert_eq!(keys.parse(other), None, "{other}");
        }
    }

    #[test]
    fn values_are_read_back() {
        for state in [State::Live, State::Leaving] {
            assert_eq!(State::decode(&state.encode()), state);
        }
        assert_eq!(State::Live.encode(), Bytes::from_static(br#"{"state":"live"}"#));
        let owners = [(7, "b"), (255, "a")];
        let owners = owners.map(|(index, owner)| (Shard::from_index(index), Arc::from(owner)));
        let owners = Owners(owners.into());
        assert_eq!(Owners::decode(&owners.encode()), owners);
        assert_eq!(owners.encode(), Bytes::from_static(br#"{"owners":{"7":"b","255":"a"}}"#));
    }

    #[test]
    fn what_cannot_be_read_gives_nothing_to_anybody() {
        assert_eq!(State::decode(br#"{"state":"hibernating"}"#), State::Leaving);
        assert_eq!(Owners::decode(b"\xff"), Owners::default());
    }

    #[test]
    fn what_is_added_later_is_passed_over() {
        assert_eq!(State::decode(br#"{"state":"live","zone":"b"}"#), State::Live);
        let owners = Owners::decode(br#"{"owners":{"1":"a"},"since":1}"#);
        assert_eq!(owners.0.len(), 1);
    }
}
