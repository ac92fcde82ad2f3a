//! Tenants' rate limits: each delivery of a limited tenant gets the time that the limit keeps for
//! it, before its task is written.
//!
//! Several fan-outs share a limit: each takes portions of it (see [`Allowance`]) and gives out the
//! cells of its own portions, so that no cell is given out twice. A portion is what the tenant may
//! do in the next half second, so that there is no round trip per event. Where others have taken
//! what comes next, it is only what is needed: what is taken and not used is lost, and with large
//! portions the limit would be further and further ahead of what is really sent.

mod lately;
mod share;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{EventId, TenantId, Timestamp};
use fanfare_event_log::{Allowance, EventLog, Portion, PublishError};
use fanfare_service::Clock;
use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::routes::Limit;
use lately::Lately;
use share::Share;

/// How many tenants' portions are kept; with more, what is not in use is forgotten.
const KEPT_MAX: usize = 10_000;

/// How old a time may be that cells are counted from.
const STALE: Duration = Duration::from_millis(20);

/// How far ahead cells are taken: what is beyond that gets this very time, and takes nothing of the
/// limit.
const AHEAD_MAX: Duration = Duration::from_hours(7 * 24);

/// How long to wait before a portion is asked for again that there was no room to write down.
const WAIT: Duration = Duration::from_millis(500);

/// How long events are held that wait for their limits, and for how long they are handed back
/// then: meanwhile there is a place for events that wait for nothing.
const HOLD: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_secs(5);

/// The times of deliveries of limited tenants, in the order in which they are to be given out.
pub(crate) type Times = BTreeMap<TenantId, std::vec::IntoIter<Timestamp>>;

/// Gives out what tenants' limits allow.
pub(crate) struct Allowances {
    log: EventLog,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    /// Whether there is no room to write down what is taken, so that it is logged once.
    waiting: AtomicBool,
    lately: Mutex<Lately>,
    kept: Mutex<BTreeMap<TenantId, Arc<tokio::sync::Mutex<Kept>>>>,
}

/// What came of reserving.
pub(crate) enum Reserved {
    /// The times of all that was wanted.
    Times(Times),
    /// The limits are out of reach for now, or the service stops.
    Not {
        /// How long to leave it at that.
        again: Duration,
    },
}

/// What we have of one limit.
struct Kept {
    share: Share,
    allowance: Allowance,
}

impl Allowances {
    /// Has nothing yet. Waiting for what is out of reach ends with `stop`.
    pub(crate) fn new(log: EventLog, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        Self {
            log,
            clock,
            stop,
            waiting: AtomicBool::default(),
            lately: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// The times that an event of a limited tenant was given lately, if it was handed out before.
    pub(crate) fn lately(&self, event: EventId, limit: Limit) -> Option<Arc<[Timestamp]>> {
        let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.find(event, limit.revision)
    }

    /// Keeps the times that an event is given, for when it is handed out again.
    pub(crate) fn keep(&self, event: EventId, limit: Limit, times: Arc<[Timestamp]>) {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        lately.keep(event, limit.revision, times);
    }

    /// Takes as many cells of each tenant's limit as are wanted. One round trip for all at most,
    /// unless others take cells of the same limits at the same time. Waits a few seconds for
    /// servers that are away or full.
    pub(crate) async fn reserve(
        &self,
        wanted: BTreeMap<TenantId, (Limit, usize)>,
    ) -> Result<Reserved, PublishError> {
        let of_each = wanted.into_iter().map(async |(tenant, (limit, count))| {
            let times = self.of_one(&tenant, limit, count).await?;
            Ok::<_, PublishError>((tenant, times.into_iter()))
        });
        // Boxed, because it is large.
        let all = timeout(HOLD, Box::pin(try_join_all(of_each)));
        match self.stop.run_until_cancelled(all).await {
            Some(Ok(times)) => Ok(Reserved::Times(times?.into_iter().collect())),
            Some(Err(_)) => Ok(Reserved::Not { again: AGAIN }),
            None => Ok(Reserved::Not { again: Duration::ZERO }),
        }
    }

    async fn of_one(
        &self,
        tenant: &TenantId,
        limit: Limit,
        count: usize,
    ) -> Result<Vec<Timestamp>, PublishError> {
        let kept = self.kept(tenant);
        let mut kept = kept.lock().await;
        let Kept { share, allowance } = &mut *kept;
        share.apply(limit);
        let mut times = Vec::with_capacity(count);
        let (mut now, mut is_far) = (self.clock.now(), false);
        loop {
            share.give(&mut times, count, now);
            let missing = count - times.len();
            if missing == 0 || is_far {
                break;
            }
            let latest = now.saturating_add(AHEAD_MAX);
            let choose = share.portion(missing, now, latest);
            let portion = self.take(allowance, limit, choose).await?;
            is_far = portion.to >= latest;
            share.extend(portion);
            // What is given out for a time that is long past would all be sent at once.
            let later = self.clock.now();
            now = if later.since(now) > STALE { later } else { now };
        }
        times.resize(count, now.saturating_add(AHEAD_MAX));
        Ok(times)
    }

    /// Takes a portion. Waits for room to write it down, for ever: bound it from outside.
    async fn take(
        &self,
        allowance: &mut Allowance,
        limit: Limit,
        choose: impl Fn(Timestamp) -> Portion,
    ) -> Result<Portion, PublishError> {
        loop {
            match allowance.take(limit.revision, &choose).await {
                Err(PublishError::Full { stream }) => {
                    if !self.waiting.swap(true, Ordering::Relaxed) {
                        warn!(stream, "the stream is full, limited tenants' events wait");
                    }
                }
                taken => {
                    if taken.is_ok() && self.waiting.swap(false, Ordering::Relaxed) {
                        info!("there is room for what is taken of tenants' limits");
                    }
                    return taken;
                }
            }
            sleep(WAIT).await;
        }
    }

    fn kept(&self, tenant: &TenantId) -> Arc<tokio::sync::Mutex<Kept>> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get(tenant) {
            return Arc::clone(kept);
        }
        if all.len() >= KEPT_MAX {
            all.retain(|_, kept| Arc::strong_count(kept) > 1);
        }
        let allowance = self.log.allowance(tenant);
        let kept = Kept { share: Share::none(), allowance };
        let kept = Arc::new(tokio::sync::Mutex::new(kept));
        all.insert(tenant.clone(), Arc::clone(&kept));
        kept
    }
}
