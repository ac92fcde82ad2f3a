//! What a replay had put on record when it was interrupted, beyond what it has noted as done. The
//! tasks of that may be stored or not; they are made again, for whom they were, whatever endpoints
//! want by now: every delivery that is on record comes to an end.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{
    EndpointId, Fact, Replay,
    job::{Past, Scope},
};
use fanfare_event_log::{EventLog, JournalFilter, ReadError, journal::From};

use super::pace::{Behind, Part, Whose};

/// See the module. By the events' sequences, or by places in the list.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    targets: BTreeMap<u64, BTreeSet<EndpointId>>,
}

impl Unfinished {
    /// Reads what was routed for a replay since it was last written, and is not done.
    pub(super) async fn read(
        log: &EventLog,
        (replay, generation): (&Replay, u32),
    ) -> Result<Self, ReadError> {
        let last = log.journal_last().await?;
        let from = From::Sequence(replay.progress.journal_sequence.saturating_add(1));
        let mut reader = log.journal(JournalFilter::Routed, from).await?;
        let mut unfinished = Self::default();
        while let Some(batch) = reader.next_until(last).await? {
            for record in &batch.facts {
                unfinished.note((replay, generation), &record.fact);
            }
        }
        if let Scope::Only(past) = &replay.scope {
            unfinished.number(past);
        }
        unfinished.leave_out_done(replay);
        Ok(unfinished)
    }

    fn note(&mut self, (replay, generation): (&Replay, u32), fact: &Fact) {
        let Fact::EventRouted(routed) = fact else { return };
        if routed.generation == generation && routed.tenant == replay.tenant {
            self.targets.entry(routed.event_sequence).or_default().extend(&routed.targets);
        }
    }

    /// Goes by places in a list instead of sequences.
    fn number(&mut self, list: &[Past]) {
        let targets = std::mem::take(&mut self.targets);
        let is_left = |past: &Past| {
            let targets = targets.get(&past.event_sequence);
            targets.is_some_and(|targets| targets.contains(&past.endpoint))
        };
        for (place, past) in (0..).zip(list).filter(|(_, past)| is_left(past)) {
            self.targets.entry(place).or_default().insert(past.endpoint);
        }
    }

    fn leave_out_done(&mut self, replay: &Replay) {
        let next = |endpoint: &EndpointId| {
            replay.behind.get(endpoint).copied().unwrap_or(replay.progress.next)
        };
        self.targets.retain(|place, targets| {
            targets.retain(|endpoint| *place >= next(endpoint));
            !targets.is_empty()
        });
    }

    /// Tells whether there is nothing left of it.
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Who the first of it is for: they are to go on first.
    pub(super) fn whose(&self, behind: &Behind) -> Option<Whose> {
        let (_, targets) = self.targets.first_key_value()?;
        targets.first().map(|endpoint| Whose::of(*endpoint, behind))
    }

    /// Takes out what there is of a part below a place.
    pub(super) fn take_below(
        &mut self,
        below: u64,
        part: &Part<'_>,
    ) -> BTreeMap<u64, BTreeSet<EndpointId>> {
        let mut taken = BTreeMap::new();
        self.targets.retain(|place, targets| {
            let its = |endpoint: &EndpointId| *place < below && part.has(*endpoint);
            let its: BTreeSet<_> = targets.extract_if(.., its).collect();
            if !its.is_empty() {
                taken.insert(*place, its);
            }
            !targets.is_empty()
        });
        taken
    }

    /// Takes out all of it.
    pub(super) fn into_all(self) -> BTreeMap<u64, BTreeSet<EndpointId>> {
        self.targets
    }
}
