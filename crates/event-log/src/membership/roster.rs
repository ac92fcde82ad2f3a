//! What a member knows of its role, and what it does about it. Pure: no clock, no I/O.
//!
//! ```text
//! beats, table ─▶ Roster ─▶ decide ─┬▶ the table as it is to be written
//!                    ▲              ├▶ grants: shards to work on
//! released ──────────┘              └▶ yielded: shards to stop working on
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fanfare_domain::{Shard, ShardCount};
use tokio::time::Instant;

use super::{
    Grant,
    assign::{Assignment, assign},
    deaths::Deaths,
    table::{Owners, State},
};

/// What is known of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Here(State),
    /// Its key was deleted. Nobody comes back under the same id.
    Gone,
}

/// See the module.
pub(super) struct Roster {
    shards: ShardCount,
    me: Arc<str>,
    leaving: bool,
    /// How many of our beats have come back. Until the watch has shown who is there, nothing is
    /// taken: most of it would have to be given back.
    own_beats: u64,
    others: BTreeMap<Arc<str>, Presence>,
    deaths: Deaths,
    /// The sequence of the table; 0 if there is none.
    sequence: u64,
    owners: Owners,
    /// Absent when the members have changed.
    assignment: Option<Assignment>,
    granted: BTreeMap<Shard, Grant>,
    /// Which of them are to be released.
    yielding: BTreeSet<Shard>,
    /// The number of the next grant.
    next: u64,
}

impl Roster {
    /// Knows nobody but us. Grants are numbered from `next` on.
    pub(super) fn new(shards: ShardCount, me: Arc<str>, next: u64) -> Self {
        Self {
            shards,
            me,
            leaving: false,
            own_beats: 0,
            others: BTreeMap::new(),
            deaths: Deaths::default(),
            sequence: 0,
            owners: Owners::default(),
            assignment: None,
            granted: BTreeMap::new(),
            yielding: BTreeSet::new(),
            next,
        }
    }

    /// Notes what a member's key holds: what it says, or that it was deleted.
    pub(super) fn saw_member(
        &mut self,
        member: &Arc<str>,
        sequence: u64,
        state: Option<State>,
        now: Instant,
    ) {
        if *member == self.me {
            if state.is_some() {
                self.own_beats += 1;
                self.deaths.own(now);
            }
            return;
        }
        let presence = state.map_or(Presence::Gone, Presence::Here);
        if presence == Presence::Gone {
            self.deaths.forget(member);
        } else {
            self.deaths.beat(member, sequence, now);
        }
        if self.others.insert(Arc::clone(member), presence) != Some(presence) {
            self.assignment = None;
        }
    }

    /// Notes the table; 0 and nothing if there is none. An older one than is known is passed over.
    pub(super) fn saw_table(&mut self, sequence: u64, owners: Owners, now: Instant) {
        if sequence < self.sequence && sequence > 0 {
            return;
        }
        (self.sequence, self.owners) = (sequence, owners);
        let is_owner = |member: &str| self.owners.0.values().any(|owner| **owner == *member);
        self.others.retain(|member, known| *known != Presence::Gone || is_owner(member));
        self.deaths.expect_only(is_owner);
        for owner in self.owners.0.values() {
            if *owner != self.me && !self.others.contains_key(owner) {
                self.deaths.expect(owner, now);
            }
        }
    }

    /// Notes that nobody works on a shard any more.
    pub(super) fn release(&mut self, grant: Grant) {
        if self.granted.get(&grant.shard) == Some(&grant) {
            self.granted.remove(&grant.shard);
            self.yielding.remove(&grant.shard);
        }
    }

    /// Notes that nobody works on anything any more.
    pub(super) fn release_everything(&mut self) {
        self.granted.clear();
        self.yielding.clear();
    }

    /// From now on everything is given away.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.assignment = None;
        self.yielding.extend(self.granted.keys());
    }

    /// Grants and yields what the members and the table ask for. Returns the table as it should
    /// be, if it should be another one, and the sequence of the one that it follows.
    pub(super) fn decide(&mut self) -> Option<(u64, Owners)> {
        if self.own_beats < 2 {
            return None;
        }
        let assignment = self.assignment.take().unwrap_or_else(|| self.assign());
        let mut owners = self.owners.clone();
        for shard in self.shards.shards() {
            let is_ours_to_be = assignment.get(&shard) == Some(&self.me);
            let owner = self.owners.0.get(&shard);
            let is_ours = owner == Some(&self.me);
            let is_free = owner.is_none_or(|owner| self.is_gone(owner));
            match (is_ours, self.granted.contains_key(&shard)) {
                (true, true) if is_ours_to_be => {}
                // Somebody else is to have it, or has written that it has it.
                (_, true) => {
                    self.yielding.insert(shard);
                }
                (true, false) if is_ours_to_be => {
                    self.granted.insert(shard, Grant { shard, number: self.next });
                    self.next += 1;
                }
                (true, false) => {
                    owners.0.remove(&shard);
                }
                (false, false) if is_ours_to_be && is_free => {
                    owners.0.insert(shard, Arc::clone(&self.me));
                }
                (false, false) => {}
            }
        }
        self.assignment = Some(assignment);
        (owners != self.owners).then_some((self.sequence, owners))
    }

    /// What is to be worked on, and what was granted and is to be released.
    pub(super) fn grants(&self) -> (BTreeSet<Grant>, BTreeSet<Grant>) {
        self.granted.values().partition(|grant| !self.yielding.contains(&grant.shard))
    }

    /// How many shards are worked on, those included that are to be released.
    pub(super) fn held(&self) -> usize {
        self.granted.len()
    }

    /// Whether the table says that something is ours.
    pub(super) fn owns_any(&self) -> bool {
        self.owners.0.values().any(|owner| *owner == self.me)
    }

    /// The number of the next grant.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Who is dead or not.
    pub(super) fn deaths(&self) -> &Deaths {
        &self.deaths
    }

    fn is_gone(&self, member: &Arc<str>) -> bool {
        self.others.get(member) == Some(&Presence::Gone)
    }

    fn assign(&self) -> Assignment {
        let live = Presence::Here(State::Live);
        let others = self.others.iter().filter(|(_, presence)| **presence == live);
        let us = Some(&self.me).filter(|_| !self.leaving);
        let members = others.map(|(member, _)| member).chain(us).cloned().collect();
        assign(self.shards, &members)
    }
}

#[cfg(test)]
mod tests;
