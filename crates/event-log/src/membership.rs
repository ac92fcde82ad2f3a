//! Which process does which part of a role's work: members that share the shards among them, or a
//! single post.
//!
//! ```text
//! <role>.member.<id>   a heart that beats every 200 ms, by compare-and-set on its own key
//! <role>.shards        the table: who owns which shard, by compare-and-set when that changes
//! ```
//!
//! Every member watches all keys of its role. A member whose heart was still for
//! [`TAKEOVER_AFTER`], of a time in which our own beats came back to us, is dead, and is *evicted*:
//! its key is deleted at the very beat that was seen last, so that a beat in between saves it.
//! Whatever the table gives to a deleted member is free. Each member computes the same spread,
//! takes what is free and to be its own, and yields what is to be another's.
//!
//! The table decides who *claims* a shard; the claim in the journal guards its records, and
//! [`Lease::confirmed_at`] guards requests. Nobody's wall clock matters.

mod assign;
mod crew;
mod deaths;
mod driver;
mod roster;
mod table;
mod watching;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_domain::{Shard, ShardCount};
use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::crew::{Duty, is_loss};
use self::{driver::Driver, table::Keys};
use crate::{EventLog, ReadError};

/// How long a heart may be still before its owner counts as dead.
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(3);

/// The right to do what only an owner may do, as long as heartbeats succeed. One for all shards
/// of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lease {
    confirmed: watch::Receiver<Option<Instant>>,
}

/// A shard that this process is to work on until it is told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    shard: Shard,
    /// Tells it from the grants of the same shard before and after it.
    number: u64,
}

/// A process's part in a role. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Membership {
    lease: Lease,
    shares: watch::Receiver<Share>,
    released: Arc<watch::Sender<Released>>,
}

/// What nobody works on any more, and the driver has not heard of yet.
#[derive(Debug, Default)]
struct Released {
    grants: BTreeSet<Grant>,
    /// Whatever is granted, also later: the work has failed.
    everything: bool,
}

/// The membership has ended: it was stopped, or its driver failed or was dropped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this process is no member any more")]
pub struct NoMember;

/// What a member is to work on.
#[derive(Clone, Debug, Default)]
struct Share {
    /// Who we are; empty while we are nobody.
    member: Arc<str>,
    /// Cancelled when the others took us for dead.
    lost: CancellationToken,
    /// What is to be worked on.
    grants: BTreeSet<Grant>,
    /// What was granted, and is to be released. It stands here until it is: a grant may come and
    /// go before anybody has looked, and its release is waited for.
    withdrawn: BTreeSet<Grant>,
}

impl EventLog {
    /// Takes part in a role, until `stop`: then everything is yielded, and after that the process
    /// leaves. `role` is made of letters, digits, `-` and `_`; `owner` likewise, and is unique to a
    /// process's run: ids are made from it.
    ///
    /// The returned future does it all; the caller spawns it. While the servers are away it goes
    /// on trying: the lease only gets old. If the others took us for dead meanwhile, everything
    /// that was granted is lost at once, and once it is released the process joins again under
    /// another id. It ends with an error only when the log is closed before it. Dropping it is
    /// like dying: others wait it out.
    pub fn join(
        &self,
        role: &str,
        owner: &str,
        stop: CancellationToken,
    ) -> (Membership, impl Future<Output = Result<(), ReadError>> + Send + use<>) {
        self.share(role, self.shards(), owner, stop)
    }

    /// Takes part in a role that has one post, which at most one process has at a time; the others
    /// stand by. Everything else is as with [`Self::join`]: the post is granted as the first shard.
    pub fn stand_for(
        &self,
        role: &str,
        owner: &str,
        stop: CancellationToken,
    ) -> (Membership, impl Future<Output = Result<(), ReadError>> + Send + use<>) {
        self.share(role, ShardCount::ONE, owner, stop)
    }

    fn share(
        &self,
        role: &str,
        count: ShardCount,
        owner: &str,
        stop: CancellationToken,
    ) -> (Membership, impl Future<Output = Result<(), ReadError>> + Send + use<>) {
        let (confirmed, lease) = watch::channel(None);
        let (granting, shares) = watch::channel(Share::default());
        let released = Arc::new(watch::Sender::default());
        let membership = Membership {
            lease: Lease { confirmed: lease },
            shares,
            released: Arc::clone(&released),
        };
        let (log, keys, owner) = (self.clone(), Keys::of(role), owner.to_owned());
        let driver =
            Driver { log, keys, count, owner, confirmed, shares: granting, released, stop };
        let driving: BoxFuture<'static, Result<(), ReadError>> = Box::pin(driver.run());
        (membership, driving)
    }
}

impl Lease {
    /// When our membership was last confirmed, on the monotonic clock: the time at which the
    /// heartbeat was *sent* that the server took. Nothing while we are no member.
    pub fn confirmed_at(&self) -> Option<Instant> {
        *self.confirmed.borrow()
    }
}

impl Grant {
    /// The shard.
    pub const fn shard(self) -> Shard {
        self.shard
    }
}

impl Membership {
    /// The lease.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Who we are at this moment, as the others know us.
    pub fn member(&self) -> Option<Arc<str>> {
        let member = Arc::clone(&self.shares.borrow().member);
        Some(member).filter(|member| !member.is_empty())
    }

    /// Waits until we are a member, with shards or without.
    pub async fn joined(&mut self) -> Result<Arc<str>, NoMember> {
        let joined = self.shares.wait_for(|share| !share.member.is_empty()).await;
        joined.map(|share| Arc::clone(&share.member)).map_err(|_| NoMember)
    }

    /// Waits until there is something new to work on, or something to be released. Cancel safe.
    pub async fn changed(&mut self) -> Result<(), NoMember> {
        self.shares.changed().await.map_err(|_| NoMember)
    }

    /// Says that nobody works on what was granted any more: from then on it may be another's. To
    /// be called for every grant, once, whether it was taken away or is given up.
    fn release(&self, grant: Grant) {
        self.released.send_modify(|released| {
            released.grants.insert(grant);
        });
    }

    /// Says that nobody works on anything any more, and nobody will: we leave.
    fn release_everything(&self) {
        self.released.send_modify(|released| released.everything = true);
    }

    fn share(&mut self) -> Share {
        self.shares.borrow_and_update().clone()
    }
}
