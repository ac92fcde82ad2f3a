//! `JournalRecord`: facts in batches, what JOURNAL holds.

mod brief;
mod decode;

use bytes::Bytes;
use fanfare_domain::{
    BreakerMemory, Fact, Outcome, Record, Timestamp, WindowMemory,
    fact::{
        AttemptMade, DeliveryConcluded, DeliveryDeferred, DeliveryParked, EventRouted, InFlight,
        LimitState, RetryScheduled, ShardClaimed, ShardReleased,
    },
};

use crate::{
    choice::Choice as _,
    encode::{self, Fields, Sink},
};

pub use self::{brief::decode_journal_briefly, decode::decode_journal};

/// Writes a batch of facts: one message of JOURNAL. There must be at least one. An end directly
/// behind the attempt that it followed from repeats nothing of it.
pub fn encode_journal(records: &[Record]) -> Bytes {
    let bytes = Batch(records).to_bytes();
    encode::debug_assert_readable(|| decode_journal(bytes.clone()));
    bytes
}

/// Writes facts for those who may be of an earlier version, or read without us: like
/// [`encode_journal`], but each fact is whole.
pub fn encode_facts(records: &[Record]) -> Bytes {
    let bytes = Whole(records).to_bytes();
    encode::debug_assert_readable(|| decode_journal(bytes.clone()));
    bytes
}

/// Returns how many bytes a fact adds to a batch, at most: a conclusion adds fewer where it stands
/// behind the attempt that it follows from.
pub fn encoded_len(record: &Record) -> usize {
    encode::length_as_field(1, record)
}

struct Batch<'a>(&'a [Record]);

impl Fields for Batch<'_> {
    fn write(&self, out: &mut impl Sink) {
        let mut before = None;
        for record in self.0 {
            match before.and_then(|before| ending(before, record)) {
                Some(ending) => out.message(1, &ending),
                None => out.message(1, record),
            }
            before = Some(record);
        }
    }
}

struct Whole<'a>(&'a [Record]);

impl Fields for Whole<'_> {
    fn write(&self, out: &mut impl Sink) {
        for record in self.0 {
            out.message(1, record);
        }
    }
}

/// A conclusion that follows from the attempt before it, of which it says nothing again.
struct Ending<'a> {
    recorded_at: Timestamp,
    concluded: &'a DeliveryConcluded,
}

fn ending<'a>(before: &Record, record: &'a Record) -> Option<Ending<'a>> {
    let Fact::DeliveryConcluded(concluded) = &record.fact else { return None };
    let made = before.fact.attempt_made()?;
    let follows = concluded.delivery == made.delivery
        && concluded.attempts == made.attempt
        && record.trace == before.trace;
    follows.then_some(Ending { recorded_at: record.recorded_at, concluded })
}

impl Fields for Ending<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.time(1, self.recorded_at);
        out.message(12, &HowItEnded(self.concluded));
    }
}

struct HowItEnded<'a>(&'a DeliveryConcluded);

impl Fields for HowItEnded<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.uint(1, self.0.conclusion.to_wire());
        out.uint(2, self.0.reason.to_wire());
    }
}

impl Fields for Record {
    fn write(&self, out: &mut impl Sink) {
        let Self { recorded_at, trace, fact } = self;
        out.time(1, *recorded_at);
        out.trace(2, trace);
        match fact {
            Fact::ShardClaimed(claimed) => out.message(4, claimed),
            Fact::AttemptMade(made) => out.message(5, made.as_ref()),
            Fact::DeliveryDeferred(deferred) => out.message(6, deferred),
            Fact::DeliveryParked(parked) => out.message(7, parked),
            Fact::DeliveryConcluded(concluded) => out.message(8, concluded),
            Fact::RetryScheduled(scheduled) => out.message(9, scheduled),
            Fact::EventRouted(routed) => out.message(10, routed),
            Fact::ShardReleased(released) => out.message(11, released.as_ref()),
        }
    }
}

impl Fields for ShardClaimed {
    fn write(&self, out: &mut impl Sink) {
        let Self { shard, epoch, owner } = self;
        out.uint(1, u64::from(shard.index()));
        out.uint(2, *epoch);
        out.text(3, owner);
    }
}

impl Fields for ShardReleased {
    fn write(&self, out: &mut impl Sink) {
        let Self { shard, epoch, limits_since, in_flight, limits, part, parts } = self;
        out.uint(1, u64::from(shard.index()));
        out.uint(2, *epoch);
        out.time(3, *limits_since);
        for request in in_flight {
            out.message(4, request);
        }
        for limit in limits {
            out.message(5, limit);
        }
        out.uint(6, u64::from(*part));
        out.uint(7, u64::from(*parts));
    }
}

impl Fields for InFlight {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt, endpoint, ends_by, request } = self;
        out.bytes(1, delivery.as_bytes());
        out.uint(2, u64::from(*attempt));
        out.bytes(3, endpoint.as_bytes());
        out.time(4, *ends_by);
        if request != delivery {
            out.bytes(5, request.as_bytes());
        }
    }
}

impl Fields for LimitState {
    fn write(&self, out: &mut impl Sink) {
        let Self { endpoint, gate, plan, quiet_until, breaker, window } = self;
        out.bytes(1, endpoint.as_bytes());
        out.time(2, *gate);
        out.time(3, *plan);
        out.some_time(4, *quiet_until);
        if let Some(breaker) = breaker {
            out.message(5, breaker);
        }
        if let Some(window) = window {
            out.message(6, window);
        }
    }
}

impl Fields for BreakerMemory {
    fn write(&self, out: &mut impl Sink) {
        let Self { state, since, run, wait, probe_at } = self;
        out.uint(1, state.to_wire());
        out.time(2, *since);
        out.uint(3, u64::from(*run));
        out.uint(4, u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        out.time(5, *probe_at);
    }
}

impl Fields for WindowMemory {
    fn write(&self, out: &mut impl Sink) {
        let Self { size, slow_start, stepped_at } = self;
        out.uint(1, u64::from(*size));
        out.uint(2, u64::from(*slow_start));
        out.time(3, *stepped_at);
    }
}

impl Fields for AttemptMade {
    fn write(&self, out: &mut impl Sink) {
        let Self {
            delivery,
            attempt,
            started_at,
            duration,
            timing,
            outcome,
            detail,
            config_revision,
            url,
            signature,
            response_headers,
            response_body,
            response_truncated,
            retry_at,
            batch,
            trace_sampled,
        } = self;
        out.message(1, delivery);
        out.uint(2, u64::from(*attempt));
        out.time(3, *started_at);
        out.uint(4, encode::nanos(*duration));
        match outcome {
            Outcome::Accepted { status } => {
                out.message(5, &Answer { status: *status, retry_after: None });
            }
            Outcome::Refused { status, retry_after } => {
                out.message(6, &Answer { status: *status, retry_after: *retry_after });
            }
            Outcome::Failed(fault) => out.some_uint(7, fault.to_wire()),
        }
        out.text(8, detail);
        out.uint(9, *config_revision);
        out.text(10, url);
        out.text(11, signature);
        for (name, value) in response_headers {
            out.message(12, &Header { name, value });
        }
        out.bytes(13, response_body);
        out.uint(14, u64::from(*response_truncated));
        out.some_time(15, *retry_at);
        out.in_batch(16, *batch);
        for (number, after) in [(17, timing.connect), (18, timing.first_byte)] {
            out.uint(number, after.map_or(0, |after| encode::nanos(after).max(1)));
        }
        if let Some(sampled) = trace_sampled {
            out.some_uint(19, u64::from(*sampled));
        }
    }
}

/// `Accepted`, and `Refused` with its second field.
struct Answer {
    status: u16,
    retry_after: Option<Timestamp>,
}

impl Fields for Answer {
    fn write(&self, out: &mut impl Sink) {
        out.uint(1, u64::from(self.status));
        out.some_time(2, self.retry_after);
    }
}

struct Header<'a> {
    name: &'a str,
    value: &'a [u8],
}

impl Fields for Header<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.text(1, self.name);
        out.bytes(2, self.value);
    }
}

impl Fields for DeliveryDeferred {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt, until, reason, batch } = self;
        out.message(1, delivery);
        out.uint(2, u64::from(*attempt));
        out.time(3, *until);
        out.uint(4, reason.to_wire());
        out.in_batch(5, *batch);
    }
}

impl Fields for DeliveryParked {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt } = self;
        out.message(1, delivery);
        out.uint(2, u64::from(*attempt));
    }
}

impl Fields for DeliveryConcluded {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, conclusion, attempts, reason } = self;
        out.message(1, delivery);
        out.uint(2, conclusion.to_wire());
        out.uint(3, u64::from(*attempts));
        out.uint(4, reason.to_wire());
    }
}

impl Fields for RetryScheduled {
    fn write(&self, out: &mut impl Sink) {
        let Self { delivery, attempt, due_at, cause_sequence, batch } = self;
        out.message(1, delivery);
        out.uint(2, u64::from(*attempt));
        out.time(3, *due_at);
        out.uint(4, *cause_sequence);
        out.in_batch(5, *batch);
    }
}

impl Fields for EventRouted {
    fn write(&self, out: &mut impl Sink) {
        let Self {
            event,
            tenant,
            event_sequence,
            config_revision,
            generation,
            targets,
            skipped,
            held,
            fed,
            part,
            parts,
        } = self;
        out.bytes(1, event.as_bytes());
        out.text(2, tenant.as_str());
        out.uint(3, *event_sequence);
        out.uint(4, *config_revision);
        out.uint(5, u64::from(*generation));
        for (number, endpoints) in [(6, targets), (7, skipped), (8, held)] {
            for endpoint in endpoints {
                out.bytes(number, endpoint.as_bytes());
            }
        }
        out.uint(9, u64::from(*part));
        out.uint(10, u64::from(*parts));
        for endpoint in fed {
            out.bytes(11, endpoint.as_bytes());
        }
    }
}
