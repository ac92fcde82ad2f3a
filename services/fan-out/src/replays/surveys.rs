//! What a replay remembers of the journal: one survey for all endpoints, which is enough as a rule,
//! and one for each endpoint that is so far behind that the first says nothing about its events.

use std::collections::BTreeMap;

use fanfare_domain::{EndpointId, TenantId, job::Range};
use fanfare_event_log::{EventLog, ReadError};

use super::{
    pace::{Part, Whose},
    survey::{Stretch, Survey},
};

/// The most deliveries that are remembered for all endpoints; the most beside that for those far
/// behind, as long as each of them has [`LEAST`].
pub(super) const ENTRIES_MAX: usize = 200_000;

/// How many deliveries are remembered at least for an endpoint that is far behind.
const LEAST: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    all: Option<Survey>,
    own: BTreeMap<EndpointId, Survey>,
    /// One that is being read.
    reading: Option<(Whose, Survey)>,
    stretch: Stretch,
}

impl Surveys {
    /// How many deliveries are remembered.
    pub(super) fn len(&self) -> usize {
        let reading = self.reading.as_ref().map_or(0, |(_, survey)| survey.len());
        self.all.as_ref().map_or(0, Survey::len) + self.own_len() + reading
    }

    /// Whether one is being read.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// What is remembered about what comes next of a part.
    pub(super) fn get(&self, part: &Part<'_>) -> Option<&Survey> {
        let reaches = |survey: &&Survey| survey.reaches(part.from);
        let own = || match part.whose {
            Whose::Most => None,
            Whose::One(endpoint) => self.own.get(&endpoint),
        };
        self.all.as_ref().filter(reaches).or_else(|| own().filter(reaches))
    }

    /// The same, to take from.
    pub(super) fn get_mut(&mut self, part: &Part<'_>) -> Option<&mut Survey> {
        let reaches = |survey: &&mut Survey| survey.reaches(part.from);
        let Self { all, own, reading: _, stretch: _ } = self;
        let own = match part.whose {
            Whose::Most => None,
            Whose::One(endpoint) => own.get_mut(&endpoint),
        };
        all.as_mut().filter(reaches).or_else(|| own.filter(reaches))
    }

    /// Reads what is on record about what comes next of a part, where it is not known; tells whether
    /// it is by now. If not, there is more to read.
    pub(super) async fn read(
        &mut self,
        log: &EventLog,
        about: (&TenantId, &Range, u32),
        (part, end): (&Part<'_>, u64),
    ) -> Result<bool, ReadError> {
        if self.get(part).is_some() {
            return Ok(true);
        }
        let (whose, mut survey) = match self.reading.take() {
            Some(begun) => begun,
            None => self.begin(log, about, (part, end)).await?,
        };
        if !survey.read_on(log, self.stretch).await? {
            self.reading = Some((whose, survey));
            return Ok(false);
        }
        match whose {
            Whose::Most => self.all = Some(survey),
            Whose::One(endpoint) => drop(self.own.insert(endpoint, survey)),
        }
        Ok(self.get(part).is_some())
    }

    /// Begins a survey of what comes next of a part.
    async fn begin(
        &mut self,
        log: &EventLog,
        (tenant, range, generation): (&TenantId, &Range, u32),
        (part, end): (&Part<'_>, u64),
    ) -> Result<(Whose, Survey), ReadError> {
        match part.whose {
            Whose::One(endpoint) if self.all.is_some() => {
                self.own.retain(|endpoint, _| part.behind.contains_key(endpoint));
                self.own.remove(&endpoint);
                let left = ENTRIES_MAX.saturating_sub(self.own_len());
                let its = (tenant, Range { endpoint: Some(endpoint), ..range.clone() }, generation);
                let max = (left / 2).max(LEAST);
                Ok((part.whose, Survey::begin(log, its, (part.from, end), max).await?))
            }
            Whose::Most | Whose::One(_) => {
                // One may be enough for those behind, too.
                let behind = part.behind.values().copied().filter(|_| self.all.is_none());
                let lowest = behind.fold(part.from, u64::min);
                self.all = None;
                let about = (tenant, range.clone(), generation);
                let survey = Survey::begin(log, about, (lowest, end), ENTRIES_MAX).await?;
                Ok((Whose::Most, survey))
            }
        }
    }

    fn own_len(&self) -> usize {
        self.own.values().map(Survey::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, Result};
    use fanfare_domain::{
        EventId, Fact, Record, Timestamp, TraceContext, fact::EventRouted, job::Which,
    };
    use fanfare_testkit::NatsServer;

    use super::*;
    use crate::replays::pace::Behind;

    const EVENTS: u64 = 20;

    fn routed(sequence: u64, endpoint: EndpointId) -> Result<Record> {
        let routed = EventRouted {
            event: EventId::new(Timestamp::from_millis(sequence), [1; 10]),
            tenant: "acme".parse()?,
            event_sequence: sequence,
            config_revision: 1,
            generation: 0,
            targets: vec![endpoint],
            skipped: Vec::new(),
            held: Vec::new(),
            fed: Vec::new(),
            part: 0,
            parts: 1,
        };
        let (trace, fact) = (TraceContext::default(), Fact::EventRouted(routed));
        Ok(Record { recorded_at: Timestamp::EPOCH, trace, fact })
    }

    #[tokio::test]
    async fn a_long_journal_is_read_in_parts_and_nothing_is_missing() -> Result<()> {
        let nats = NatsServer::start().await?;
        let log = nats.log().await?;
        let endpoint = EndpointId::from_bytes([1; 16]);
        for sequence in 1..=EVENTS {
            let record = routed(sequence, endpoint)?;
            log.publisher().routed(&[record]).await?.stored().await?;
        }
        let (tenant, behind) = ("acme".parse()?, Behind::new());
        let range = Range {
            endpoint: None,
            since: Timestamp::EPOCH,
            until: Timestamp::from_millis(u64::MAX >> 24),
            types: Vec::new(),
            which: Which::Missing,
        };
        let part = Part { whose: Whose::Most, behind: &behind, from: 1, until: u64::MAX };
        for (stretch, least) in [
            (Stretch { messages: 3, facts: 1_000 }, EVENTS / 3),
            (Stretch { messages: 1_000, facts: 2 }, EVENTS / 2),
            (Stretch::default(), 0),
        ] {
            let mut surveys = Surveys { stretch, ..Surveys::default() };
            let mut parts = 0;
            while !surveys.read(&log, (&tenant, &range, 99), (&part, EVENTS + 1)).await? {
                assert!(surveys.is_reading() && surveys.get(&part).is_none());
                parts += 1;
            }
            assert!(parts >= least, "{parts} parts by {stretch:?}");
            assert!(!surveys.is_reading());
            let survey = surveys.get(&part).context("it was read")?;
            let known = (1..=EVENTS).filter(|sequence| survey.knows(*sequence, endpoint));
            assert_eq!(known.count(), 20);
        }
        Ok(())
    }
}
