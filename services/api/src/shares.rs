//! Permits for what a process can bear only so much of at once, of which nobody gets all: one
//! tenant's requests wait for each other before they wait for others'.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fanfare_domain::TenantId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::error::{ApiError, Code};

/// Whose requests count together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// The operator's, where they are about no tenant.
    Operator,
    /// Those about a tenant, whoever makes them.
    Tenant(TenantId),
}

/// Permits. Cheap to clone; clones share them.
#[derive(Clone)]
pub(crate) struct Shares(Arc<Inner>);

struct Inner {
    all: Arc<Semaphore>,
    max: usize,
    each_max: u32,
    /// Those who have permits or wait for some.
    holders: Mutex<BTreeMap<Holder, Own>>,
}

struct Own {
    permits: Arc<Semaphore>,
    seats: usize,
}

/// Permits that were taken. They are free again once this is dropped.
pub(crate) struct Share {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _seat: Seat,
}

/// Keeps a holder's own permits while they are waited for or held.
struct Seat {
    shares: Shares,
    holder: Holder,
}

impl Shares {
    /// Makes `max` permits, of which each holder gets up to `each_max`.
    pub(crate) fn new(max: usize, each_max: u32) -> Self {
        let (all, holders) = (Arc::new(Semaphore::new(max)), Mutex::default());
        Self(Arc::new(Inner { all, max, each_max, holders }))
    }

    /// How many there are.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.max.saturating_sub(self.0.all.available_permits())
    }

    /// Takes permits, at most as many as a holder gets; refuses if there are none until then.
    /// Cancel safe.
    pub(crate) async fn take(
        &self,
        holder: &Holder,
        count: usize,
        until: Instant,
    ) -> Result<Share, ApiError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX).clamp(1, self.0.each_max);
        let (seat, own) = self.sit(holder);
        let taken = async {
            let own = own.acquire_many_owned(count).await?;
            let all = Arc::clone(&self.0.all).acquire_many_owned(count).await?;
            Ok(Share { _all: all, _own: own, _seat: seat })
        };
        let taken = timeout_at(until, taken).await.map_err(|_elapsed| Code::Busy)?;
        taken.map_err(|closed: tokio::sync::AcquireError| ApiError::Internal(closed.into()))
    }

    fn sit(&self, holder: &Holder) -> (Seat, Arc<Semaphore>) {
        let mut holders = self.0.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let each_max = usize::try_from(self.0.each_max).unwrap_or(usize::MAX);
        let new = || Own { permits: Arc::new(Semaphore::new(each_max)), seats: 0 };
        let own = holders.entry(holder.clone()).or_insert_with(new);
        own.seats += 1;
        (Seat { shares: self.clone(), holder: holder.clone() }, Arc::clone(&own.permits))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut holders = self.shares.0.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = holders.get_mut(&self.holder) else { return };
        own.seats = own.seats.saturating_sub(1);
        if own.seats == 0 {
            holders.remove(&self.holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use super::*;

    fn tenant(name: &str) -> Holder {
        Holder::Tenant(name.parse().unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_all_it_can_leaves_some_to_others() {
        let shares = Shares::new(4, 2);
        let (greedy, modest) = (tenant("greedy"), tenant("modest"));
        let first = shares.take(&greedy, 1, soon()).await.unwrap();
        let _second = shares.take(&greedy, 1, soon()).await.unwrap();
        let refused = shares.take(&greedy, 1, soon()).await.err().map(|why| why.code());
        assert_eq!(refused, Some(Code::Busy));
        let _other = shares.take(&modest, 2, soon()).await.unwrap();
        assert_eq!((shares.taken(), shares.max()), (4, 4));
        let refused = shares.take(&Holder::Operator, 1, soon()).await.err().map(|why| why.code());
        assert_eq!(refused, Some(Code::Busy));
        drop(first);
        shares.take(&Holder::Operator, 1, soon()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_becomes_free_and_who_gave_up_is_forgotten() {
        let shares = Shares::new(2, 1);
        let one = tenant("one");
        let held = shares.take(&one, 9, soon()).await.unwrap();
        let mut waiting = pin!(shares.take(&one, 1, soon()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(shares.take(&one, 1, Instant::now()).await);
        drop(held);
        drop(waiting.await.unwrap());
        assert_eq!(shares.taken(), 0);
        assert!(shares.0.holders.lock().unwrap().is_empty());
    }
}
