//! Long jobs: replays of what was delivered, or was not.

use std::collections::BTreeMap;

use crate::{EndpointId, EventId, EventType, JobId, TenantId, Timestamp, TypePattern};

/// A replay: new deliveries of past events, made little by little. It holds its definition and how
/// far it is, so that whoever takes it over goes on there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Identifies the job.
    pub id: JobId,
    /// Whose events are replayed.
    pub tenant: TenantId,
    /// Who asked for it: a key's id.
    pub actor: String,
    /// Why, in the words of who asked; may be empty.
    pub reason: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// What is replayed.
    pub scope: Scope,
    /// Tells its deliveries apart from those of the same events before. 0 until it has begun.
    pub generation: u32,
    /// How it stands.
    pub state: JobState,
    /// How far it is, for all endpoints that are not behind.
    pub progress: Progress,
    /// Endpoints that are slower than the others, up to [`Replay::BEHIND_MAX`], and from where on
    /// nothing is done for them yet: a place as in [`Progress::next`].
    pub behind: BTreeMap<EndpointId, u64>,
}

/// What a replay is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// These deliveries, up to [`Replay::ONLY_MAX`].
    Only(Vec<Past>),
    /// Events accepted in a time.
    Range(Range),
}

/// An event that was, or was not, delivered to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// The event.
    pub event: EventId,
    /// Its sequence in EVENTS.
    pub event_sequence: u64,
    /// The endpoint.
    pub endpoint: EndpointId,
}

/// Events of a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// For this endpoint only; for all of the tenant if not set.
    pub endpoint: Option<EndpointId>,
    /// The first instant.
    pub since: Timestamp,
    /// The last instant.
    pub until: Timestamp,
    /// Only events of these types; of all that the endpoints want if empty.
    pub types: Vec<TypePattern>,
    /// Which of them.
    pub which: Which,
}

/// Which events of a time are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those whose last delivery to the endpoint failed for good: exhausted, refused, or cancelled but
    /// by a person.
    Failed,
    /// Those whose last delivery to the endpoint is a dead letter: exhausted.
    Exhausted,
    /// All that the endpoint wants as it is now.
    All,
    /// Those of them that the endpoint never had a delivery of.
    Missing,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It is being done, or waits for its turn.
    Running,
    /// All of it is done.
    Done,
    /// A person cancelled it.
    Cancelled,
    /// It can never be done: the stable name of a [`Failure`].
    Failed(String),
}

/// Why a replay can never be done. What it has made by then goes its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The tenant was deleted.
    TenantDeleted,
    /// Every endpoint that it is for was deleted.
    EndpointDeleted,
    /// Every event that it is of is gone from the log.
    EventsGone,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The sequence of EVENTS, or the place in the list, from which on nothing is done yet.
    pub next: u64,
    /// The sequence of JOURNAL before which no fact about what comes from there on can be.
    pub journal_sequence: u64,
    /// How many events were looked at.
    pub looked_at: u64,
    /// How many deliveries were made.
    pub made: u64,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// Whether something may be on record as routed for it that is not a delivery yet, though it is
    /// over: whoever runs replays makes that.
    pub unfinished: bool,
}

impl Replay {
    /// The most deliveries that one replay can name.
    pub const ONLY_MAX: usize = 1_000;

    /// The most endpoints that can be behind the others. Where more are slow, the replay waits for
    /// those beyond.
    pub const BEHIND_MAX: usize = 256;

    /// Tells whether it makes no more than what is on record.
    pub fn is_over(&self) -> bool {
        self.state != JobState::Running
    }

    /// Tells whether whoever runs replays has something to do about it.
    pub fn wants_a_runner(&self) -> bool {
        !self.is_over() || self.progress.unfinished
    }

    /// The replay as it is once a person has cancelled it. What is on record of it by then becomes
    /// deliveries, whoever made it was interrupted or not.
    #[must_use]
    pub fn cancelled(&self, now: Timestamp) -> Self {
        let unfinished = self.generation > 0;
        let progress = Progress { updated_at: now, unfinished, ..self.progress };
        Self { state: JobState::Cancelled, progress, ..self.clone() }
    }
}

impl Range {
    /// Tells whether an event of that time and type is meant.
    pub fn covers(&self, at: Timestamp, event_type: &EventType) -> bool {
        let is_meant = |pattern: &TypePattern| pattern.matches(event_type);
        let types = self.types.is_empty() || self.types.iter().any(is_meant);
        types && (self.since..=self.until).contains(&at)
    }
}

impl Which {
    /// Every choice, in the order of declaration.
    pub const ALL: [Self; 4] = [Self::Failed, Self::Exhausted, Self::All, Self::Missing];

    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
            Self::All => "all",
            Self::Missing => "missing",
        }
    }
}

impl Failure {
    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TenantDeleted => "tenant_deleted",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::EventsGone => "events_gone",
        }
    }
}

impl From<Failure> for JobState {
    fn from(failure: Failure) -> Self {
        Self::Failed(String::from(failure.as_str()))
    }
}

impl JobState {
    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }
}
