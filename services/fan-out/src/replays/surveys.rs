//! What a replay remembers of the journal: one survey for all endpoints, which is enough as a rule,
//! and one for each endpoint that is so far behind that the first says nothing about its events.

use std::collections::BTreeMap;

use fanfare_domain::{EndpointId, TenantId, job::Range};
use fanfare_event_log::{EventLog, ReadError};

use super::{
    pace::{Part, Whose},
    survey::Survey,
};

/// The most deliveries that are remembered for all endpoints; the most beside that for those far
/// behind, as long as each of them has [`LEAST`].
const ENTRIES_MAX: usize = 200_000;

/// How many deliveries are remembered at least for an endpoint that is far behind.
const LEAST: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Surveys {
    all: Option<Survey>,
    own: BTreeMap<EndpointId, Survey>,
}

impl Surveys {
    /// How many deliveries are remembered.
    pub(super) fn len(&self) -> usize {
        self.all.as_ref().map_or(0, Survey::len) + self.own_len()
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
        let Self { all, own } = self;
        let own = match part.whose {
            Whose::Most => None,
            Whose::One(endpoint) => own.get_mut(&endpoint),
        };
        all.as_mut().filter(reaches).or_else(|| own.filter(reaches))
    }

    /// Reads what is on record about what comes next of a part, where it is not known.
    pub(super) async fn read(
        &mut self,
        log: &EventLog,
        (tenant, range, generation): (&TenantId, &Range, u32),
        (part, end): (&Part<'_>, u64),
    ) -> Result<(), ReadError> {
        if self.get(part).is_some() {
            return Ok(());
        }
        let about = || (tenant, range.clone(), generation);
        if self.all.is_none() {
            // One may be enough for those behind, too.
            let lowest = part.behind.values().copied().fold(part.from, u64::min);
            let survey = Survey::read(log, about(), (lowest, end), ENTRIES_MAX).await?;
            self.all = Some(survey);
            if self.get(part).is_some() {
                return Ok(());
            }
        }
        match part.whose {
            Whose::Most => {
                let survey = Survey::read(log, about(), (part.from, end), ENTRIES_MAX).await?;
                self.all = Some(survey);
            }
            Whose::One(endpoint) => {
                self.own.retain(|endpoint, _| part.behind.contains_key(endpoint));
                self.own.remove(&endpoint);
                let left = ENTRIES_MAX.saturating_sub(self.own_len());
                let its = (tenant, Range { endpoint: Some(endpoint), ..range.clone() }, generation);
                let survey = Survey::read(log, its, (part.from, end), (left / 2).max(LEAST));
                self.own.insert(endpoint, survey.await?);
            }
        }
        Ok(())
    }

    fn own_len(&self) -> usize {
        self.own.values().map(Survey::len).sum()
    }
}
