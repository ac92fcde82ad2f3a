//! Gathers what a checker needs from the streams, and waits until there is nothing more to come.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{DeliveryId, EventId, Fact, StoredEvent};
use fanfare_event_log::{
    EventLog, JournalBatch,
    journal::{From, JournalFilter},
    topology::Stream,
};
use fanfare_testkit::wait_at_most;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Acknowledged, Installation, checker::Subscriber};

/// How many events are read at once.
const READS: usize = 32;

/// Reads all of EVENTS.
pub(crate) async fn events(
    installation: &Installation,
    log: &EventLog,
) -> Result<Vec<StoredEvent>> {
    let stream = log.topology().stream(Stream::Events);
    let last = installation.servers().last_sequence(&stream).await?;
    let reads = stream::iter(1..=last).map(|sequence| log.event(sequence));
    let found: Vec<Option<StoredEvent>> =
        reads.buffered(READS).try_collect().await.context("read EVENTS")?;
    Ok(found.into_iter().flatten().collect())
}

/// Reads all of JOURNAL.
pub(crate) async fn journal(log: &EventLog) -> Result<Vec<JournalBatch>> {
    let last = log.journal_last().await.context("find the end of JOURNAL")?;
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    let mut batches = Vec::new();
    while let Some(batch) = reader.next_until(last).await.context("read JOURNAL")? {
        batches.push(batch);
    }
    Ok(batches)
}

/// Waits until every delivery of the acknowledged events is concluded, as far as the journal
/// says; fails after `patience` with how many are open, or when a service has ended by itself.
pub(crate) async fn concluded(
    (installation, log): (&Installation, &EventLog),
    acknowledged: &[Acknowledged],
    subscribers: &[Subscriber],
    patience: Duration,
) -> Result<()> {
    let wanted = acknowledged.iter().map(|event| wants(event, subscribers)).sum::<usize>();
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    let mut ended: BTreeSet<DeliveryId> = BTreeSet::new();
    let mut routed: BTreeSet<EventId> = BTreeSet::new();
    wait_at_most(patience, "every delivery to be concluded", async || {
        if let Err(ended) = installation.check_alive() {
            return Ok(Err(ended));
        }
        let last = match log.journal_last().await {
            Ok(last) => last,
            Err(error) => return Err(format!("{error:#}")),
        };
        while let Ok(Some(batch)) = reader.next_until(last).await {
            for record in batch.facts {
                match record.fact {
                    Fact::DeliveryConcluded(concluded) => ended.insert(concluded.delivery.id),
                    Fact::EventRouted(fact) => routed.insert(fact.event),
                    Fact::ShardClaimed(_)
                    | Fact::ShardReleased(_)
                    | Fact::AttemptMade(_)
                    | Fact::DeliveryDeferred(_)
                    | Fact::DeliveryParked(_)
                    | Fact::RetryScheduled(_) => false,
                };
            }
        }
        if ended.len() >= wanted && routed.len() >= acknowledged.len() {
            return Ok(Ok(()));
        }
        let (ended, routed) = (ended.len(), routed.len());
        Err(format!("{ended} of {wanted} concluded, {routed} of {} routed", acknowledged.len()))
    })
    .await
}

fn wants(event: &Acknowledged, subscribers: &[Subscriber]) -> usize {
    let wanting = subscribers.iter().filter(|subscriber| {
        subscriber.tenant == event.tenant
            && subscriber.filters.iter().any(|filter| filter.matches(&event.event_type))
    });
    wanting.count()
}
