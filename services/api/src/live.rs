//! Deliveries as they happen, for those who watch: one reader of the journal for all of them.
//!
//! ```text
//! JOURNAL ─▶ one reader, while somebody watches ─▶ a short queue ─▶ each who watches, at their pace
//!    └─────▶ a reader of their own, for those who come back, up to where the shared one is
//! ```
//!
//! **What a watcher costs is bounded.** The queue is shared and holds what those who are slowest have
//! not taken, up to a limit; whoever falls behind further is cut off, and goes on where they were. A
//! stream is made a piece at a time, when its reader takes it. Whoever does not take anything is
//! noticed here, since nobody asks for the next piece then, and their connection is closed.

mod item;
mod watching;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{TenantId, chain};
use fanfare_event_log::{
    ReadError,
    journal::{From, JournalFilter},
};
use fanfare_service::{Metric, Metrics};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::item::Batch;
pub(crate) use self::{
    item::{Filter, LiveView},
    watching::{Begin, open},
};
use crate::{
    app::App,
    caller::Caller,
    error::{ApiError, Code},
    shares::Shares,
};

/// How many may watch at once, in this process and of one tenant.
const CLIENTS_MAX: usize = 256;
const CLIENTS_PER_TENANT_MAX: usize = 16;
/// How many of a tenant's may be by one of its keys, and by the links of one of its users.
const CLIENTS_PER_KEY_MAX: usize = 8;
const CLIENTS_PER_USER_MAX: usize = 4;
/// How many may read what they missed at once, of all tenants and of one: each reads the journal of
/// all of them.
const PAST_MAX: (usize, u32) = (8, 2);
/// How many messages of the journal those who watch may be behind, and how many bytes those may take
/// in memory.
const BEHIND_MAX: usize = 256;
const BEHIND_BYTES_MAX: usize = 64 << 20;
/// How often it is looked whether those who watch still may, and take what they get.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long somebody may take nothing.
const SLOW: Duration = Duration::from_secs(20);
/// How long a stream has to end by itself before its connection is closed.
const ENDING: Duration = Duration::from_secs(5);
/// How long to wait after the journal could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Closes the connection that a request came by.
#[derive(Clone, Debug)]
pub(crate) struct Cut(pub(crate) CancellationToken);

/// Why a stream ends. Whoever watches can go on where it ended, but for the first reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The caller's key does not work any more, or the tenant is gone.
    Unauthorized,
    /// The caller did not take what there was.
    Slow,
    /// There was more to catch up on than one stream is for.
    Long,
    /// The service stops, or the journal could not be read.
    Interrupted,
}

impl Ending {
    /// Returns the name, as it is told.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Slow => "slow",
            Self::Long => "long",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Everybody who watches.
pub(crate) struct Live {
    clients: Mutex<Clients>,
    /// The shared reader's queue, while it reads.
    feed: watch::Sender<Option<broadcast::Sender<Arc<Batch>>>>,
    /// The last sequence of the journal that the shared reader has passed on.
    reached: AtomicU64,
    /// The last sequence of the journal that is in the queue, or was.
    queued: AtomicU64,
    /// Wakes the reader.
    wake: Notify,
    /// How many may read what they missed.
    past: Shares,
    /// How many bytes are in the queue, or being told.
    held: Arc<AtomicUsize>,
    began: Instant,
}

#[derive(Default)]
struct Clients {
    all: BTreeMap<u64, Arc<Client>>,
    last: u64,
    stopped: bool,
}

/// One who watches.
struct Client {
    tenant: TenantId,
    caller: Caller,
    /// Ends the stream.
    ended: CancellationToken,
    why: OnceLock<Ending>,
    /// When it was ended, in milliseconds from the beginning; 0 if it was not.
    ended_at: AtomicU64,
    /// Since when nobody asks for the next piece; 0 while somebody does.
    idle_since: AtomicU64,
    /// The last sequence that was taken from the queue; the highest there is before it is joined.
    taken: AtomicU64,
    cut: CancellationToken,
}

/// Has it read how many watch, and what waits for them.
pub(crate) fn register(metrics: &Metrics, app: &App) {
    let read = |of: fn(&Live) -> usize| {
        let app = app.clone();
        move || of(&app.live)
    };
    metrics.level(
        Metric::new("fanfare.api.live_streams", "{stream}", "Live streams that are open."),
        read(Live::count),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.live_streams.limit",
            "{stream}",
            "Live streams that may be open; a tenant gets a sixteenth.",
        ),
        || CLIENTS_MAX,
    );
    metrics.level(
        Metric::new(
            "fanfare.api.live_queue",
            "{message}",
            "Messages of the journal that some of those who watch have not taken.",
        ),
        read(Live::waiting),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.live_queue.limit",
            "{message}",
            "How many they may be behind; whoever is further behind is cut off, and comes back.",
        ),
        || BEHIND_MAX,
    );
    metrics.level(
        Metric::new("fanfare.api.live_queue.size", "By", "Bytes of them."),
        read(|live| live.held.load(Ordering::Acquire)),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.live_queue.size.limit",
            "By",
            "Bytes that they may take; at the limit, those who are furthest behind are cut off.",
        ),
        || BEHIND_BYTES_MAX,
    );
    metrics.level(
        Metric::new(
            "fanfare.api.live_past",
            "{stream}",
            "Live streams that read from the journal what they missed.",
        ),
        read(|live| live.past.taken()),
    );
    metrics.level(
        Metric::new(
            "fanfare.api.live_past.limit",
            "{stream}",
            "How many may at once; a tenant gets a quarter, and more wait.",
        ),
        || PAST_MAX.0,
    );
}

impl Client {
    fn end(&self, why: Ending, now: u64) {
        // The first reason counts.
        if self.why.set(why).is_ok() {
            self.ended_at.store(now.max(1), Ordering::Release);
            self.ended.cancel();
        }
    }
}

impl Live {
    /// Nobody watches.
    pub(crate) fn new() -> Self {
        Self {
            clients: Mutex::default(),
            feed: watch::Sender::default(),
            reached: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            wake: Notify::new(),
            past: Shares::new(PAST_MAX.0, PAST_MAX.1),
            held: Arc::default(),
            began: Instant::now(),
        }
    }

    /// Tells how many watch.
    pub(crate) fn count(&self) -> usize {
        self.lock().all.len()
    }

    /// Tells how many messages are in the queue that somebody has not taken.
    fn waiting(&self) -> usize {
        self.feed.borrow().as_ref().map_or(0, broadcast::Sender::len)
    }

    /// Adds one who watches, unless there are too many.
    fn add(
        &self,
        caller: Caller,
        tenant: TenantId,
        cut: Cut,
    ) -> Result<(u64, Arc<Client>), ApiError> {
        let mut clients = self.lock();
        if clients.stopped {
            return Err(Code::Unavailable.into());
        }
        let of_tenant = clients.all.values().filter(|client| client.tenant == tenant);
        let of_caller = of_tenant.clone().filter(|client| client.caller.is_also(&caller)).count();
        if clients.all.len() >= CLIENTS_MAX
            || of_tenant.count() >= CLIENTS_PER_TENANT_MAX
            || of_caller >= own_max(&caller)
        {
            return Err(Code::StreamsLimit.into());
        }
        clients.last += 1;
        let number = clients.last;
        let client = Arc::new(Client {
            tenant,
            caller,
            ended: CancellationToken::new(),
            why: OnceLock::new(),
            ended_at: AtomicU64::new(0),
            idle_since: AtomicU64::new(self.millis()),
            taken: AtomicU64::new(u64::MAX),
            cut: cut.0,
        });
        clients.all.insert(number, Arc::clone(&client));
        drop(clients);
        self.wake.notify_waiters();
        Ok((number, client))
    }

    fn remove(&self, number: u64) {
        self.lock().all.remove(&number);
    }

    fn tenants(&self) -> BTreeSet<TenantId> {
        self.lock().all.values().map(|client| client.tenant.clone()).collect()
    }

    /// Waits until somebody watches.
    async fn wanted(&self) {
        loop {
            let woken = self.wake.notified();
            if !self.lock().all.is_empty() {
                return;
            }
            woken.await;
        }
    }

    /// Ends the reader if nobody watches; returns whether it is ended.
    fn rest(&self) -> bool {
        let clients = self.lock();
        if clients.all.is_empty() {
            self.feed.send_replace(None);
        }
        clients.all.is_empty()
    }

    /// Looks after everybody: ends the streams of those who may not watch any more or take nothing, and
    /// closes the connections of those whose stream does not end.
    fn look(&self, app: &App) {
        let now = self.millis();
        let passed = |since: u64, limit: Duration| {
            since > 0 && Duration::from_millis(now.saturating_sub(since)) > limit
        };
        let clients: Vec<_> = self.lock().all.values().cloned().collect();
        for client in clients {
            if passed(client.ended_at.load(Ordering::Acquire), ENDING) {
                client.cut.cancel();
            } else if !client.caller.stands_for(app, &client.tenant) {
                client.end(Ending::Unauthorized, now);
            } else if passed(client.idle_since.load(Ordering::Acquire), SLOW) {
                client.end(Ending::Slow, now);
            }
        }
    }

    /// Tells whether the queue may grow.
    fn has_room(&self) -> bool {
        self.held.load(Ordering::Acquire) < BEHIND_BYTES_MAX
    }

    /// Cuts off those who are furthest behind, since the queue holds what they have not taken.
    fn make_room(&self) {
        let clients: Vec<_> = self.lock().all.values().cloned().collect();
        let taken: Vec<_> =
            clients.iter().map(|client| client.taken.load(Ordering::Acquire)).collect();
        let Some(limit) = furthest_behind(&taken, self.queued.load(Ordering::Acquire)) else {
            return;
        };
        for (client, _) in clients.iter().zip(&taken).filter(|(_, taken)| **taken <= limit) {
            client.end(Ending::Slow, self.millis());
        }
    }

    fn end_all(&self, why: Ending) {
        let clients: Vec<_> = self.lock().all.values().cloned().collect();
        for client in clients {
            client.end(why, self.millis());
        }
    }

    fn millis(&self) -> u64 {
        // 0 stands for never.
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Each change of it is one step.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many streams of a tenant a caller may have.
fn own_max(caller: &Caller) -> usize {
    if caller.is_operator() {
        CLIENTS_PER_TENANT_MAX
    } else if caller.by_key().is_ok() {
        CLIENTS_PER_KEY_MAX
    } else {
        CLIENTS_PER_USER_MAX
    }
}

/// Of those who have taken so much of what was queued, returns up to where those have come who are
/// to be cut off: they hold the older half. Nobody if nobody is behind.
fn furthest_behind(taken: &[u64], queued: u64) -> Option<u64> {
    let last = taken.iter().min().copied().filter(|last| *last < queued)?;
    Some(last + (queued - last) / 2)
}

/// Reads the journal while somebody watches, until the service stops; then ends every stream.
pub(crate) async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let live = &app.live;
    tokio::join!(pass_on(&app, &stop), stop.run_until_cancelled(look_after(&app)));
    live.lock().stopped = true;
    live.feed.send_replace(None);
    live.end_all(Ending::Interrupted);
    let end = Instant::now() + ENDING;
    while live.count() > 0 && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
    for client in live.lock().all.values() {
        client.cut.cancel();
    }
    Ok(())
}

/// Passes on what the journal says while somebody watches, until the service stops.
async fn pass_on(app: &App, stop: &CancellationToken) {
    let live = &app.live;
    while stop.run_until_cancelled(live.wanted()).await.is_some() {
        let reading = Box::pin(read(app));
        match stop.run_until_cancelled(reading).await {
            None => break,
            Some(Ok(())) => {}
            Some(Err(cause)) => {
                warn!(error = chain(&cause), "deliveries cannot be watched at the moment");
                live.feed.send_replace(None);
                live.end_all(Ending::Interrupted);
                stop.run_until_cancelled(sleep(PAUSE)).await;
            }
        }
    }
}

/// Looks after those who watch, whether the journal can be read or not.
async fn look_after(app: &App) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        app.live.wanted().await;
        look.tick().await;
        app.live.look(app);
    }
}

/// Reads until nobody watches any more.
async fn read(app: &App) -> Result<(), ReadError> {
    let live = &app.live;
    let mut journal = app.log.journal(JournalFilter::All, From::New).await?;
    let queue = broadcast::Sender::new(BEHIND_MAX);
    live.feed.send_replace(Some(queue.clone()));
    debug!("somebody watches");
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            batch = journal.next(), if live.has_room() => {
                let batch = batch?;
                let tenants = live.tenants();
                let told = Batch::of(&batch, |tenant| tenants.contains(tenant));
                if !told.items.is_empty() {
                    live.queued.store(batch.sequence, Ordering::Release);
                    // Nobody may be there to take it.
                    drop(queue.send(Arc::new(told.weighed(&live.held))));
                }
                live.reached.store(batch.sequence, Ordering::Release);
            }
            _ = look.tick() => {
                if !live.has_room() {
                    live.make_room();
                }
                if live.rest() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_furthest_behind_are_cut_off_and_no_others() {
        assert_eq!(furthest_behind(&[], 9), None);
        assert_eq!(furthest_behind(&[9, u64::MAX], 9), None, "nobody is behind");
        let limit = furthest_behind(&[100, 40, 95, u64::MAX], 100).unwrap();
        assert!((40..95).contains(&limit), "{limit}");
        assert_eq!(furthest_behind(&[8], 9), Some(8));
    }
}
