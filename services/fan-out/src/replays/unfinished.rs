//! What a replay had put on record when it was interrupted, beyond what it has noted as done. The
//! tasks of that may be stored or not; they are made again, for whom they were, whatever endpoints
//! want by now: every delivery that is on record comes to an end.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{EndpointId, Fact, TenantId};
use fanfare_event_log::{EventLog, JournalFilter, ReadError, journal::From};

/// See the module. By the events' sequences.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    targets: BTreeMap<u64, BTreeSet<EndpointId>>,
}

impl Unfinished {
    /// Reads what was routed for a replay behind that place in the journal.
    pub(super) async fn read(
        log: &EventLog,
        (tenant, generation): (&TenantId, u32),
        since: u64,
    ) -> Result<Self, ReadError> {
        let last = log.journal_last().await?;
        let from = From::Sequence(since.saturating_add(1));
        let mut reader = log.journal(JournalFilter::Routed, from).await?;
        let mut unfinished = Self::default();
        while let Some(batch) = reader.next_until(last).await? {
            for record in &batch.facts {
                unfinished.note((tenant, generation), &record.fact);
            }
        }
        Ok(unfinished)
    }

    fn note(&mut self, (tenant, generation): (&TenantId, u32), fact: &Fact) {
        let Fact::EventRouted(routed) = fact else { return };
        if routed.generation == generation && routed.tenant == *tenant {
            self.targets.entry(routed.event_sequence).or_default().extend(&routed.targets);
        }
    }

    /// Tells whether there is nothing left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Takes out what there is of events below a sequence.
    pub(super) fn take_below(&mut self, below: u64) -> BTreeMap<u64, BTreeSet<EndpointId>> {
        let rest = self.targets.split_off(&below);
        std::mem::replace(&mut self.targets, rest)
    }
}
