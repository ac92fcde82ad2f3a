//! Facts on their way to the journal: what gathers while a batch is being written is the next.

use std::time::Duration;

use fanfare_domain::Record;
use fanfare_event_log::{JournalWriter, PublishError, Receipt, Settler, journal::AppendError};
use tokio::task::JoinSet;

use crate::{
    memory::Place,
    messages::{MessageKey, Messages},
};

/// Facts of one delivery that belong together, and what they are a consequence of.
pub(crate) struct Entry {
    /// The facts, in order.
    pub(crate) records: Vec<Record>,
    /// Where they come from.
    pub(crate) source: Source,
}

/// Where facts come from: who is told once they are on record.
pub(crate) enum Source {
    /// A message, which has one delivery less to wait for then; and the room that the delivery
    /// takes up until then.
    Message(MessageKey, Place),
    /// A feed; and the room that the delivery takes up until then.
    Feed(Place),
    /// A command; and the room that the delivery takes up until then, if it does.
    Order(Option<Place>),
    /// An owner before us, which reported them.
    Report(Receipt),
}

/// What is to be done once facts are on record.
#[derive(Default)]
struct Dues {
    settlers: Vec<Settler>,
    receipts: Vec<Receipt>,
    places: Vec<Place>,
}

/// One batch that was written, or was not.
type Written = Result<(JournalWriter, Batch), AppendError>;

/// Facts on record.
pub(crate) struct Batch {
    /// The batch's sequence in JOURNAL.
    pub(crate) sequence: u64,
    /// The facts.
    pub(crate) records: Vec<Record>,
}

/// How long a full journal is left alone.
const FULL_WAIT: Duration = Duration::from_secs(1);

/// Writes a shard's facts in batches, one batch at a time.
pub(crate) struct Pen {
    writer: Option<JournalWriter>,
    writing: JoinSet<Written>,
    gathered: Vec<Entry>,
}

impl Pen {
    /// Takes the right to write a shard's facts.
    pub(crate) fn new(writer: JournalWriter) -> Self {
        Self { writer: Some(writer), writing: JoinSet::new(), gathered: Vec::new() }
    }

    /// Gathers facts for the next batch.
    pub(crate) fn gather(&mut self, entry: Entry) {
        self.gathered.push(entry);
    }

    /// How many deliveries wait for their facts to be written.
    pub(crate) fn gathered(&self) -> usize {
        self.gathered.len()
    }

    /// Tells whether everything that was gathered is on record.
    pub(crate) fn is_idle(&self) -> bool {
        self.gathered.is_empty() && self.writing.is_empty()
    }

    /// Begins to write what was gathered, unless a batch is under way. Once it is on record, the
    /// messages that it completes are settled.
    pub(crate) fn write(&mut self, messages: &mut Messages, encoded_length: fn(&Record) -> usize) {
        if self.gathered.is_empty() {
            return;
        }
        let Some(writer) = self.writer.take() else { return };
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut taken = 0;
        for entry in &mut self.gathered {
            let length: usize = entry.records.iter().map(encoded_length).sum();
            let fits = records.len() + entry.records.len() <= JournalWriter::FACTS_MAX
                && bytes + length <= JournalWriter::BYTES_MAX;
            if !fits && !records.is_empty() {
                break;
            }
            bytes += length;
            taken += 1;
            records.append(&mut entry.records);
        }
        let mut dues = Dues::default();
        for entry in self.gathered.drain(..taken) {
            match entry.source {
                Source::Message(message, place) => {
                    dues.settlers.extend(messages.on_record(message));
                    dues.places.push(place);
                }
                Source::Feed(place) => dues.places.push(place),
                Source::Order(place) => dues.places.extend(place),
                Source::Report(receipt) => dues.receipts.push(receipt),
            }
        }
        self.writing.spawn(write(writer, records, dues));
    }

    /// Takes the right away, unless a batch is under way. Nothing can be written after that.
    pub(crate) fn take_writer(&mut self) -> Option<JournalWriter> {
        self.writer.take()
    }

    /// Waits for the batch that is under way; for ever if there is none. Cancel safe.
    pub(crate) async fn written(&mut self) -> Result<Batch, AppendError> {
        let Some(joined) = self.writing.join_next().await else {
            return std::future::pending().await;
        };
        let written = joined.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a shutdown of the runtime cancels it, and then nobody waits any more.
            Err(_) => Err(AppendError::Refused(PublishError::Closed)),
        });
        let (writer, batch) = written?;
        self.writer = Some(writer);
        Ok(batch)
    }
}

async fn write(
    mut writer: JournalWriter,
    records: Vec<Record>,
    Dues { settlers, receipts, places }: Dues,
) -> Written {
    let sequence = loop {
        match writer.append(&records).await {
            Ok(sequence) => break sequence,
            // Somebody has to make room. Until then nothing is settled, and nothing new is sent.
            Err(AppendError::Refused(error @ PublishError::Full { .. })) => {
                tracing::warn!(%error, "facts cannot be recorded, so no attempts are made");
                tokio::time::sleep(FULL_WAIT).await;
            }
            Err(error) => return Err(error),
        }
    };
    drop(places);
    for settler in settlers {
        settler.settle().await;
    }
    for receipt in receipts {
        receipt.give().await;
    }
    Ok((writer, Batch { sequence, records }))
}
