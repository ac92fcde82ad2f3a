//! Who waits for which acknowledgement.
//!
//! One subscription takes all of them. The client's own way would keep an entry for each
//! acknowledgement that never comes, and would tell nobody that the connection was lost: a
//! publish would wait for its time-out, though it could be repeated at once.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Message, Subject, SubscribeError};
use futures_util::StreamExt as _;
use tokio::{sync::oneshot, time::timeout};

use crate::publish::verdict::{self, BatchVerdict, Verdict};

/// How long an acknowledgement may take before the outcome counts as unknown: at the first try,
/// and at most. Longer each time, so that servers with too much to do do not get more of it.
pub(crate) const ANSWER_MIN: Duration = Duration::from_millis(1500);
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Publishes whose acknowledgement has not come.
#[derive(Default)]
pub(crate) struct Acks {
    inbox: OnceLock<String>,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
}

/// A wait for one acknowledgement.
pub(crate) struct Ticket {
    acks: Arc<Acks>,
    number: u64,
    answer: oneshot::Receiver<Message>,
}

impl Acks {
    /// Subscribes. The returned future hands out what comes, until the connection is closed.
    pub(crate) async fn receive(
        self: &Arc<Self>,
        client: &Client,
    ) -> Result<impl Future<Output = ()> + Send + use<>, SubscribeError> {
        let inbox = self.inbox.get_or_init(|| client.new_inbox());
        let mut answers = client.subscribe(format!("{inbox}.*")).await?;
        let acks = Arc::clone(self);
        Ok(async move {
            while let Some(answer) = answers.next().await {
                acks.hand_out(answer);
            }
        })
    }

    /// Makes a ticket, and the subject that its acknowledgement comes to.
    pub(crate) fn ticket(self: &Arc<Self>) -> (Ticket, Subject) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(number, sender);
        let inbox = self.inbox.get().map_or("", String::as_str);
        // A number has 20 digits at most.
        let mut subject = String::with_capacity(inbox.len() + 21);
        write!(subject, "{inbox}.{number}").expect("writing to a string succeeds");
        let subject = Subject::from(subject);
        (Ticket { acks: Arc::clone(self), number, answer }, subject)
    }

    /// Tells everyone who waits that the outcome is unknown: the connection was lost.
    pub(crate) fn lose_all(&self) {
        self.waiting().clear();
    }

    fn hand_out(&self, answer: Message) {
        let number = answer.subject.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
        let waiting = number.and_then(|number: u64| self.waiting().remove(&number));
        if let Some(waiting) = waiting {
            // Whoever waited may have given up in this moment.
            drop(waiting.send(answer));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for the acknowledgement and judges it.
    pub(crate) async fn verdict(self, patience: Duration) -> Verdict {
        match self.answer(patience).await {
            Ok(answer) => verdict::judge(&answer),
            Err(why) => Verdict::Unknown(why),
        }
    }

    /// Waits for the acknowledgement of a batch and judges it.
    pub(crate) async fn batch_verdict(self, patience: Duration) -> BatchVerdict {
        match self.answer(patience).await {
            Ok(answer) => verdict::judge_batch(&answer),
            Err(why) => BatchVerdict::Unknown(why),
        }
    }

    async fn answer(mut self, patience: Duration) -> Result<Message, &'static str> {
        match timeout(patience, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("the connection was lost"),
            Err(_) => Err("no acknowledgement came"),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.acks.waiting().remove(&self.number);
    }
}
