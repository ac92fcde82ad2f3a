//! What comes in: messages of both queues, judged by the ledger and the feeds, into the lanes.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{
    DeliveryId, DeliveryRef, EndpointId, RetryDue, Task, endpoint::Ordering, feed::Reason,
};
use fanfare_event_log::{
    Column, ReadError, Settler, Unsettled,
    journal::{From, JournalFilter},
};

use super::{Origin, ShardWorker, Waiting};
use crate::{
    attempt::Job,
    feeds::Whose,
    ledger::Admission,
    memory::{self, Source},
    task_event::TaskEvent,
};

/// How far the clocks of servers and services may be apart.
const CLOCKS_APART: Duration = Duration::from_mins(1);

/// Messages that were read and for which there was no room yet, in the order of their queues.
#[derive(Default)]
pub(super) struct Ahead {
    tasks: VecDeque<Unsettled<Vec<Task>>>,
    due: VecDeque<Unsettled<RetryDue>>,
}

impl Ahead {
    /// Whether a queue has to wait for what was read of it before.
    pub(super) fn waits(&self, source: Source) -> bool {
        match source {
            Source::Task => !self.tasks.is_empty(),
            Source::Due => !self.due.is_empty(),
        }
    }

    /// Returns what gives everything back to the queues.
    pub(super) fn abandon(&mut self) -> Vec<Settler> {
        let tasks = self.tasks.drain(..).map(|message| message.settler);
        tasks.chain(self.due.drain(..).map(|message| message.settler)).collect()
    }
}

/// What a message asks for that is none of its own business.
#[derive(Default)]
struct Others {
    /// What is live by another message.
    live: Vec<DeliveryId>,
    /// Events of which it is not known whether they are a feed's.
    limbo: Vec<(EndpointId, u64)>,
    /// What is given up to a feed.
    given_up: Vec<DeliveryRef>,
}

impl ShardWorker {
    /// Takes tasks that were read, once there is room for them.
    pub(super) async fn read_tasks(
        &mut self,
        read: Vec<Unsettled<Vec<Task>>>,
    ) -> Result<(), ReadError> {
        self.recall_tasks(&read).await?;
        self.ahead.tasks.extend(read);
        self.take_ahead().await;
        Ok(())
    }

    /// Takes due retries that were read, once there is room for them.
    pub(super) async fn read_due(
        &mut self,
        read: Vec<Unsettled<RetryDue>>,
    ) -> Result<(), ReadError> {
        self.recall_due(&read).await?;
        self.ahead.due.extend(read);
        self.take_ahead().await;
        Ok(())
    }

    /// Takes what was read and has waited for room, as far as there is room now.
    pub(super) async fn take_ahead(&mut self) {
        while let Some(message) = self.ahead.tasks.pop_front() {
            if let Some(message) = self.take_tasks(message).await {
                self.ahead.tasks.push_front(message);
                break;
            }
        }
        while let Some(message) = self.ahead.due.pop_front() {
            if let Some(message) = self.take_due(message).await {
                self.ahead.due.push_front(message);
                break;
            }
        }
    }

    /// Asks the journal about deliveries of tasks that were made before what the ledger covers:
    /// fan-out writes such tasks again when it was away for long.
    async fn recall_tasks(&mut self, taken: &[Unsettled<Vec<Task>>]) -> Result<(), ReadError> {
        let horizon = self.ledger.covers_from().sequence;
        let tasks = || taken.iter().flat_map(|message| &message.record);
        let old = || tasks().filter(|task| task.journal_sequence < horizon);
        let targets = old().flat_map(|task| &task.targets).map(|target| target.delivery);
        let wanted: BTreeSet<_> =
            targets.filter(|delivery| !self.ledger.knows(*delivery)).collect();
        let Some(first) = old().map(|task| task.journal_sequence).min() else {
            return Ok(());
        };
        self.recall(From::Sequence(first), &wanted).await
    }

    /// The same for retries: facts about an attempt are no older than the time it was due.
    async fn recall_due(&mut self, retries: &[Unsettled<RetryDue>]) -> Result<(), ReadError> {
        let horizon = self.ledger.covers_from().at;
        let old = || retries.iter().map(|retry| &retry.record).filter(|it| it.due_at < horizon);
        let deliveries = old().map(|retry| retry.delivery.id);
        let wanted = deliveries.filter(|delivery| !self.ledger.knows(*delivery)).collect();
        let Some(first) = old().map(|retry| retry.due_at).min() else { return Ok(()) };
        self.recall(From::Time(first.saturating_sub(CLOCKS_APART)), &wanted).await
    }

    pub(super) async fn recall(
        &mut self,
        from: From,
        wanted: &BTreeSet<DeliveryId>,
    ) -> Result<(), ReadError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let last = self.ledger.covers_from().sequence;
        tracing::info!(shard = self.shard.index(), deliveries = wanted.len(), "recalling facts");
        let filter = JournalFilter::Column(self.shard, Column::Attempts);
        let mut reader = self.desk.log().journal(filter, from).await?.brief();
        while let Some(batch) = reader.next_until(last).await? {
            for record in &batch.facts {
                self.ledger.recall(&record.fact, record.recorded_at, wanted);
            }
        }
        Ok(())
    }

    /// Returns the message if there is no room for it.
    async fn take_tasks(&mut self, message: Unsettled<Vec<Task>>) -> Option<Unsettled<Vec<Task>>> {
        let place = (Source::Task, message.position.sequence);
        if self.messages.has(place) {
            // It is in hand, and is settled in the end by what it brought the first time.
            return None;
        }
        let tasks = &message.record;
        let count = tasks.iter().map(|task| task.targets.len()).sum();
        let bytes = tasks.iter().map(|task| task.event.event.data.len()).sum();
        let Some((mut places, bytes)) = self.ration.take(Source::Task, count, bytes) else {
            return Some(message);
        };
        let Unsettled { record: tasks, settler, position } = message;
        if !position.suspect {
            self.note_arrivals(&tasks);
        }
        // The events of a message are parts of one allocation.
        let bytes = Arc::new(bytes);
        let (mut jobs, mut others) = (Vec::with_capacity(count), Others::default());
        for task in tasks {
            let event = Arc::new(TaskEvent::new(task.event, Arc::clone(&bytes)));
            for target in &task.targets {
                let delivery = event.delivery(target, task.generation);
                match self.whose(&delivery) {
                    Whose::Feed => {
                        // Fan-out has not heard of the feed, and has given it no hint.
                        self.feeds.hint(target.endpoint, delivery.event_sequence);
                        continue;
                    }
                    Whose::Limbo => {
                        others.limbo.push((target.endpoint, delivery.event_sequence));
                        continue;
                    }
                    Whose::Task => {}
                }
                match self.ledger.admit_first(target.delivery) {
                    Admission::Make => {
                        self.haunt(target.endpoint, position.stored_at);
                        if task.generation == 0 && self.feeds.takes_over(target.endpoint) {
                            // Late: it comes before what the feed has.
                            self.ledger.withdraw(target.delivery);
                            others.given_up.push(delivery);
                            continue;
                        }
                        if task.generation == 0 {
                            self.feeds.took(target.endpoint, delivery.event_sequence);
                        }
                        let job = Job::first(delivery, target.not_before, Arc::clone(&event));
                        jobs.extend(places.pop().map(|place| (job, false, place)));
                    }
                    Admission::Live => others.live.push(target.delivery),
                    Admission::OnRecord | Admission::Early(_) | Admission::Turn => {}
                }
            }
        }
        self.queue(place, settler, jobs, others).await;
        None
    }

    /// Notes how long the newest event of a message took, unless it was there before.
    fn note_arrivals(&self, tasks: &[Task]) {
        let live = tasks.iter().filter(|task| task.generation == 0);
        if let Some(accepted_at) = live.map(|task| task.event.accepted_at).max() {
            let now = self.desk.now();
            self.desk.arrivals().note(now.since(accepted_at), now);
        }
    }

    /// Returns the message if there is no room for it.
    async fn take_due(&mut self, message: Unsettled<RetryDue>) -> Option<Unsettled<RetryDue>> {
        let place = (Source::Due, message.position.sequence);
        if self.messages.has(place) {
            return None;
        }
        let room = self.ration.take(Source::Due, 1, 0).and_then(|(mut places, _)| places.pop());
        let Some(room) = room else { return Some(message) };
        let Unsettled { record: retry, settler, position } = message;
        let (delivery, attempt) = (retry.delivery.id, retry.attempt);
        if attempt == 1 && self.feeds.took_over(&retry.delivery, retry.due_at) {
            settler.settle().await;
            return None;
        }
        let has_turn = match self.ledger.admit_due(delivery, attempt, self.desk.now()) {
            Admission::Make => false,
            Admission::Turn => true,
            Admission::OnRecord => {
                settler.settle().await;
                return None;
            }
            Admission::Early(wait) => {
                settler.redeliver(wait).await;
                return None;
            }
            Admission::Live => {
                let others = Others { live: vec![delivery], ..Others::default() };
                self.queue(place, settler, Vec::new(), others).await;
                return None;
            }
        };
        self.haunt(retry.delivery.endpoint, position.stored_at);
        if attempt == 1 {
            self.feeds.came_back(&retry.delivery);
        }
        let jobs = vec![(Job::later(retry), has_turn, room)];
        self.queue(place, settler, jobs, Others::default()).await;
        None
    }

    /// Judges whose a first attempt is; where that is not known, it will be.
    fn whose(&mut self, delivery: &DeliveryRef) -> Whose {
        let ordering = self.rulebook.rules(&self.desk, delivery.endpoint).ordering;
        let whose = self.feeds.whose(delivery, ordering != Ordering::None);
        if whose == Whose::Limbo {
            self.begin_to_feed(delivery.endpoint, Reason::Ordered);
        }
        whose
    }

    /// Queues what a message asks for, and keeps the message until that and its `others` are on
    /// record.
    async fn queue(
        &mut self,
        place: (Source, u64),
        settler: Settler,
        jobs: Vec<(Job, bool, memory::Place)>,
        Others { live, limbo, given_up }: Others,
    ) {
        let count = jobs.len() + live.len() + limbo.len() + given_up.len();
        let message = match self.messages.open(place, settler, count) {
            Ok(message) => message,
            Err(settler) => return settler.settle().await,
        };
        for delivery in live {
            self.messages.wait_for(delivery, message);
        }
        for (endpoint, sequence) in limbo {
            self.feeds.wait(endpoint, sequence, message);
        }
        for delivery in given_up {
            let is_taken = self.feeds.take_over(&delivery, message);
            debug_assert!(is_taken, "nothing came between the question and this");
        }
        let now = self.desk.now();
        self.rulebook.renew(&self.desk);
        for (job, has_turn, place) in jobs {
            self.arrive(Waiting { job, origin: Origin::Message(message), place }, has_turn, now);
        }
    }
}
