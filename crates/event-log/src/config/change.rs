//! Writing a change, exactly once and only over what it was made from.

use fanfare_domain::Change;
use fanfare_proto::{decode_change, encode_change};

use crate::{
    EventLog, PublishError, ReadError,
    cas::{Set, Write},
    log::Which,
    topology::Stream,
};

/// A change was not written.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The thing has changed since the revision that the change was made from.
    #[error("changed meanwhile: at revision {actual}, not {expected}")]
    Conflict {
        /// What the caller expected; 0 for "does not exist".
        expected: u64,
        /// What is there: the revision that a change must be made from to be taken. That of the
        /// deletion, for a thing that was deleted.
        actual: u64,
    },
    /// The write was refused for good.
    #[error(transparent)]
    Refused(#[from] PublishError),
}

impl EventLog {
    /// Reads one change of the configuration by its revision; `None` if it is gone, because another
    /// has replaced it.
    pub async fn configured(&self, revision: u64) -> Result<Option<Change>, ReadError> {
        let found = self.get(Stream::Config, Which::Sequence(revision)).await?;
        let unreadable = |source| ReadError::Unreadable {
            stream: self.topology().stream(Stream::Config),
            sequence: revision,
            source,
        };
        found.map(|message| decode_change(message.payload)).transpose().map_err(unreadable)
    }

    /// Writes a change if the thing is still at the revision that it was made from. Returns the
    /// new revision once it is stored.
    ///
    /// `expected` is 0 for a thing that never existed. A thing that was deleted is made again
    /// from the revision of its deletion; whoever does not know it tries 0 and finds it in
    /// [`ChangeError::Conflict`]. (That of a thing whose history was removed is the same.)
    ///
    /// Of several processes that write at the same time, one is taken. An unknown outcome is
    /// found out, for ever if need be: bound this from outside. Dropped half-way, it leaves open
    /// whether the change was written.
    pub async fn change(&self, change: &Change, expected: u64) -> Result<u64, ChangeError> {
        let topology = self.topology();
        let cell = self.cell(topology.stream(Stream::Config), topology.config(&change.entity));
        match cell.set(expected, &Write::Value(encode_change(change))).await? {
            Set::Stored(revision) => Ok(revision),
            Set::Conflict(held) => {
                let actual = held.map_or(0, |held| held.sequence);
                Err(ChangeError::Conflict { expected, actual })
            }
        }
    }

    /// The same as [`Self::change`], if nothing at all was changed behind a sequence of CONFIG: for
    /// changes that depend on how many other things there are. `last` is taken from
    /// [`Self::config_last`] before it is looked what there is. `None` if something has changed,
    /// the thing itself or another.
    pub async fn change_at(
        &self,
        change: &Change,
        (expected, last): (u64, u64),
    ) -> Result<Option<u64>, PublishError> {
        let topology = self.topology();
        let cell = self.cell(topology.stream(Stream::Config), topology.config(&change.entity));
        match cell.set_at((expected, last), &Write::Value(encode_change(change))).await? {
            Set::Stored(revision) => Ok(Some(revision)),
            Set::Conflict(_) => Ok(None),
        }
    }
}
