//! Messages of one stream on their way where batches may pay.
//!
//! A lane sends what it is given in the order in which it is given it, and with nothing under way
//! it never waits for more to come: what gathered while the last batch, or many single messages,
//! were under way makes the next one. There is one batch at a time, so that a refused one is sent
//! again, message by message, before anything that came after it.
//!
//! What is not known after one try is left to whoever waits for it ([`super::Pending`]).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::Client;
use futures_util::{
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};
use tracing::{debug, warn};

use crate::{
    EventLog, PublishError, Settings, Stored,
    publish::{
        Held,
        acks::{ANSWER_MIN, Ticket},
        policy::{Flight, Policy},
        verdict::BatchVerdict,
    },
    topology::Stream,
};

/// How long the acknowledgement of a batch may take before its outcome counts as unknown: longer
/// than a message's, because its messages are repeated one by one then.
const BATCH_ANSWER: Duration = ANSWER_MIN.saturating_mul(2);

/// The lanes of one publisher; each is opened when it is first needed.
pub(crate) struct Lanes {
    policy: Option<Policy>,
    window: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    lanes: BTreeMap<Stream, mpsc::Sender<Queued>>,
    /// End with the lanes.
    tasks: JoinSet<()>,
}

/// A message on its way to the servers, and who waits for what becomes of it.
pub(crate) struct Queued {
    pub(crate) held: Arc<Held>,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// What became of a message after one try.
pub(crate) enum Answer {
    /// It is stored, or refused.
    Known(Result<Stored, PublishError>),
    /// It may be stored or not.
    Unknown {
        /// When it was sent.
        sent: Instant,
        why: &'static str,
    },
}

impl Lanes {
    /// `settings.window` bounds what may be in them.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { policy: Policy::of(settings), window: settings.window, open: Mutex::default() }
    }

    /// The lane of a stream; `None` if its messages are better sent each by itself.
    pub(crate) fn lane(&self, log: &EventLog, stream: Stream) -> Option<mpsc::Sender<Queued>> {
        let policy = self.policy.filter(|_| stream.takes_batches())?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { lanes, tasks } = &mut *open;
        let lane = lanes.entry(stream).or_insert_with(|| {
            let (sender, queue) = mpsc::channel(self.window);
            let lane = Lane::new(log.clone(), stream, policy);
            let closed = log.inner.closed.clone();
            tasks.spawn(async move {
                // Whoever waits for an answer then sees that there will be none.
                let _closed = closed.run_until_cancelled(lane.run(queue)).await;
            });
            sender
        });
        Some(lane.clone())
    }
}

struct Lane {
    log: EventLog,
    stream: Stream,
    policy: Policy,
    batch_ids: BatchIds,
    gathered: VecDeque<Queued>,
    singles: FuturesUnordered<BoxFuture<'static, ()>>,
    batch: Option<Batch>,
}

/// The batch that is under way.
struct Batch {
    messages: Vec<Queued>,
    sent: Instant,
    verdict: BoxFuture<'static, BatchVerdict>,
}

impl Lane {
    fn new(log: EventLog, stream: Stream, policy: Policy) -> Self {
        let batch_ids = BatchIds::new(&log.inner.client);
        let (gathered, singles) = (VecDeque::new(), FuturesUnordered::new());
        Self { log, stream, policy, batch_ids, gathered, singles, batch: None }
    }

    /// Sends what comes, until nothing can come any more.
    async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        loop {
            self.launch().await;
            tokio::select! {
                queued = queue.recv() => {
                    let Some(queued) = queued else { return };
                    self.gathered.push_back(queued);
                    while let Ok(queued) = queue.try_recv() {
                        self.gathered.push_back(queued);
                    }
                }
                Some(()) = self.singles.next() => {}
                (batch, verdict) = under_way(&mut self.batch) => {
                    self.conclude(batch, verdict).await;
                }
            }
        }
    }

    /// Sends what is to be sent at this moment.
    async fn launch(&mut self) {
        let message_max = self.log.payload_max();
        while self.batch.is_none() && !self.gathered.is_empty() {
            let messages = self.gathered.iter().map(|queued| &queued.held);
            let messages = messages.map(|held| (&held.message, held.bytes));
            match self.policy.decide(messages, self.singles.len(), message_max) {
                Flight::Singles(0) => return,
                Flight::Singles(count) => {
                    for _ in 0..count {
                        let Some(queued) = self.gathered.pop_front() else { break };
                        self.send(queued).await;
                    }
                }
                Flight::Batch(count) => {
                    let messages = self.gathered.drain(..count.min(self.gathered.len())).collect();
                    self.send_batch(messages).await;
                }
            }
        }
    }

    async fn send(&mut self, queued: Queued) {
        let sent = Instant::now();
        match self.log.send(&queued.held.message).await {
            Ok(ticket) => {
                let log = self.log.clone();
                self.singles.push(Box::pin(see_off(log, queued, ticket, sent)));
            }
            Err(error) => queued.tell(Answer::Known(Err(error))),
        }
    }

    async fn send_batch(&mut self, messages: Vec<Queued>) {
        let (id, sent) = (self.batch_ids.next(), Instant::now());
        let helds = messages.iter().map(|queued| &queued.held);
        match self.log.send_batch(&id, helds).await {
            Ok(ticket) => {
                let verdict = Box::pin(ticket.batch_verdict(BATCH_ANSWER));
                self.batch = Some(Batch { messages, sent, verdict });
            }
            Err(error) => {
                debug!(%error, "a batch could not be sent: sending its messages one by one");
                self.one_by_one(messages).await;
            }
        }
    }

    async fn conclude(&mut self, batch: Batch, verdict: BatchVerdict) {
        let Batch { messages, sent, .. } = batch;
        let (stream, count) = (self.stream.as_str(), messages.len());
        let why = match verdict {
            BatchVerdict::Stored { first, count: stored } if stored == count as u64 => {
                for (queued, sequence) in messages.into_iter().zip(first..) {
                    queued.tell(Answer::Known(Ok(Stored { sequence, duplicate: false })));
                }
                return;
            }
            BatchVerdict::Refused(refusal) => {
                debug!(stream, count, %refusal, "a batch was refused: sending it one by one");
                return self.one_by_one(messages).await;
            }
            BatchVerdict::NotTaken => {
                warn!(stream, "the stream takes no batches any more: messages are sent one by one");
                self.policy = Policy::SINGLES_ONLY;
                return self.one_by_one(messages).await;
            }
            BatchVerdict::Stored { .. } => "the acknowledgement is of another batch",
            BatchVerdict::Unknown(why) => why,
        };
        debug!(stream, count, why, "the outcome of a batch is unknown");
        for queued in messages {
            queued.tell(Answer::Unknown { sent, why });
        }
    }

    async fn one_by_one(&mut self, messages: Vec<Queued>) {
        for queued in messages {
            self.send(queued).await;
        }
    }
}

impl Queued {
    fn tell(self, answer: Answer) {
        // Whoever waited may have gone.
        let _unheard = self.answer.send(answer);
    }
}

/// Waits until it is known what became of a message, or not known.
async fn see_off(log: EventLog, queued: Queued, ticket: Ticket, sent: Instant) {
    let verdict = ticket.verdict(ANSWER_MIN).await;
    let answer = match log.conclude(queued.held.message.stream, verdict) {
        Ok(outcome) => Answer::Known(outcome),
        Err(why) => Answer::Unknown { sent, why },
    };
    queued.tell(answer);
}

/// Waits for the batch that is under way, for ever if none is, and takes it out. Cancel safe.
async fn under_way(batch: &mut Option<Batch>) -> (Batch, BatchVerdict) {
    if let Some(under_way) = batch {
        let verdict = (&mut under_way.verdict).await;
        if let Some(done) = batch.take() {
            return (done, verdict);
        }
    }
    std::future::pending().await
}

/// Makes ids for batches that no other batch has. Short, as each message of a batch keeps its id.
struct BatchIds {
    unique: String,
    next: u64,
}

impl BatchIds {
    /// How many characters tell lanes apart.
    const UNIQUE: usize = 10;

    fn new(client: &Client) -> Self {
        // An inbox name is never used twice, by any process. Its last token is what differs, and
        // the end of that is enough: ten of 62 characters, drawn by each process and counted on.
        let inbox = client.new_inbox();
        let token = inbox.rsplit('.').next().unwrap_or_default();
        let end = token.len().saturating_sub(Self::UNIQUE);
        Self { unique: token.get(end..).unwrap_or(token).to_owned(), next: 0 }
    }

    fn next(&mut self) -> String {
        self.next += 1;
        format!("{}.{}", self.unique, self.next)
    }
}
