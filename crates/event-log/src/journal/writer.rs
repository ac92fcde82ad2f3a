//! Writing one column of a shard.
//!
//! A claim is a record in the column itself, and every batch is written with the sequence that
//! is expected to be the column's last. So the server takes nothing from a writer whose column
//! another one has claimed since, however late that writer wakes up.

use std::time::Duration;

use async_nats::{HeaderName, HeaderValue, jetstream::message::StreamMessage};
use bytes::Bytes;
use fanfare_domain::{Fact, Record, Shard, Timestamp, TraceContext, fact::ShardClaimed};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::{
    Column, EventLog, PublishError, ReadError,
    log::Which,
    publish::{
        acks::{ANSWER_MAX, ANSWER_MIN},
        outgoing::Outgoing,
        verdict::Verdict,
    },
    topology::{Stream, header},
};

/// What the server compares a column's last sequence with.
const EXPECTED: HeaderName = HeaderName::from_static("Nats-Expected-Last-Subject-Sequence");
/// The first and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// After how long a person should look into it.
const WORRY: Duration = Duration::from_secs(15);

/// The right to write one column of a shard: a claim that is on record.
pub struct JournalWriter {
    log: EventLog,
    shard: Shard,
    column: Column,
    epoch: u64,
    owner: String,
    claimed_at: u64,
    claimed_after: u64,
    /// The column's last sequence, as far as we know.
    last: u64,
    /// The number of the next batch of this claim.
    batch: u64,
}

/// A batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process has claimed the shard since. Stop working on it.
    #[error("shard {shard} was claimed by {owner} (epoch {epoch})")]
    Superseded {
        /// The shard.
        shard: Shard,
        /// Who claimed it.
        owner: String,
        /// The claim's epoch.
        epoch: u64,
    },
    /// The write was refused for good.
    #[error(transparent)]
    Refused(#[from] PublishError),
    /// The log could not be read to find out.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
}

/// Who wrote a message of a column, by its headers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    epoch: u64,
    owner: String,
    batch: u64,
}

/// A column's last message.
struct Last {
    sequence: u64,
    mark: Option<Mark>,
    payload: Bytes,
}

impl EventLog {
    /// Claims a column of a shard: writes *shard claimed* with the next epoch, expecting the last
    /// sequence of the subject. Repeats while others claim at the same time.
    ///
    /// `owner` is unique to a process's run. Dropped half-way, it leaves open whether the claim
    /// is on record: then nobody else's is superseded by anything but a later claim.
    pub fn claim<'a>(
        &'a self,
        shard: Shard,
        column: Column,
        owner: &'a str,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<JournalWriter, AppendError>> {
        Box::pin(async move {
            let mut writer = JournalWriter {
                log: self.clone(),
                shard,
                column,
                epoch: 0,
                owner: owner.to_owned(),
                claimed_at: 0,
                claimed_after: 0,
                last: 0,
                batch: 0,
            };
            loop {
                let found = writer.look().await?;
                let before = found.as_ref().and_then(|found| found.mark.as_ref());
                writer.epoch = before.map_or(0, |mark| mark.epoch) + 1;
                writer.last = found.map_or(0, |found| found.sequence);
                writer.claimed_after = writer.last;
                writer.batch = 0;
                let owner = writer.owner.clone();
                let fact = Fact::ShardClaimed(ShardClaimed { shard, epoch: writer.epoch, owner });
                let record = Record { recorded_at: now, trace: TraceContext::default(), fact };
                match writer.append(&[record]).await {
                    Ok(sequence) => {
                        writer.claimed_at = sequence;
                        let (epoch, column) = (writer.epoch, column.as_str());
                        info!(%shard, column, epoch, sequence, "claimed a shard");
                        return Ok(writer);
                    }
                    Err(AppendError::Superseded { owner, epoch, .. }) => {
                        debug!(%shard, owner, epoch, "somebody else claimed at the same time");
                    }
                    Err(error @ (AppendError::Refused(_) | AppendError::Unreadable(_))) => {
                        return Err(error);
                    }
                }
            }
        })
    }
}

impl JournalWriter {
    /// The largest batch, in facts.
    pub const FACTS_MAX: usize = 256;
    /// The largest batch, in bytes of facts: the sum of [`crate::record_length`].
    pub const BYTES_MAX: usize = 768 * 1024;

    /// The sequence of our claim.
    pub fn claimed_at(&self) -> u64 {
        self.claimed_at
    }

    /// The sequence of the column's last message before our claim; 0 if there was none.
    pub fn claimed_after(&self) -> u64 {
        self.claimed_after
    }

    /// Our claim's epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The shard.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// The sequence of the last message that we know in the column: the claim, or the last batch.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Writes a batch (at least one fact), expecting to be still the last writer; returns its
    /// sequence once it is stored.
    /// Repeats until known: on a conflict the last record is read, and if it is this very batch, it counts.
    /// Splits nothing: the caller keeps to the limits.
    ///
    /// Dropped half-way, it leaves open whether the batch is stored; the next one finds out.
    pub async fn append(&mut self, facts: &[Record]) -> Result<u64, AppendError> {
        // Taken before the first await: should this call be dropped half-way, the next batch is
        // not mistaken for this one.
        let batch = self.batch;
        self.batch += 1;
        let mark = Mark { epoch: self.epoch, owner: self.owner.clone(), batch };
        let payload = fanfare_proto::encode_journal(facts);
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        let mut patience = ANSWER_MIN;
        let mut worried = false;
        loop {
            let message = self.message(&mark, payload.clone());
            let ticket = self.log.send(&message).await?;
            let closed = self.log.inner.closed.clone();
            let verdict = closed.run_until_cancelled(ticket.verdict(patience)).await;
            let why = match verdict.ok_or(PublishError::Closed)? {
                Verdict::Stored(stored) => {
                    self.log.saw_journal(stored.sequence);
                    self.last = stored.sequence;
                    return Ok(stored.sequence);
                }
                Verdict::Full => return Err(self.log.full(Stream::Journal).into()),
                Verdict::Refused(refusal) => {
                    return Err(self.log.refused(Stream::Journal, refusal).into());
                }
                Verdict::Conflict => "the column has grown",
                Verdict::Unknown(why) => why,
            };
            let (shard, column) = (self.shard, self.column.as_str());
            if worried {
                debug!(%shard, column, why, "finding out whether a batch is stored");
            } else if begun.elapsed() > WORRY {
                worried = true;
                warn!(%shard, column, why, "the outcome of a batch of facts is still unknown");
            }
            patience = (patience * 3 / 2).min(ANSWER_MAX);
            self.wait(&mut pause).await?;
            if let Some(sequence) = self.find_out(&mark, &payload).await? {
                return Ok(sequence);
            }
        }
    }

    /// Reads the column's last message. `None` if the batch is to be written again.
    fn find_out<'a>(
        &'a mut self,
        mark: &'a Mark,
        payload: &'a Bytes,
    ) -> BoxFuture<'a, Result<Option<u64>, AppendError>> {
        Box::pin(async move {
            let Some(found) = self.look().await? else {
                // What was there has aged out.
                self.last = 0;
                return Ok(None);
            };
            let expected = self.last;
            match found.mark {
                _ if found.sequence == expected => return Ok(None),
                Some(ref last) if last == mark && found.payload == *payload => {
                    self.last = found.sequence;
                    return Ok(Some(found.sequence));
                }
                // An earlier batch of ours, which nobody waited for.
                Some(ref last) if last.owner == self.owner && last.epoch == self.epoch => {}
                Some(Mark { owner, epoch, .. }) => {
                    return Err(AppendError::Superseded { shard: self.shard, owner, epoch });
                }
                None => {
                    let (shard, column) = (self.shard, self.column.as_str());
                    let sequence = found.sequence;
                    warn!(%shard, column, sequence, "somebody who is no writer wrote to the journal");
                }
            }
            self.last = found.sequence;
            Ok(None)
        })
    }

    async fn wait(&self, pause: &mut Duration) -> Result<(), PublishError> {
        let closed = self.log.inner.closed.clone();
        let waiting = async {
            sleep(*pause).await;
            self.log.inner.link.up(&self.log.inner.client).await;
        };
        closed.run_until_cancelled(waiting).await.ok_or(PublishError::Closed)?;
        *pause = (*pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    async fn look(&self) -> Result<Option<Last>, ReadError> {
        let subject = self.log.topology().journal(self.shard, self.column);
        let found = self.log.get(Stream::Journal, Which::Last(&subject)).await?;
        Ok(found.map(Last::of))
    }

    fn message(&self, mark: &Mark, payload: Bytes) -> Outgoing {
        Outgoing {
            stream: Stream::Journal,
            subject: self.log.topology().journal(self.shard, self.column).into(),
            // The expected sequence keeps a second copy out.
            id: None,
            headers: vec![
                (EXPECTED, HeaderValue::from(self.last)),
                (HeaderName::from_static(header::EPOCH), HeaderValue::from(mark.epoch)),
                (HeaderName::from_static(header::OWNER), crate::publish::line(&mark.owner)),
                (HeaderName::from_static(header::BATCH), HeaderValue::from(mark.batch)),
            ],
            payload,
        }
    }
}

impl Last {
    fn of(message: StreamMessage) -> Self {
        let header = |name| message.headers.get(name).map(HeaderValue::as_str);
        let number = |name| header(name)?.parse().ok();
        let mark = || {
            Some(Mark {
                epoch: number(header::EPOCH)?,
                owner: header(header::OWNER)?.to_owned(),
                batch: number(header::BATCH)?,
            })
        };
        Self { sequence: message.sequence, mark: mark(), payload: message.payload }
    }
}
