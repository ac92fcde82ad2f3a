//! `Replay`: what JOBS holds.

use bytes::Bytes;
use fanfare_domain::{
    EndpointId, EventId, JobId, Replay, Timestamp,
    job::{JobState, Past, Progress, Range, Scope, Which},
};

use crate::{
    encode::{self, Fields, Sink},
    error::DecodeError,
    parse, wire,
};

/// Writes a replay and how far it is.
pub fn encode_replay(replay: &Replay) -> Bytes {
    let bytes = replay.to_bytes();
    encode::debug_assert_readable(|| decode_replay(bytes.clone()));
    bytes
}

/// Reads a replay and how far it is.
pub fn decode_replay(bytes: Bytes) -> Result<Replay, DecodeError> {
    let wire: wire::Replay = parse::message(bytes, "Replay")?;
    let next = if wire.behind.is_empty() { wire.next } else { wire.most_next };
    Ok(Replay {
        id: parse::id(&wire.job_id, "Replay.job_id", JobId::from_bytes)?,
        tenant: parse::tenant(&wire.tenant, "Replay.tenant")?,
        actor: wire.actor,
        reason: wire.reason,
        created_at: Timestamp::from_nanos(wire.created_at_ns),
        scope: scope(wire.scope)?,
        generation: wire.generation,
        state: state(wire.state, wire.failure)?,
        progress: Progress {
            next,
            journal_sequence: wire.journal_sequence,
            looked_at: wire.looked_at,
            made: wire.made,
            updated_at: Timestamp::from_nanos(wire.updated_at_ns),
            unfinished: wire.unfinished,
        },
        behind: wire.behind.iter().map(behind).collect::<Result<_, _>>()?,
    })
}

fn behind(wire: &wire::ReplayBehind) -> Result<(EndpointId, u64), DecodeError> {
    let endpoint = &wire.endpoint_id;
    Ok((parse::id(endpoint, "ReplayBehind.endpoint_id", EndpointId::from_bytes)?, wire.next))
}

fn scope(wire: Option<wire::replay::Scope>) -> Result<Scope, DecodeError> {
    let Some(wire) = wire else {
        return Err(DecodeError::UnknownBody { field: "Replay.scope".into() });
    };
    Ok(match wire {
        wire::replay::Scope::Only(only) => {
            Scope::Only(only.past.iter().map(past).collect::<Result<_, _>>()?)
        }
        wire::replay::Scope::Range(range) => Scope::Range(self::range(&range)?),
    })
}

fn past(wire: &wire::ReplayPast) -> Result<Past, DecodeError> {
    Ok(Past {
        event: parse::id(&wire.event_id, "ReplayPast.event_id", EventId::from_bytes)?,
        event_sequence: wire.event_sequence,
        endpoint: parse::id(&wire.endpoint_id, "ReplayPast.endpoint_id", EndpointId::from_bytes)?,
    })
}

fn range(wire: &wire::ReplayRange) -> Result<Range, DecodeError> {
    let endpoint = (!wire.endpoint_id.is_empty()).then_some(&wire.endpoint_id);
    let endpoint = endpoint
        .map(|bytes| parse::id(bytes, "ReplayRange.endpoint_id", EndpointId::from_bytes))
        .transpose()?;
    let types = wire.types.iter().map(|text| parse::syntax(text, "ReplayRange.types"));
    Ok(Range {
        endpoint,
        since: Timestamp::from_nanos(wire.since_ns),
        until: Timestamp::from_nanos(wire.until_ns),
        types: types.collect::<Result<_, _>>()?,
        which: which(wire)?,
    })
}

fn which(wire: &wire::ReplayRange) -> Result<Which, DecodeError> {
    match wire::ReplayWhich::try_from(wire.which) {
        Ok(wire::ReplayWhich::Failed) if wire.dead_letters_only => Ok(Which::Exhausted),
        Ok(wire::ReplayWhich::Failed) => Ok(Which::Failed),
        Ok(wire::ReplayWhich::All) => Ok(Which::All),
        Ok(wire::ReplayWhich::Missing) => Ok(Which::Missing),
        Ok(wire::ReplayWhich::Unspecified) => {
            Err(DecodeError::Missing { field: "ReplayRange.which".into() })
        }
        Err(_) => {
            Err(DecodeError::UnknownValue { field: "ReplayRange.which".into(), value: wire.which })
        }
    }
}

fn state(number: i32, failure: String) -> Result<JobState, DecodeError> {
    match wire::JobState::try_from(number) {
        Ok(wire::JobState::Running) => Ok(JobState::Running),
        Ok(wire::JobState::Done) => Ok(JobState::Done),
        Ok(wire::JobState::Cancelled) => Ok(JobState::Cancelled),
        Ok(wire::JobState::Failed) => Ok(JobState::Failed(failure)),
        Ok(wire::JobState::Unspecified) => {
            Err(DecodeError::Missing { field: "Replay.state".into() })
        }
        Err(_) => Err(DecodeError::UnknownValue { field: "Replay.state".into(), value: number }),
    }
}

impl Fields for Replay {
    fn write(&self, out: &mut impl Sink) {
        let Self { id, tenant, actor, reason, created_at, scope, generation, state, .. } = self;
        let Self { progress, behind, .. } = self;
        let Progress { next, journal_sequence, looked_at, made, updated_at, unfinished } =
            *progress;
        out.bytes(1, id.as_bytes());
        out.text(2, tenant.as_str());
        out.text(3, actor);
        out.text(4, reason);
        out.time(5, *created_at);
        out.uint(6, u64::from(*generation));
        match scope {
            Scope::Only(past) => out.message(7, &Only(past)),
            Scope::Range(range) => out.message(8, range),
        }
        let (number, failure) = match state {
            JobState::Running => (wire::JobState::Running, ""),
            JobState::Done => (wire::JobState::Done, ""),
            JobState::Cancelled => (wire::JobState::Cancelled, ""),
            JobState::Failed(why) => (wire::JobState::Failed, why.as_str()),
        };
        out.uint(9, number as u64);
        out.text(10, failure);
        // Who knows nothing of those that are behind goes back to the last of them.
        out.uint(11, behind.values().copied().fold(next, u64::min));
        out.uint(12, journal_sequence);
        out.uint(13, looked_at);
        out.uint(14, made);
        out.time(15, updated_at);
        out.uint(16, u64::from(unfinished));
        for (endpoint, next) in behind {
            out.message(17, &Behind(*endpoint, *next));
        }
        out.uint(18, if behind.is_empty() { 0 } else { next });
    }
}

struct Behind(EndpointId, u64);

impl Fields for Behind {
    fn write(&self, out: &mut impl Sink) {
        let Self(endpoint, next) = self;
        out.bytes(1, endpoint.as_bytes());
        out.uint(2, *next);
    }
}

struct Only<'a>(&'a [Past]);

impl Fields for Only<'_> {
    fn write(&self, out: &mut impl Sink) {
        for past in self.0 {
            out.message(1, past);
        }
    }
}

impl Fields for Past {
    fn write(&self, out: &mut impl Sink) {
        let Self { event, event_sequence, endpoint } = self;
        out.bytes(1, event.as_bytes());
        out.uint(2, *event_sequence);
        out.bytes(3, endpoint.as_bytes());
    }
}

impl Fields for Range {
    fn write(&self, out: &mut impl Sink) {
        let Self { endpoint, since, until, types, which } = self;
        if let Some(endpoint) = endpoint {
            out.bytes(1, endpoint.as_bytes());
        }
        out.time(2, *since);
        out.time(3, *until);
        for pattern in types {
            out.some_bytes(4, pattern.as_str().as_bytes());
        }
        let (value, dead_letters_only) = match which {
            Which::Failed => (wire::ReplayWhich::Failed, false),
            Which::Exhausted => (wire::ReplayWhich::Failed, true),
            Which::All => (wire::ReplayWhich::All, false),
            Which::Missing => (wire::ReplayWhich::Missing, false),
        };
        out.uint(5, value as u64);
        out.uint(6, u64::from(dead_letters_only));
    }
}
