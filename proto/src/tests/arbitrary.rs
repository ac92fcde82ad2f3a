//! Any value of each kind of record, within the invariants of its type.

mod config;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    BatchId, BreakerMemory, BreakerState, Conclusion, DeliveryId, DeliveryRef, EndpointId, Event,
    EventId, EventType, Fact, Fault, InboxEvent, Outcome, Record, RetryDue, Shard, Target, Task,
    TenantId, Timestamp, TraceContext, TypePattern, WindowMemory,
    fact::{
        AttemptMade, ConclusionReason, DeferReason, DeliveryConcluded, DeliveryDeferred,
        DeliveryParked, EventRouted, InBatch, InFlight, LimitState, RetryScheduled, ShardClaimed,
        ShardReleased, Timing,
    },
    feed::{Blocked, Feed, Interval, Phase, PutOff, Reason},
};
use proptest::{
    collection::{btree_map, vec},
    option::of,
    prelude::*,
    sample::select,
};

pub(super) use self::config::change;
use crate::{AgendaEntry, EndpointHealth, Snapshot, decode_event, encode_event};

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// Zero is the default of most fields, and must not be mistaken for none where there is one.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 3 => any::<u64>()]
}

fn time() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp::from_nanos)
}

fn duration() -> impl Strategy<Value = Duration> {
    number().prop_map(Duration::from_nanos)
}

fn tenant_id() -> impl Strategy<Value = TenantId> {
    "[a-zA-Z0-9][a-zA-Z0-9_-]{0,20}".prop_map(|text| text.parse().unwrap())
}

fn event_type() -> impl Strategy<Value = EventType> {
    "[a-zA-Z0-9_-]{1,6}(\\.[a-z0-9]{1,6}){0,3}".prop_map(|text| text.parse().unwrap())
}

fn pattern() -> impl Strategy<Value = TypePattern> {
    "([a-z]{1,6}|\\*)(\\.[a-z]{1,6}){0,3}(\\.>)?".prop_map(|text| text.parse().unwrap())
}

fn event_id() -> impl Strategy<Value = EventId> {
    any::<[u8; 16]>().prop_map(EventId::from_bytes)
}

fn endpoint_id() -> impl Strategy<Value = EndpointId> {
    any::<[u8; 16]>().prop_map(EndpointId::from_bytes)
}

fn delivery_id() -> impl Strategy<Value = DeliveryId> {
    any::<[u8; 16]>().prop_map(DeliveryId::from_bytes)
}

fn trace() -> impl Strategy<Value = TraceContext> {
    let ids = (prop::array::uniform16(1_u8..), prop::array::uniform8(1_u8..));
    let some = (ids, "([a-z]{1,5}=[a-z0-9]{1,5})?").prop_map(|((trace, span), tracestate)| {
        TraceContext { tracestate, ..TraceContext::start(trace, span) }
    });
    prop_oneof![Just(TraceContext::default()), some]
}

fn attempt() -> impl Strategy<Value = u32> {
    1..=u32::MAX
}

fn shard() -> impl Strategy<Value = Shard> {
    (0_u16..256).prop_map(Shard::from_index)
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let what = (event_id(), tenant_id(), event_type(), blob(), trace());
    let accepted_at = of((1..=u64::MAX).prop_map(Timestamp::from_nanos));
    let when = (time(), accepted_at, of(1..=u64::MAX));
    let beside = (of(text()), btree_map(text(), text(), 0..4), of(text()));
    (what, when, beside).prop_map(|(what, when, beside)| {
        let (id, tenant, event_type, data, trace) = what;
        let (occurred_at, accepted_at, config_revision) = when;
        let (ordering_key, attributes, idempotency_key) = beside;
        Event {
            id,
            tenant,
            event_type,
            occurred_at,
            accepted_at,
            config_revision,
            data,
            ordering_key,
            attributes,
            idempotency_key,
            trace,
        }
    })
}

pub(super) fn task() -> impl Strategy<Value = Task> {
    let target = (delivery_id(), endpoint_id(), of(time()))
        .prop_map(|(delivery, endpoint, not_before)| Target { delivery, endpoint, not_before });
    let place = (number(), time(), any::<u32>(), number());
    (event(), place, vec(target, 1..=Task::TARGETS_MAX)).prop_map(|(event, place, targets)| {
        let (sequence, stored_at, generation, journal_sequence) = place;
        let event = decode_event(encode_event(&event), sequence, stored_at).unwrap();
        Task { event, targets, generation, journal_sequence }
    })
}

fn delivery() -> impl Strategy<Value = DeliveryRef> {
    let ids = (delivery_id(), tenant_id(), event_id(), event_type(), endpoint_id());
    (ids, number(), any::<u32>(), time()).prop_map(|(ids, sequence, generation, accepted_at)| {
        let (id, tenant, event, event_type, endpoint) = ids;
        let event_sequence = sequence;
        DeliveryRef {
            id,
            tenant,
            event,
            event_sequence,
            event_type,
            endpoint,
            generation,
            accepted_at,
        }
    })
}

pub(super) fn retry_due() -> impl Strategy<Value = RetryDue> {
    (delivery(), attempt(), time(), number(), trace(), in_batch()).prop_map(
        |(delivery, attempt, due_at, journal_sequence, trace, batch)| RetryDue {
            delivery,
            attempt,
            due_at,
            journal_sequence,
            trace,
            batch,
        },
    )
}

fn in_batch() -> impl Strategy<Value = Option<InBatch>> {
    let id = any::<[u8; 16]>().prop_map(BatchId::from_bytes);
    of((id, attempt()).prop_map(|(id, size)| InBatch { id, size }))
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u16>().prop_map(|status| Outcome::Accepted { status }),
        (any::<u16>(), of(time()))
            .prop_map(|(status, retry_after)| Outcome::Refused { status, retry_after }),
        select(&Fault::ALL).prop_map(Outcome::Failed),
    ]
}

fn attempt_made() -> impl Strategy<Value = Fact> {
    let request = (delivery(), attempt(), time(), duration(), number(), text(), text());
    let headers = vec((text(), blob()), 0..4);
    let answer = (outcome(), text(), headers, blob(), any::<bool>(), of(time()), in_batch());
    let later = || duration().prop_map(|duration| duration.max(Duration::from_nanos(1)));
    let timing = (of(later()), of(later()));
    let parts = (request, timing, answer, of(any::<bool>()));
    parts.prop_map(|(request, (connect, first_byte), answer, trace_sampled)| {
        let (delivery, attempt, started_at, duration, config_revision, url, signature) = request;
        let (outcome, detail, response_headers, response_body, truncated, retry_at, batch) = answer;
        Fact::AttemptMade(Box::new(AttemptMade {
            delivery,
            attempt,
            started_at,
            duration,
            timing: Timing { connect, first_byte },
            outcome,
            detail,
            config_revision,
            url: Arc::from(url),
            signature,
            response_headers,
            response_body,
            response_truncated: truncated,
            retry_at,
            batch,
            trace_sampled,
        }))
    })
}

fn event_routed() -> impl Strategy<Value = Fact> {
    let endpoints = || vec(endpoint_id(), 0..5);
    let event = (event_id(), tenant_id(), number(), number(), any::<u32>());
    let parts = (1..=u32::MAX).prop_flat_map(|parts| (0..parts, Just(parts)));
    let ends = (endpoints(), endpoints());
    (event, endpoints(), endpoints(), ends, parts).prop_map(
        |(event, targets, skipped, (held, fed), (part, parts))| {
            let (event, tenant, event_sequence, config_revision, generation) = event;
            Fact::EventRouted(EventRouted {
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
            })
        },
    )
}

fn breaker() -> impl Strategy<Value = BreakerMemory> {
    (select(&BreakerState::ALL), time(), any::<u32>(), number(), time()).prop_map(
        |(state, since, run, wait, probe_at)| {
            let wait = Duration::from_nanos(wait);
            BreakerMemory { state, since, run, wait, probe_at }
        },
    )
}

fn window() -> impl Strategy<Value = WindowMemory> {
    (any::<u32>(), any::<bool>(), time()).prop_map(|(size, slow_start, stepped_at)| WindowMemory {
        size,
        slow_start,
        stepped_at,
    })
}

fn shard_released() -> impl Strategy<Value = Fact> {
    let in_flight = (delivery(), attempt(), time(), of(delivery_id())).prop_map(
        |(delivery, attempt, ends_by, request)| {
            let DeliveryRef { id, endpoint, .. } = delivery;
            let request = request.unwrap_or(id);
            InFlight { delivery: id, attempt, endpoint, ends_by, request }
        },
    );
    let limit = (endpoint_id(), time(), time(), of(time()), of(breaker()), of(window())).prop_map(
        |(endpoint, gate, plan, quiet_until, breaker, window)| LimitState {
            endpoint,
            gate,
            plan,
            quiet_until,
            breaker,
            window,
        },
    );
    let left = (vec(in_flight, 0..4), vec(limit, 0..4));
    (shard(), number(), time(), left, 0..u32::MAX).prop_map(
        |(shard, epoch, limits_since, (in_flight, limits), part)| {
            let parts = part + 1;
            Fact::ShardReleased(Box::new(ShardReleased {
                shard,
                epoch,
                limits_since,
                in_flight,
                limits,
                part,
                parts,
            }))
        },
    )
}

fn fact() -> impl Strategy<Value = Fact> {
    let claimed = (shard(), number(), text())
        .prop_map(|(shard, epoch, owner)| Fact::ShardClaimed(ShardClaimed { shard, epoch, owner }));
    let reason = select(&DeferReason::ALL);
    let deferred = (delivery(), attempt(), time(), reason, in_batch()).prop_map(
        |(delivery, attempt, until, reason, batch)| {
            Fact::DeliveryDeferred(DeliveryDeferred { delivery, attempt, until, reason, batch })
        },
    );
    let parked = (delivery(), attempt())
        .prop_map(|(delivery, attempt)| Fact::DeliveryParked(DeliveryParked { delivery, attempt }));
    let conclusion = select(
        &[Conclusion::Delivered, Conclusion::Exhausted, Conclusion::Refused, Conclusion::Cancelled]
            [..],
    );
    let concluded = (delivery(), conclusion, any::<u32>(), select(&ConclusionReason::ALL))
        .prop_map(|(delivery, conclusion, attempts, reason)| {
            Fact::DeliveryConcluded(DeliveryConcluded { delivery, conclusion, attempts, reason })
        });
    let scheduled = (delivery(), attempt(), time(), number(), in_batch()).prop_map(
        |(delivery, attempt, due_at, cause_sequence, batch)| {
            Fact::RetryScheduled(RetryScheduled {
                delivery,
                attempt,
                due_at,
                cause_sequence,
                batch,
            })
        },
    );
    prop_oneof![
        claimed,
        attempt_made(),
        deferred,
        parked,
        concluded,
        scheduled,
        event_routed(),
        shard_released(),
    ]
}

pub(super) fn record() -> impl Strategy<Value = Record> {
    (time(), trace(), fact()).prop_map(|(recorded_at, trace, fact)| Record {
        recorded_at,
        trace,
        fact,
    })
}

pub(super) fn inbox() -> impl Strategy<Value = InboxEvent> {
    let given = || of("[a-z]{1,8}");
    let occurred_at = of((1_u64..18_446_744_073_709).prop_map(Timestamp::from_millis));
    (blob(), text(), occurred_at, given(), btree_map(text(), text(), 0..4), given(), trace())
        .prop_map(|(data, content_type, occurred_at, ordering_key, attributes, key, trace)| {
            InboxEvent {
                data,
                content_type,
                occurred_at,
                ordering_key,
                attributes,
                idempotency_key: key,
                trace,
            }
        })
}

pub(super) fn feed() -> impl Strategy<Value = Feed> {
    let phase = prop_oneof![
        Just(Phase::Open),
        Just(Phase::Closing),
        (number(), time()).prop_map(|(until, at)| Phase::Closed { until, at }),
    ];
    let reason = select(&[Reason::Backlog, Reason::Hold, Reason::Ordered][..]);
    let blocked = (number(), number(), vec(number(), 0..4))
        .prop_map(|(key, by, waiting)| Blocked { key, by, waiting });
    let past = (number(), number(), time()).prop_map(|(from, until, closed_at)| Interval {
        from,
        until,
        closed_at,
    });
    let whose = (tenant_id(), endpoint_id(), reason, time());
    let put_off = (number(), time()).prop_map(|(sequence, until)| PutOff { sequence, until });
    let ended = (vec(number(), 0..4), vec(put_off, 0..4), number());
    (whose, phase, (number(), number()), (vec(blocked, 0..3), ended), vec(past, 0..3)).prop_map(
        |((tenant, endpoint, reason, opened_at), phase, (from, next), (blocked, over), past)| {
            let (ended, taken_over, ended_since) = over;
            Feed {
                tenant,
                endpoint,
                from,
                phase,
                reason,
                opened_at,
                next,
                blocked,
                past,
                ended,
                ended_since,
                taken_over,
            }
        },
    )
}

pub(super) fn hint() -> impl Strategy<Value = Vec<(EndpointId, u64)>> {
    vec((endpoint_id(), number()), 0..5)
}

pub(super) fn snapshot() -> impl Strategy<Value = Snapshot> {
    let entry = (delivery_id(), attempt(), time(), number()).prop_map(
        |(delivery, attempt, due_at, journal_sequence)| AgendaEntry {
            delivery,
            attempt,
            due_at,
            journal_sequence,
        },
    );
    let health = (endpoint_id(), tenant_id(), attempt(), time(), time()).prop_map(
        |(endpoint, tenant, consecutive_failures, first_failure_at, last_failure_at)| {
            EndpointHealth {
                endpoint,
                tenant,
                consecutive_failures,
                first_failure_at,
                last_failure_at,
            }
        },
    );
    (shard(), number(), time(), vec(entry, 0..5), vec(health, 0..5)).prop_map(
        |(shard, journal_sequence, taken_at, agenda, health)| Snapshot {
            shard,
            journal_sequence,
            taken_at,
            agenda,
            health,
        },
    )
}
