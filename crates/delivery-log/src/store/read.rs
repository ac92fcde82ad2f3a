//! Rows out of the tables.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    BatchId, DeliveryId, EndpointId, EventId, Fault, Outcome, Timestamp,
    fact::{ConclusionReason, InBatch, Timing},
};

use crate::{
    database::{Row, StoreError},
    rows::{AttemptRow, DeliveryRow, EventRow, Origin, Place, Standing, State},
    store::time,
};

/// The columns that [`event`] reads.
pub(crate) const EVENT: &str = "id, tenant, event_type, sequence, accepted_at, occurred_at, \
    data_bytes, ordering_key, trace_id";

/// The columns that [`delivery`] reads.
pub(crate) const DELIVERY: &str = "id, tenant, event, event_sequence, endpoint, generation, \
    event_type, accepted_at, attempts, step, place, state, reason, next_attempt_at, since";

/// The columns that [`attempt`] reads.
pub(crate) const ATTEMPT: &str = "delivery, number, place, outcome, status, fault, retry_after, \
    started_at, duration, config_revision, retry_at, batch, batch_size, truncated, url, \
    signature, detail, headers, body, endpoint, connect_after, first_byte_after, trace_sampled";

/// Reads an event.
pub(crate) fn event(row: &Row) -> Result<EventRow, StoreError> {
    Ok(EventRow {
        id: EventId::from_bytes(id(row, 0, "id")?),
        tenant: parsed(row, 1, "tenant")?,
        event_type: parsed(row, 2, "event_type")?,
        sequence: number(row, 3, "sequence")?,
        accepted_at: required_time(row, 4, "accepted_at")?,
        occurred_at: required_time(row, 5, "occurred_at")?,
        data_bytes: number(row, 6, "data_bytes")?,
        ordering_key: row.text(7)?,
        trace_id: row.text(8)?,
    })
}

/// Reads a delivery.
pub(crate) fn delivery(row: &Row) -> Result<DeliveryRow, StoreError> {
    let origin = match (row.text(6)?, row.integer(7)?) {
        (Some(event_type), Some(accepted_at)) => Some(Origin {
            event_type: event_type.parse().map_err(|_| malformed("event_type"))?,
            accepted_at: time(accepted_at),
        }),
        _ => None,
    };
    Ok(DeliveryRow {
        id: DeliveryId::from_bytes(id(row, 0, "id")?),
        tenant: parsed(row, 1, "tenant")?,
        event: EventId::from_bytes(id(row, 2, "event")?),
        event_sequence: number(row, 3, "event_sequence")?,
        endpoint: EndpointId::from_bytes(id(row, 4, "endpoint")?),
        generation: small(row, 5, "generation")?,
        origin,
        attempts: small(row, 8, "attempts")?,
        standing: standing(row)?,
    })
}

fn standing(row: &Row) -> Result<Standing, StoreError> {
    let state = row.text(11)?.as_deref().and_then(State::from_name);
    let reason = match row.text(12)? {
        Some(name) => Some(reason(&name).ok_or(malformed("reason"))?),
        None => None,
    };
    Ok(Standing {
        step: row.integer(9)?.ok_or(malformed("step"))?,
        place: Place(row.integer(10)?.ok_or(malformed("place"))?),
        state: state.ok_or(malformed("state"))?,
        reason,
        next_attempt_at: row.integer(13)?.map(time),
        since: required_time(row, 14, "since")?,
    })
}

/// Reads an attempt.
pub(crate) fn attempt(row: &Row) -> Result<AttemptRow, StoreError> {
    let batch = match (row.bytes(11)?, row.integer(12)?) {
        (Some(bytes), Some(size)) => Some(InBatch {
            id: BatchId::from_bytes(bytes.try_into().map_err(|_| malformed("batch"))?),
            size: u32::try_from(size).map_err(|_| malformed("batch_size"))?,
        }),
        _ => None,
    };
    Ok(AttemptRow {
        delivery: DeliveryId::from_bytes(id(row, 0, "delivery")?),
        number: small(row, 1, "number")?,
        endpoint: EndpointId::from_bytes(id(row, 19, "endpoint")?),
        place: Place(row.integer(2)?.ok_or(malformed("place"))?),
        started_at: required_time(row, 7, "started_at")?,
        duration_nanos: number(row, 8, "duration")?,
        timing: Timing { connect: duration(row, 20)?, first_byte: duration(row, 21)? },
        outcome: outcome(row, 3)?,
        detail: row.text(16)?.unwrap_or_default(),
        config_revision: number(row, 9, "config_revision")?,
        url: row.text(14)?.unwrap_or_default(),
        signature: row.text(15)?.unwrap_or_default(),
        response_headers: headers(&row.text(17)?.unwrap_or_default())?,
        response_body: Bytes::from(row.bytes(18)?.unwrap_or_default()),
        response_truncated: row.integer(13)? == Some(1),
        retry_at: row.integer(10)?.map(time),
        batch,
        trace_sampled: row.integer(22)?.map(|sampled| sampled == 1),
    })
}

/// Reads an outcome from four columns.
pub(crate) fn outcome(row: &Row, first: usize) -> Result<Outcome, StoreError> {
    let status = row.integer(first + 1)?.and_then(|status| u16::try_from(status).ok());
    match (row.text(first)?.as_deref(), status) {
        (Some("accepted"), Some(status)) => Ok(Outcome::Accepted { status }),
        (Some("refused"), Some(status)) => {
            let retry_after = row.integer(first + 3)?.map(time);
            Ok(Outcome::Refused { status, retry_after })
        }
        (Some("failed"), _) => {
            let fault = row.text(first + 2)?;
            let fault = fault.as_deref().and_then(Fault::from_name);
            fault.map(Outcome::Failed).ok_or(malformed("fault"))
        }
        _ => Err(malformed("outcome")),
    }
}

/// Reads 16 bytes.
pub(crate) fn id(row: &Row, column: usize, what: &'static str) -> Result<[u8; 16], StoreError> {
    row.bytes(column)?.and_then(|bytes| bytes.try_into().ok()).ok_or(malformed(what))
}

/// Reads text of a form.
pub(crate) fn parsed<T: FromStr>(
    row: &Row,
    column: usize,
    what: &'static str,
) -> Result<T, StoreError> {
    row.text(column)?.and_then(|text| text.parse().ok()).ok_or(malformed(what))
}

/// Reads a time that is always there.
pub(crate) fn required_time(
    row: &Row,
    column: usize,
    what: &'static str,
) -> Result<Timestamp, StoreError> {
    row.integer(column)?.map(time).ok_or(malformed(what))
}

fn number(row: &Row, column: usize, what: &'static str) -> Result<u64, StoreError> {
    row.integer(column)?.and_then(|number| u64::try_from(number).ok()).ok_or(malformed(what))
}

fn small(row: &Row, column: usize, what: &'static str) -> Result<u32, StoreError> {
    row.integer(column)?.and_then(|number| u32::try_from(number).ok()).ok_or(malformed(what))
}

fn duration(row: &Row, column: usize) -> Result<Option<Duration>, StoreError> {
    let nanos = row.integer(column)?.map(|nanos| u64::try_from(nanos).unwrap_or_default());
    Ok(nanos.map(Duration::from_nanos))
}

fn reason(name: &str) -> Option<ConclusionReason> {
    ConclusionReason::ALL.into_iter().find(|reason| reason.as_str() == name)
}

const fn malformed(what: &'static str) -> StoreError {
    StoreError::Malformed { what }
}

/// Writes headers as JSON pairs. Values are any bytes: each is a character of Latin-1.
pub(super) fn headers_text(headers: &[(String, Bytes)]) -> String {
    let latin = |bytes: &Bytes| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let pairs: Vec<_> = headers.iter().map(|(name, value)| (name, latin(value))).collect();
    // A NUL would be a character that PostgreSQL's text has no room for: JSON escapes it.
    serde_json::to_string(&pairs).expect("pairs of texts are JSON")
}

fn headers(text: &str) -> Result<Vec<(String, Bytes)>, StoreError> {
    let pairs: Vec<(String, String)> =
        serde_json::from_str(text).map_err(|_| malformed("headers"))?;
    let bytes = |text: &str| -> Result<Bytes, StoreError> {
        let each = text.chars().map(|symbol| u8::try_from(u32::from(symbol)));
        each.collect::<Result<Vec<u8>, _>>().map(Bytes::from).map_err(|_| malformed("headers"))
    };
    pairs.into_iter().map(|(name, value)| Ok((name, bytes(&value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_any_bytes_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        let written = vec![
            (String::from("server"), Bytes::from_static(b"x")),
            (String::from("x-any"), Bytes::from(all)),
        ];
        let text = headers_text(&written);
        assert!(!text.contains('\0'));
        assert_eq!(headers(&text).unwrap(), written);
        assert!(headers("[[\"a\",\"\u{100}\"]]").is_err());
    }

    #[test]
    fn every_reason_reads_back() {
        for known in ConclusionReason::ALL {
            assert_eq!(reason(known.as_str()), Some(known));
        }
    }
}
