//! Rows into the tables, many in a statement.
//!
//! The number of rows in a statement is one of a few, so that each statement is prepared once.
//! Each names a key once: PostgreSQL does not change a row twice in a statement.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use fanfare_domain::{EndpointId, Outcome, TenantId, Timestamp, fact::ConclusionReason};

use super::texts::Texts;
use crate::{
    audit::AuditRow,
    database::{Statement, StoreError, Transaction, Value},
    fold::Changes,
    rows::{AttemptRow, DeliveryRow, EventRow},
    store::nanos,
};

/// How many rows a statement may have.
const PORTIONS: [usize; 4] = [PIECE, 16, 4, 1];
/// The most of them.
const PIECE: usize = 64;

/// Splits rows into portions.
pub(crate) fn portions<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let fits = |portion: &usize| *portion <= rows.len();
        let (some, rest) = rows.split_at_checked(PORTIONS.into_iter().find(fits)?)?;
        rows = rest;
        Some(some)
    })
}

pub(super) async fn types(
    transaction: &mut Transaction,
    changes: &Changes,
) -> Result<(), StoreError> {
    let of_events = changes.events.values().map(|row| (&row.tenant, &row.event_type));
    let origins = changes.deliveries.values();
    let origins = origins.filter_map(|row| Some((&row.tenant, &row.origin.as_ref()?.event_type)));
    let types: BTreeSet<_> = of_events.chain(origins).collect();
    let rows = types.into_iter().map(|(tenant, event_type)| {
        vec![Value::from(tenant.as_str()), Value::from(event_type.as_str())]
    });
    let head = "INSERT INTO fanfare_types (tenant, event_type) VALUES ";
    write(transaction, (head, " ON CONFLICT (tenant, event_type) DO NOTHING"), rows).await
}

pub(super) async fn events(
    transaction: &mut Transaction,
    rows: impl Iterator<Item = EventRow> + Send,
) -> Result<(), StoreError> {
    let head = "INSERT INTO fanfare_events AS e (id, tenant, event_type, sequence, accepted_at, \
        occurred_at, data_bytes, ordering_key, trace_id) VALUES ";
    let tail = Texts::of(transaction.dialect()).event;
    let rows = rows.map(|row| {
        vec![
            row.id.as_bytes().into(),
            row.tenant.as_str().into(),
            row.event_type.as_str().into(),
            row.sequence.into(),
            nanos(row.accepted_at).into(),
            nanos(row.occurred_at).into(),
            row.data_bytes.into(),
            row.ordering_key.as_deref().into(),
            row.trace_id.as_deref().into(),
        ]
    });
    write(transaction, (head, tail), rows).await
}

pub(super) async fn deliveries(
    transaction: &mut Transaction,
    rows: impl Iterator<Item = DeliveryRow> + Send,
) -> Result<(), StoreError> {
    let head = "INSERT INTO fanfare_deliveries AS d (id, tenant, event, event_sequence, endpoint, \
        generation, event_type, accepted_at, attempts, step, place, state, reason, \
        next_attempt_at, since) VALUES ";
    let tail = Texts::of(transaction.dialect()).delivery;
    let rows = rows.map(|row| {
        let DeliveryRow { origin, standing, .. } = &row;
        let event_type = origin.as_ref().map(|origin| origin.event_type.as_str());
        vec![
            row.id.as_bytes().into(),
            row.tenant.as_str().into(),
            row.event.as_bytes().into(),
            row.event_sequence.into(),
            row.endpoint.as_bytes().into(),
            row.generation.into(),
            event_type.into(),
            origin.as_ref().map(|origin| nanos(origin.accepted_at)).into(),
            row.attempts.into(),
            standing.step.into(),
            standing.place.0.into(),
            standing.state.as_str().into(),
            standing.reason.map(ConclusionReason::as_str).into(),
            standing.next_attempt_at.map(nanos).into(),
            nanos(standing.since).into(),
        ]
    });
    write(transaction, (head, tail), rows).await
}

pub(super) async fn attempts(
    transaction: &mut Transaction,
    rows: impl Iterator<Item = AttemptRow> + Send,
) -> Result<(), StoreError> {
    let head = "INSERT INTO fanfare_attempts (delivery, number, endpoint, place, outcome, status, fault, \
        retry_after, started_at, duration, config_revision, retry_at, batch, batch_size, \
        truncated, url, signature, detail, headers, body, connect_after, \
        first_byte_after, trace_sampled) VALUES ";
    let tail = " ON CONFLICT (delivery, number) DO UPDATE SET place = excluded.place, \
        outcome = excluded.outcome, status = excluded.status, fault = excluded.fault, \
        retry_after = excluded.retry_after, started_at = excluded.started_at, \
        duration = excluded.duration, config_revision = excluded.config_revision, \
        retry_at = excluded.retry_at, batch = excluded.batch, batch_size = excluded.batch_size, \
        truncated = excluded.truncated, url = excluded.url, signature = excluded.signature, \
        detail = excluded.detail, headers = excluded.headers, body = excluded.body, \
        connect_after = excluded.connect_after, \
        first_byte_after = excluded.first_byte_after, trace_sampled = excluded.trace_sampled \
        WHERE excluded.place > fanfare_attempts.place";
    write(transaction, (head, tail), rows.map(|row| attempt(&row))).await
}

fn attempt(row: &AttemptRow) -> Vec<Value> {
    let (outcome, fault, retry_after) = match &row.outcome {
        Outcome::Accepted { .. } => ("accepted", None, None),
        Outcome::Refused { retry_after, .. } => ("refused", None, retry_after.map(nanos)),
        Outcome::Failed(fault) => ("failed", Some(fault.as_str()), None),
    };
    vec![
        row.delivery.as_bytes().into(),
        row.number.into(),
        row.endpoint.as_bytes().into(),
        row.place.0.into(),
        outcome.into(),
        row.outcome.status().map(i64::from).into(),
        fault.into(),
        retry_after.into(),
        nanos(row.started_at).into(),
        row.duration_nanos.into(),
        row.config_revision.into(),
        row.retry_at.map(nanos).into(),
        row.batch.as_ref().map(|batch| batch.id.as_bytes()).into(),
        row.batch.map(|batch| i64::from(batch.size)).into(),
        i64::from(row.response_truncated).into(),
        row.url.as_str().into(),
        row.signature.as_str().into(),
        row.detail.as_str().into(),
        super::read::headers_text(&row.response_headers).as_str().into(),
        row.response_body.as_ref().into(),
        row.timing.connect.map(duration).into(),
        row.timing.first_byte.map(duration).into(),
        row.trace_sampled.map(i64::from).into(),
    ]
}

fn duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) async fn audit(
    transaction: &mut Transaction,
    installation: &str,
    rows: impl Iterator<Item = AuditRow> + Send,
) -> Result<(), StoreError> {
    let head = "INSERT INTO fanfare_audit (installation, revision, recorded_at, tenant, kind, \
        entity, deleted, actor, reason, trace_id, document) VALUES ";
    let rows = rows.map(|row| {
        vec![
            installation.into(),
            row.revision.into(),
            nanos(row.recorded_at).into(),
            row.tenant.as_ref().map_or("", TenantId::as_str).into(),
            row.kind.as_str().into(),
            row.entity.as_str().into(),
            i64::from(row.deleted).into(),
            row.actor.as_str().into(),
            row.reason.as_str().into(),
            row.trace_id.as_deref().into(),
            row.document.as_str().into(),
        ]
    });
    write(transaction, (head, " ON CONFLICT (installation, revision) DO NOTHING"), rows).await
}

pub(super) async fn deleted(
    transaction: &mut Transaction,
    rows: &BTreeMap<EndpointId, Timestamp>,
) -> Result<(), StoreError> {
    let head = "INSERT INTO fanfare_deleted (endpoint, deleted_at, purged) VALUES ";
    let tail = " ON CONFLICT (endpoint) DO UPDATE SET deleted_at = excluded.deleted_at, purged = 0 \
        WHERE excluded.deleted_at > fanfare_deleted.deleted_at";
    let rows = rows.iter().map(|(endpoint, at)| {
        vec![endpoint.as_bytes().into(), nanos(*at).into(), Value::from(0_i64)]
    });
    write(transaction, (head, tail), rows).await
}

/// Writes rows in portions, in statements that begin and end alike.
pub(crate) async fn write(
    transaction: &mut Transaction,
    (head, tail): (&'static str, &'static str),
    rows: impl Iterator<Item = Vec<Value>> + Send,
) -> Result<(), StoreError> {
    for statement in statements((head, tail), rows) {
        transaction.execute(statement).await?;
    }
    Ok(())
}

/// Makes the statements one by one: what rows become in between takes more memory than they do, and
/// is there for no more than the rows of one statement.
fn statements(
    (head, tail): (&'static str, &'static str),
    mut rows: impl Iterator<Item = Vec<Value>>,
) -> impl Iterator<Item = Statement> {
    let mut piece: VecDeque<Vec<Value>> = VecDeque::with_capacity(PIECE);
    std::iter::from_fn(move || {
        piece.extend(rows.by_ref().take(PIECE - piece.len()));
        let size = PORTIONS.into_iter().find(|portion| *portion <= piece.len())?;
        let mut statement = Statement::new(head);
        for (index, row) in piece.drain(..size).enumerate() {
            if index > 0 {
                statement.push(", ");
            }
            statement.bind_list(row);
        }
        statement.push(tail);
        Some(statement)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn portions_are_of_few_sizes_and_leave_nothing_out() {
        for count in [0, 1, 3, 64, 150] {
            let rows: Vec<usize> = (0..count).collect();
            let split: Vec<&[usize]> = portions(&rows).collect();
            assert_eq!(split.concat(), rows);
            assert!(split.iter().all(|portion| PORTIONS.contains(&portion.len())), "{split:?}");
        }
    }

    #[test]
    fn rows_are_turned_into_statements_piece_by_piece() {
        for count in [0, 1, 3, 64, 150] {
            let turned = Cell::new(0);
            let rows = (0..count).map(|row: i64| {
                turned.set(turned.get() + 1);
                vec![Value::from(row)]
            });
            let (mut written, mut values) = (0, Vec::new());
            for statement in statements(("HEAD ", " TAIL"), rows) {
                written += statement.values.len();
                values.extend(statement.values);
                assert!(turned.get() - written < PIECE, "{} before {written}", turned.get());
            }
            assert_eq!(values, (0..count).map(Value::from).collect::<Vec<_>>());
        }
    }
}
