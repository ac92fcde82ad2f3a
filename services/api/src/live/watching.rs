//! One stream: what its reader missed, then what comes.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::anyhow;
use axum::body::{Body, Bytes};
use fanfare_domain::TenantId;
use fanfare_event_log::{
    JournalReader,
    journal::{From, JournalFilter},
};
use futures_util::stream;
use tokio::{
    sync::{broadcast, broadcast::error::RecvError},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Batch, Client, Cut, Ending, Filter, item::Item};
use crate::{
    app::App,
    caller::Caller,
    error::{ApiError, Code},
    scan::Place,
    shares::{Holder, Share},
};

/// How often something is sent, if nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How much is sent at once, about, in bytes.
const PIECE_BYTES: usize = 16 << 10;
/// How long the reader may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one stream catches up on what its reader missed; they come back for the rest.
const CATCHING_UP: Duration = Duration::from_mins(2);
/// How many messages of the journal one can have missed and go on.
const MISSED_MAX: u64 = 100_000;
/// How often the journal's end is asked for again if a place lies behind it, and how long it is waited
/// in between: a server that does not know yet that it leads no more tells an old end.
const ASKED_MAX: usize = 4;
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// After how long whoever lost the connection should come back, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// The place behind all that a message of the journal says.
const END: usize = u32::MAX as usize;

/// Whose deliveries are watched, from where on, and how.
pub(crate) struct Begin {
    /// Who watches.
    pub(crate) caller: Caller,
    /// Whose deliveries.
    pub(crate) tenant: TenantId,
    /// Events up to this sequence are not theirs: those of an earlier tenant of the id.
    pub(crate) hidden: u64,
    /// Which of them.
    pub(crate) filter: Filter,
    /// Behind which place; from now on if not set.
    pub(crate) after: Option<Place>,
    /// Closes the connection.
    pub(crate) cut: Cut,
}

/// One who watches, for as long as the stream is there.
struct Seat {
    app: App,
    number: u64,
    client: Arc<Client>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.app.live.remove(self.number);
    }
}

/// See the module.
struct Watching {
    seat: Seat,
    filter: Filter,
    hidden: u64,
    source: Source,
    /// All up to here was told, or not wanted.
    place: Place,
    /// What is being told: a message of the journal, and how much of it was.
    telling: Option<(Arc<Batch>, usize)>,
    heartbeat: Instant,
    greeted: bool,
    over: bool,
}

/// Where it is read from.
enum Source {
    /// From the journal itself, up to where it ended.
    Past(Box<Past>),
    /// From the shared reader's queue.
    Present(broadcast::Receiver<Arc<Batch>>),
}

struct Past {
    reader: JournalReader,
    last: u64,
    /// The queue, once it was joined: then `last` is beyond where that begins.
    joined: Option<broadcast::Receiver<Arc<Batch>>>,
    end: Instant,
    _share: Share,
}

/// Takes a seat, and returns the stream.
pub(crate) async fn open(app: &App, begin: Begin) -> Result<Body, ApiError> {
    let Begin { caller, tenant, hidden, filter, after, cut } = begin;
    let (number, client) = app.live.add(caller, tenant, cut)?;
    let seat = Seat { app: app.clone(), number, client };
    let silent = |_| ApiError::Unavailable(anyhow!("the journal cannot be read in time"));
    let beginning = timeout(PATIENCE, start(&seat, after));
    let (source, place) = beginning.await.map_err(silent)??;
    let watching = Watching {
        seat,
        filter,
        hidden,
        source,
        place,
        telling: None,
        heartbeat: Instant::now() + HEARTBEAT,
        greeted: false,
        over: false,
    };
    let pieces = stream::unfold(watching, |mut watching| async move {
        let piece = Box::pin(watching.next()).await?;
        Some((Ok::<Bytes, Infallible>(piece), watching))
    });
    Ok(Body::from_stream(pieces))
}

async fn start(seat: &Seat, after: Option<Place>) -> Result<(Source, Place), ApiError> {
    let app = &seat.app;
    let Some(after) = after else {
        let queue = seat.join().await;
        // What came before this call is not told.
        let place = Place { sequence: app.log.journal_last().await?, index: END };
        return Ok((Source::Present(queue), place));
    };
    let holder = Holder::Tenant(seat.client.tenant.clone());
    let share = app.live.past.take(&holder, 1, Instant::now() + PATIENCE / 2).await?;
    let last = end_behind(app, after).await?;
    let reader = app.log.journal(JournalFilter::All, From::Sequence(after.sequence.max(1))).await?;
    let end = Instant::now() + CATCHING_UP;
    let past = Past { reader, last, joined: None, end, _share: share };
    Ok((Source::Past(Box::new(past)), after))
}

/// Returns the journal's end, if it can be gone on from a place: one that there is, and not too long
/// ago.
async fn end_behind(app: &App, after: Place) -> Result<u64, ApiError> {
    for _ in 0..ASKED_MAX {
        let last = app.log.journal_last().await?;
        match last.checked_sub(after.sequence) {
            Some(missed) if missed <= MISSED_MAX => return Ok(last),
            Some(_) => return Err(Code::PlaceGone.into()),
            None => sleep(ASK_AGAIN).await,
        }
    }
    Err(Code::PlaceGone.into())
}

impl Seat {
    /// Joins the shared reader's queue, once that reads.
    async fn join(&self) -> broadcast::Receiver<Arc<Batch>> {
        let live = &self.app.live;
        let mut feed = live.feed.subscribe();
        loop {
            if let Some(queue) = &*feed.borrow_and_update() {
                let queue = queue.subscribe();
                let queued = live.queued.load(Ordering::Acquire);
                self.client.taken.store(queued, Ordering::Release);
                return queue;
            }
            // The sender lives as long as the service.
            if feed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Watching {
    /// Makes the next piece; nothing is behind the one that says that the stream ends.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let client = Arc::clone(&self.seat.client);
        client.idle_since.store(0, Ordering::Release);
        let piece = tokio::select! {
            biased;
            () = client.ended.cancelled() => Err(client.why.get().copied().unwrap_or(Ending::Interrupted)),
            piece = self.piece() => piece,
        };
        client.idle_since.store(self.seat.app.live.millis(), Ordering::Release);
        Some(piece.unwrap_or_else(|why| {
            self.over = true;
            let (place, why) = (self.place, why.as_str());
            Bytes::from(format!("event: end\nid: {place}\ndata: {{\"reason\":\"{why}\"}}\n\n"))
        }))
    }

    /// Cancel safe.
    async fn piece(&mut self) -> Result<Bytes, Ending> {
        if !self.greeted {
            self.greeted = true;
            return Ok(Bytes::from(format!("retry: {RETRY_MS}\nid: {}\n\n", self.place)));
        }
        loop {
            if let Some(piece) = self.tell() {
                self.heartbeat = Instant::now() + HEARTBEAT;
                return Ok(piece);
            }
            tokio::select! {
                biased;
                () = sleep_until(self.heartbeat) => {
                    self.heartbeat = Instant::now() + HEARTBEAT;
                    self.keep_up();
                    return Ok(Bytes::from(format!(":\nid: {}\n\n", self.place)));
                }
                batch = self.source.next(&self.seat) => {
                    self.telling = batch?.map(|batch| (batch, 0));
                }
            }
        }
    }

    /// Writes some of what is being told; `None` if nothing of it is left that is wanted.
    fn tell(&mut self) -> Option<Bytes> {
        let (batch, mut at) = self.telling.take()?;
        let mut text = String::new();
        while let Some(item) = batch.items.get(at) {
            at += 1;
            let place = Place { sequence: batch.sequence, index: item.index };
            if place <= self.place {
                continue;
            }
            self.place = place;
            if self.shows(item) {
                item.write(place, &mut text);
            }
            if text.len() >= PIECE_BYTES {
                self.telling = Some((batch, at));
                return Some(Bytes::from(text));
            }
        }
        let end = Place { sequence: batch.sequence, index: END };
        self.place = self.place.max(end);
        (!text.is_empty()).then(|| Bytes::from(text))
    }

    fn shows(&self, item: &Item) -> bool {
        item.tenant == self.seat.client.tenant
            && item.event_sequence > self.hidden
            && self.filter.wants(item)
            && self.seat.app.directory.read(|it| !it.is_deleted(item.endpoint))
    }

    /// Notes how far the shared reader has come, if all that it passed on was taken.
    fn keep_up(&mut self) {
        let Source::Present(queue) = &self.source else { return };
        let reached = self.seat.app.live.reached.load(Ordering::Acquire);
        if queue.is_empty() {
            self.place = self.place.max(Place { sequence: reached, index: END });
        }
    }
}

impl Source {
    /// Waits for a message of the journal; `None` to be asked again. Cancel safe.
    async fn next(&mut self, seat: &Seat) -> Result<Option<Arc<Batch>>, Ending> {
        let past = match self {
            Self::Present(queue) => {
                return match queue.recv().await {
                    Ok(batch) => {
                        seat.client.taken.store(batch.sequence, Ordering::Release);
                        Ok(Some(batch))
                    }
                    Err(RecvError::Lagged(_)) => Err(Ending::Slow),
                    Err(RecvError::Closed) => Err(Ending::Interrupted),
                };
            }
            Self::Past(past) => past,
        };
        if Instant::now() > past.end {
            return Err(Ending::Long);
        }
        let read = past.reader.next_until(past.last).await.map_err(|_| Ending::Interrupted)?;
        if let Some(batch) = read {
            let tenant = &seat.client.tenant;
            return Ok(Some(Arc::new(Batch::of(&batch, |one| one == tenant))));
        }
        if let Some(queue) = past.joined.take() {
            *self = Self::Present(queue);
            return Ok(None);
        }
        let queue = seat.join().await;
        // Asked after joining: what is not in the queue is before it.
        let last = seat.app.log.journal_last().await.map_err(|_| Ending::Interrupted)?;
        (past.last, past.joined) = (last, Some(queue));
        Ok(None)
    }
}
