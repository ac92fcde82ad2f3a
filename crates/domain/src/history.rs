//! What one endpoint wanted at which time.
//!
//! A version is in effect from the time at which CONFIG stored it, that time included, until the
//! next one is. Only what decides on routing makes a version: a new secret does not.
//!
//! **Two clocks.** In a cluster, an event and a change are stamped by the leaders of two streams,
//! whose clocks differ. So an event that was published after an endpoint's creation was
//! acknowledged can seem older than the endpoint, and would be lost: the first version counts from
//! [`CLOCKS_APART`] before its time. The price is that an event which really came that shortly
//! before, and is routed after, is delivered too.
//!
//! The same holds for later changes that make an endpoint want more: a resumption, an enabling,
//! another filter. There the price is higher, because what came while an endpoint was paused is
//! meant to be skipped; so where one server stamps both there is no margin, and in a cluster it is
//! [`WIDENED_EARLIER`]. An event that came after such a change and seems older than the pause
//! before it, which was shorter than the clocks are apart, is still cancelled.
//!
//! The other way round no margin is needed. An event that was published after a pause, a disabling
//! or a deletion was acknowledged, and seems older, becomes a delivery here; its dispatcher looks
//! at the endpoint's present state before each request, and at whether the event seems older than
//! the last such change, and cancels it.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{Condition, Endpoint, EndpointState, EventType, PauseMode, Timestamp, TypePattern};

/// How far the clocks of two servers may be apart without an event being lost.
const CLOCKS_APART: Duration = Duration::from_secs(2);

/// How much earlier than its stamp a change counts, in a cluster, that makes an endpoint want more:
/// clocks that are kept in step are never so far apart.
pub const WIDENED_EARLIER: Duration = Duration::from_millis(500);

/// What becomes of an event that an endpoint wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets a task. An endpoint paused with `hold` does as well: its dispatcher parks the
    /// delivery, which costs no queue.
    Served,
    /// It is put on record as skipped.
    Skipped,
    /// The endpoint is disabled or deleted: nothing.
    Absent,
}

/// What an endpoint wanted, from a time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    from: Timestamp,
    standing: Standing,
    filters: Box<[TypePattern]>,
    condition: Option<Arc<Condition>>,
}

/// A decision that may depend on the event's content: the first question whose condition holds is
/// the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    questions: Vec<(Arc<Condition>, Standing)>,
    otherwise: Standing,
}

impl Choice {
    /// The endpoint does not want the event, whatever its content.
    pub fn absent() -> Self {
        Self { questions: Vec::new(), otherwise: Standing::Absent }
    }

    /// Returns the decision if the content does not matter.
    pub fn decided(&self) -> Option<Standing> {
        self.questions.is_empty().then_some(self.otherwise)
    }

    /// Decides. `holds` is asked about one condition after the other, until one does.
    pub fn decide(&self, mut holds: impl FnMut(&Condition) -> bool) -> Standing {
        let answer = self.questions.iter().find(|(condition, _)| holds(condition));
        answer.map_or(self.otherwise, |(_, standing)| *standing)
    }
}

/// The versions of one endpoint, in the order in which CONFIG stored them.
#[derive(Debug, Default)]
pub struct History {
    versions: VecDeque<Version>,
    /// When the first version was stored, kept or not.
    born: Timestamp,
}

impl Version {
    /// Reads what a change of configuration means for routing.
    pub fn of(endpoint: &Endpoint, deleted: bool, from: Timestamp) -> Self {
        let standing = if deleted { Standing::Absent } else { standing(endpoint.state) };
        let filters = match standing {
            Standing::Served | Standing::Skipped => Box::from(&*endpoint.filters),
            Standing::Absent => Box::default(),
        };
        let condition = endpoint.condition.as_deref().filter(|_| standing != Standing::Absent);
        let condition = condition.map(|text| Arc::new(Condition::stored(text)));
        Self { from, standing, filters, condition }
    }

    fn means_the_same_as(&self, other: &Self) -> bool {
        self.standing == other.standing
            && self.filters == other.filters
            && self.condition == other.condition
    }

    fn wants(&self, event_type: &EventType) -> bool {
        self.filters.iter().any(|pattern| pattern.matches(event_type))
    }
}

fn standing(state: EndpointState) -> Standing {
    match state {
        EndpointState::Active | EndpointState::Paused(PauseMode::Hold) => Standing::Served,
        EndpointState::Paused(PauseMode::Skip) => Standing::Skipped,
        EndpointState::Disabled(_) => Standing::Absent,
    }
}

impl History {
    /// Adds a version if it differs from the one before, and tells whether it replaced one.
    pub fn push(&mut self, mut version: Version) -> bool {
        let Some(last) = self.versions.back() else {
            self.born = version.from;
            // Before its first version an endpoint is absent anyway.
            if version.standing != Standing::Absent {
                // Most endpoints never have another one.
                self.versions.reserve_exact(1);
                self.versions.push_back(version);
            }
            return false;
        };
        let replaces = !last.means_the_same_as(&version);
        if last.condition == version.condition {
            // What was made ready of an expression stays ready.
            version.condition.clone_from(&last.condition);
        }
        if replaces {
            self.versions.push_back(version);
        }
        replaces
    }

    /// Drops the versions that had ended by `end`, and tells whether there were any.
    pub fn forget_ended_by(&mut self, end: Timestamp) -> bool {
        let before = self.versions.len();
        while self.versions.get(1).is_some_and(|next| next.from <= end) {
            self.versions.pop_front();
        }
        let absent = |version: &Version| version.standing == Standing::Absent;
        if self.versions.len() == 1 && self.versions.front().is_some_and(absent) {
            self.versions.clear();
        }
        self.versions.len() < before
    }

    /// Decides on an event of a type, accepted at a time. A version that serves it counts from
    /// `margin` before its stamp.
    pub fn choose(
        &self,
        event_type: &EventType,
        accepted_at: Timestamp,
        margin: Duration,
    ) -> Choice {
        let soon = accepted_at.saturating_add(margin);
        let later = self.versions.iter().rev().take_while(|version| version.from > accepted_at);
        let near = later.filter(|version| version.from <= soon && self.born <= accepted_at);
        let near = near.filter(|version| version.standing == Standing::Served);
        let mut questions = Vec::new();
        for version in near.chain(self.at(accepted_at)) {
            if !version.wants(event_type) {
                continue;
            }
            match &version.condition {
                None => return Choice { questions, otherwise: version.standing },
                Some(condition) => questions.push((Arc::clone(condition), version.standing)),
            }
        }
        Choice { questions, ..Choice::absent() }
    }

    /// Tells whether a version that is kept asks about the content of events.
    pub fn has_conditions(&self) -> bool {
        self.versions.iter().any(|version| version.condition.is_some())
    }

    /// Returns every pattern of every version that is kept.
    pub fn patterns(&self) -> BTreeSet<TypePattern> {
        self.versions.iter().flat_map(|version| version.filters.iter().cloned()).collect()
    }

    /// Tells whether something else was wanted before, as far as that is kept.
    pub fn is_changed(&self) -> bool {
        self.versions.len() > 1
    }

    /// Returns when the first version was stored, kept or not.
    pub fn born(&self) -> Timestamp {
        self.born
    }

    /// Tells whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Returns the version in effect for an event that was accepted at a time.
    ///
    /// Times before the oldest version that is kept, but not before the first one, are answered
    /// with the oldest: the endpoint existed, and delivering is the safer mistake.
    fn at(&self, accepted_at: Timestamp) -> Option<&Version> {
        if accepted_at.saturating_add(CLOCKS_APART) < self.born {
            return None;
        }
        let when = accepted_at.max(self.born);
        let known = self.versions.iter().rev().find(|version| version.from <= when);
        known.or_else(|| self.versions.front())
    }
}
