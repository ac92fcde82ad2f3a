//! What is waited for beside the desk, and what it came to.

use std::time::Duration;

use anyhow::Context as _;
use fanfare_domain::{DeliveryId, EndpointId, Record, Shard};
use fanfare_event_log::{AppendError, EventLog, JournalWriter, Pending, PublishError, Schedules};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{sweeping::Findings, telling::News};
use crate::agenda::Cause;

/// How long to wait before writing to a stream again that was full.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// What a job came to.
pub(super) enum Done {
    /// Facts are written, or the shard is handed over.
    Planned {
        /// The right to write more.
        writer: Box<JournalWriter>,
        /// How many were written.
        count: usize,
    },
    /// An alarm is set, or could not be.
    Alarmed {
        /// The fact that called for it.
        cause: Cause,
        /// Whether it is set.
        set: bool,
    },
    /// An alarm was set once more, or could not be: the next sweep will tell.
    Rescued {
        /// The delivery that it is for.
        delivery: DeliveryId,
    },
    /// Facts were read again.
    Recalled {
        /// Their sequence.
        sequence: u64,
        /// The facts.
        recalled: Recalled,
    },
    /// An alarm was stopped, or not.
    Stopped {
        /// The fact that made it pointless.
        cause: Cause,
        /// Whether it is.
        stopped: bool,
    },
    /// Operators were told of exhausted deliveries, or could not be.
    Told {
        /// The facts that called for it.
        causes: Vec<Cause>,
        /// Whether they were.
        told: bool,
    },
    /// Operators were told of endpoints and keys, or could not be.
    Announced {
        /// Of which, unless they could not be.
        told: Option<News>,
    },
    /// An endpoint was disabled, or could not be.
    Judged {
        /// The endpoint.
        endpoint: EndpointId,
        /// Whether to look at it again at once: it has changed meanwhile.
        decide_again: bool,
    },
    /// Overdue alarms were looked at, or could not be.
    Looked {
        /// What was found.
        findings: Option<Findings>,
    },
    /// A snapshot is stored, or could not be.
    Saved {
        /// The sequence that it covers and its size.
        saved: Option<(u64, usize)>,
    },
}

/// What became of facts that were to be read again.
pub(super) enum Recalled {
    /// Here they are.
    Facts(Vec<Record>),
    /// They are not kept any more.
    AgedOut,
    /// They cannot be read now.
    Unreadable,
}

/// Writes plans, for as long as it takes.
pub(super) async fn plan(
    shard: Shard,
    mut writer: JournalWriter,
    facts: Vec<Record>,
    stop: CancellationToken,
) -> anyhow::Result<Done> {
    let count = loop {
        match writer.append(&facts).await {
            Ok(sequence) => {
                debug!(%shard, facts = facts.len(), sequence, "wrote when retries are due");
                break facts.len();
            }
            Err(AppendError::Refused(error)) => full(error).context("write facts")?,
            Err(error) => return Err(error).context("write facts"),
        }
        if stop.run_until_cancelled(sleep(FULL_PAUSE)).await.is_none() {
            break 0;
        }
    };
    Ok(Done::Planned { writer: Box::new(writer), count })
}

/// Waits until an alarm is stored.
pub(super) async fn alarm(cause: Cause, pending: Pending) -> anyhow::Result<Done> {
    let set = is_stored(pending).await.context("set an alarm")?;
    Ok(Done::Alarmed { cause, set })
}

/// Waits until an alarm is stored once more.
pub(super) async fn rescue(delivery: DeliveryId, pending: Pending) -> anyhow::Result<Done> {
    is_stored(pending).await.context("rescue an alarm")?;
    Ok(Done::Rescued { delivery })
}

/// Reads facts again.
pub(super) async fn recall(log: EventLog, sequence: u64) -> anyhow::Result<Done> {
    let recalled = match log.journal_batch(sequence).await {
        Ok(Some(batch)) => Recalled::Facts(batch.facts),
        Ok(None) => Recalled::AgedOut,
        Err(error) => {
            warn!(%error, sequence, "facts cannot be read now");
            Recalled::Unreadable
        }
    };
    Ok(Done::Recalled { sequence, recalled })
}

/// Stops an alarm. If that fails, it is tried again: by the time it goes off, dispatchers may have
/// forgotten why it is pointless.
pub(super) async fn stop(schedules: Schedules, shard: Shard, cause: Cause) -> anyhow::Result<Done> {
    let stopped = schedules.cancel(shard, cause.1).await;
    if let Err(error) = &stopped {
        warn!(%error, delivery_id = %cause.1, "an alarm was not stopped, and it is tried again");
    }
    Ok(Done::Stopped { cause, stopped: stopped.is_ok() })
}

/// Lets pass that there is no room now; everything else that stops a write is an error.
pub(super) fn full(error: PublishError) -> Result<(), PublishError> {
    match error {
        PublishError::Full { stream } => {
            warn!(stream, "there is no room, so writing is tried again");
            Ok(())
        }
        PublishError::TooLarge { .. }
        | PublishError::Malformed { .. }
        | PublishError::Refused { .. }
        | PublishError::Closed => Err(error),
    }
}

async fn is_stored(pending: Pending) -> Result<bool, PublishError> {
    match pending.stored().await {
        Ok(_) => Ok(true),
        Err(error) => full(error).map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{DeliveryRef, Timestamp, TraceContext};
    use fanfare_event_log::record_length;

    use super::*;
    use crate::samples::{delivery, scheduled};

    #[test]
    fn a_full_batch_of_the_largest_plans_is_within_the_limit() {
        let largest = DeliveryRef {
            tenant: "t".repeat(64).parse().unwrap(),
            event_type: "e".repeat(128).parse().unwrap(),
            event_sequence: u64::MAX,
            generation: u32::MAX,
            accepted_at: Timestamp::from_nanos(u64::MAX),
            ..delivery(1)
        };
        let end = Timestamp::from_nanos(u64::MAX);
        let trace = TraceContext { traceparent: "0".repeat(256), tracestate: "s".repeat(512) };
        let plan = Record { trace, ..scheduled(largest, u32::MAX, end, u64::MAX) };
        assert!(record_length(&plan) * JournalWriter::FACTS_MAX <= JournalWriter::BYTES_MAX);
    }
}
