//! How much of a tenant's rate limit is given out: one number for all who give it out.
//!
//! The number is the limit's theoretical arrival time (GCRA). Whoever needs some of the limit moves
//! it on by compare-and-set, and owns what lies between: no cell is given out twice. What a process
//! had taken and not used when it died is lost, and comes back with time.

use std::time::Duration;

use fanfare_domain::{TenantId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::debug;

use crate::{
    EventLog, PublishError,
    cas::{Cell, Held, Set, Write},
    topology::Bucket,
};

/// How long to wait before an unanswered question is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// What is given out of one tenant's limit.
pub struct Allowance {
    cell: Cell,
    /// What the register held when it was last looked at.
    known: Option<Known>,
}

/// A part of a limit: the cells between two theoretical arrival times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Where the limit stood.
    pub from: Timestamp,
    /// Where it stands afterwards.
    pub to: Timestamp,
}

/// What the register held, and at which sequence; 0 for nothing.
#[derive(Clone, Copy)]
struct Known {
    sequence: u64,
    given: Option<Given>,
}

/// The register's value.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Given {
    arrival_ns: u64,
    /// The revision of CONFIG that set the limit.
    limit_revision: u64,
}

impl EventLog {
    /// What is given out of a tenant's limit.
    pub fn allowance(&self, tenant: &TenantId) -> Allowance {
        let bucket = self.topology().bucket(Bucket::Allowances);
        Allowance { cell: self.key(&bucket, tenant.as_str()), known: None }
    }
}

impl Allowance {
    /// Takes a portion of the limit. `choose` is told where the limit stands, the epoch if it was
    /// never used, and says which portion is wanted. It may be asked several times, if others take
    /// portions meanwhile.
    ///
    /// `limit_revision` is that of CONFIG that set the limit. A limit that was set later than the
    /// one before begins anew, also with the same numbers: what was given out of that one does not
    /// count. Who still knows an earlier one goes on with the later.
    ///
    /// Waits for servers that are away, for ever: bound it from outside. Dropped half-way, it
    /// leaves open whether the portion was taken; nobody else has it then.
    pub async fn take(
        &mut self,
        limit_revision: u64,
        choose: impl Fn(Timestamp) -> Portion,
    ) -> Result<Portion, PublishError> {
        loop {
            let Known { sequence, given } = match self.known {
                Some(known) => known,
                None => self.look().await,
            };
            let (stands, limit_revision) = given
                .filter(|given| given.limit_revision >= limit_revision)
                .map_or((0, limit_revision), |given| (given.arrival_ns, given.limit_revision));
            let portion = choose(Timestamp::from_nanos(stands));
            let given = Given { arrival_ns: portion.to.as_nanos(), limit_revision };
            self.known = None;
            match self.cell.set(sequence, &Write::Value(given.encode())).await? {
                Set::Stored(sequence) => {
                    self.known = Some(Known { sequence, given: Some(given) });
                    return Ok(portion);
                }
                Set::Conflict(held) => self.known = Some(Known::of(held.as_ref())),
            }
        }
    }

    async fn look(&self) -> Known {
        loop {
            match self.cell.get().await {
                Ok(held) => return Known::of(held.as_ref()),
                Err(error) => debug!(%error, "cannot tell yet what is given out of a limit"),
            }
            sleep(PAUSE).await;
        }
    }
}

impl Known {
    fn of(held: Option<&Held>) -> Self {
        let value = held.and_then(|held| held.value.as_ref());
        let given = value.and_then(|value| serde_json::from_slice(value).ok());
        Self { sequence: held.map_or(0, |held| held.sequence), given }
    }
}

impl Given {
    fn encode(&self) -> bytes::Bytes {
        serde_json::to_vec(self).expect("numbers are what JSON has").into()
    }
}
