//! What people ask for: to end a delivery, or to make its next attempt now.
//!
//! ```text
//! command ─▶ ledger ─┬▶ alarm stopped ─┬▶ ended, on record ─▶ alarm stopped again ─▶ settle
//!                    │                 └▶ lane ─▶ attempt, on record ─▶ settle
//!                    └▶ from its place in the lane to the front ─▶ attempt, on record ─▶ settle
//! ```
//!
//! What ends all of an endpoint is in [`walks`].
//!
//! A command is settled once what it asks for is on record, so that another owner carries it out
//! where we did not. It says how its delivery stood, so that a second time changes nothing. While
//! a delivery is in flight, nothing is done: its outcome decides. An alarm clock is stopped before
//! its attempt is made, and again a moment after its delivery has ended: one that was being set
//! meanwhile must not go off when nobody remembers the end any more. What a feed would bring, maybe
//! much later, ends at once too, or is tried in the place of the feed; its command is settled once the
//! feed is sure to pass it over.

mod fed;
mod hurried;
mod undecided;
mod walks;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_domain::{
    Command, Conclusion, DeliveryId, DeliveryRef, EndpointId, Fact, Record, RetryDue, Shard,
    TraceContext, chain,
    command::{Aim, Order},
    endpoint::Ordering,
    fact::{ConclusionReason, DeliveryConcluded},
};
use fanfare_event_log::{ReadError, Schedules, Settler, Unsettled, journal::From};
use tokio::task::JoinSet;

use self::walks::Walks;
use super::{Origin, ShardWorker, Waiting};
use crate::{
    attempt::Job,
    feeds::Whose,
    ledger::Standing,
    memory::Source,
    pen::{self, Entry},
};

/// The most commands that are taken at once.
pub(super) const BATCH_MAX: usize = 32;

/// How many commands may be in hand before no more are taken.
const IN_HAND_MAX: usize = 3_000;

/// How long after a delivery's end its alarm clock is stopped again: by then the retry-scheduler
/// has set the last one, or knows of the end.
const AGAIN: Duration = Duration::from_secs(5);

/// How long to wait before it is asked again whether a feed is sure to pass something over.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long a command waits after the servers have refused something.
const REFUSED_WAIT: Duration = Duration::from_secs(15);

/// How long a command waits for which there is no room.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Orders {
    schedules: Schedules,
    shard: Shard,
    under_way: JoinSet<Done>,
    /// The places of the commands in hand: one that is handed out again is known by it.
    in_hand: BTreeSet<u64>,
    /// Commands that wait for a fact about their delivery, or for the delivery to turn up.
    waiting: BTreeMap<DeliveryId, Vec<(Wish, Held)>>,
    /// What those aim at that wait for their endpoint's feed to be stored.
    undecided: BTreeMap<EndpointId, Vec<Aim>>,
    /// Commands about all of an endpoint.
    walks: Walks,
    /// Whether the shard is being given away.
    is_closing: bool,
}

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Retry,
}

/// A command in hand.
pub(super) struct Held {
    settler: Settler,
    place: u64,
}

/// What the servers have done.
pub(super) enum Done {
    /// The alarm clock of a delivery is stopped.
    Stopped(Wish, Box<Aim>, Held),
    /// It is stopped for the second time.
    StoppedAgain(Box<DeliveryRef>, Held),
    /// It is time to ask again whether its feed is sure not to make a delivery's first attempt.
    AskedAgain(Box<DeliveryRef>, Held),
    /// Some alarm clocks were found by the walk of that number.
    Found(u64, Vec<RetryDue>, Option<u64>),
    /// Those that were found by it and are pointless are stopped.
    Silenced(u64),
    /// They refused something.
    Refused(Refused, ReadError),
}

/// What cannot be gone on with.
pub(super) enum Refused {
    /// A command.
    Command(Held),
    /// The walk of that number, for commands about all of an endpoint.
    Walk(u64),
}

/// What came of ending a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It had ended.
    Before,
    /// It ends now.
    Now,
    /// It ends once it is on record what is under way, or once it turns up.
    Later,
}

impl Orders {
    pub(super) fn new(schedules: Schedules, shard: Shard) -> Self {
        Self {
            schedules,
            shard,
            under_way: JoinSet::new(),
            in_hand: BTreeSet::new(),
            waiting: BTreeMap::new(),
            undecided: BTreeMap::new(),
            walks: Walks::default(),
            is_closing: false,
        }
    }

    /// Whether more commands may be taken. Those that wait for something to happen to their
    /// deliveries keep no others from it.
    pub(super) fn has_room(&self) -> bool {
        self.in_hand.len().saturating_sub(self.waiting.len()) < IN_HAND_MAX
    }

    /// Whether a delivery is to be ended when it turns up.
    pub(super) fn cancels(&self, delivery: DeliveryId) -> bool {
        let asked = self.waiting.get(&delivery);
        asked.is_some_and(|asked| asked.iter().any(|(wish, _)| *wish == Wish::End))
    }

    /// Gives up waiting for a delivery; returns what has its commands come again.
    pub(super) fn forsake(&mut self, delivery: DeliveryId) -> Vec<Settler> {
        let asked = self.waiting.remove(&delivery).unwrap_or_default();
        asked.into_iter().map(|(_, held)| self.let_go(held)).collect()
    }

    /// Begins nothing any more.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
    }

    /// Takes every command that is not settled.
    pub(super) fn abandon(&mut self) -> Vec<Settler> {
        self.under_way.abort_all();
        let asked = std::mem::take(&mut self.waiting).into_values().flatten();
        let asked = asked.map(|(_, held)| held);
        asked.chain(self.walks.take_all()).map(|held| held.settler).collect()
    }

    /// Waits until something is done; for ever if nothing is under way. Cancel safe.
    pub(super) async fn done(&mut self) -> Done {
        match self.under_way.join_next().await {
            None => std::future::pending().await,
            Some(Ok(done)) => done,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a shutdown of the runtime cancels it, and then nobody waits any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn let_go(&mut self, held: Held) -> Settler {
        self.in_hand.remove(&held.place);
        held.settler
    }

    fn wait(&mut self, delivery: DeliveryId, wish: Wish, held: Held) {
        self.waiting.entry(delivery).or_default().push((wish, held));
    }

    fn stop(&mut self, wish: Wish, aim: Box<Aim>, held: Held) {
        let (schedules, shard) = (self.schedules.clone(), self.shard);
        self.under_way.spawn(async move {
            match schedules.cancel(shard, aim.delivery.id).await {
                Ok(()) => Done::Stopped(wish, aim, held),
                Err(error) => Done::Refused(Refused::Command(held), error),
            }
        });
    }

    fn stop_again(&mut self, delivery: &DeliveryRef, held: Held) {
        let (schedules, shard) = (self.schedules.clone(), self.shard);
        let delivery = Box::new(delivery.clone());
        self.under_way.spawn(async move {
            let twice = async {
                schedules.cancel(shard, delivery.id).await?;
                tokio::time::sleep(AGAIN).await;
                schedules.cancel(shard, delivery.id).await
            };
            match twice.await {
                Ok(()) => Done::StoppedAgain(delivery, held),
                Err(error) => Done::Refused(Refused::Command(held), error),
            }
        });
    }

    fn ask_again(&mut self, wish: Wish, delivery: Box<DeliveryRef>, held: Held) {
        self.under_way.spawn(async move {
            tokio::time::sleep(ASK_AGAIN).await;
            match wish {
                Wish::End => Done::StoppedAgain(delivery, held),
                Wish::Retry => Done::AskedAgain(delivery, held),
            }
        });
    }
}

impl ShardWorker {
    /// Takes commands that were read.
    pub(super) async fn take_commands(
        &mut self,
        read: Vec<Unsettled<Command>>,
    ) -> Result<(), ReadError> {
        for Unsettled { record: command, settler, position } in read {
            if !self.orders.in_hand.insert(position.sequence) {
                continue;
            }
            let held = Held { settler, place: position.sequence };
            tracing::debug!(command_id = %command.id, order = ?command.order, "took a command");
            match command.order {
                Order::Cancel(aim) => self.take_order(Wish::End, aim, held).await?,
                Order::RetryNow(aim) => self.take_order(Wish::Retry, aim, held).await?,
                Order::CancelAll { tenant: _, endpoint } => {
                    self.end_all(endpoint, command.asked_at, held).await;
                }
            }
        }
        Ok(())
    }

    async fn take_order(&mut self, wish: Wish, aim: Box<Aim>, held: Held) -> Result<(), ReadError> {
        let delivery = aim.delivery.id;
        let is_older = aim.journal_sequence < self.ledger.covers_from().sequence;
        if is_older && !self.ledger.knows(delivery) {
            let wanted = BTreeSet::from([delivery]);
            self.recall(From::Sequence(aim.journal_sequence.max(1)), &wanted).await?;
        }
        if wish == Wish::Retry && self.foreign.get(delivery).is_some() {
            // Nobody knows yet what comes of it; maybe nobody ever will.
            self.orders.wait(delivery, wish, held);
        } else if wish == Wish::Retry && self.hurry(&aim) {
            self.orders.wait(delivery, wish, held);
        } else if self.is_needless(wish, &aim) {
            self.needless(wish, &aim.delivery, held).await;
        } else if wish == Wish::End && self.ledger.is_live(delivery) {
            self.end(&aim.delivery, aim.attempt, &aim.trace);
            self.orders.wait(delivery, wish, held);
        } else if wish == Wish::End && self.turns_up(&aim) && !self.feeds.may_end(&aim.delivery) {
            self.orders.wait(delivery, wish, held);
            self.orders.decide_later(*aim);
        } else if wish == Wish::Retry && self.waits_for_feed(&aim) {
            self.orders.let_go(held).redeliver(ROOM_WAIT).await;
        } else {
            self.orders.stop(wish, aim, held);
        }
        Ok(())
    }

    /// Lets go of a command about which there is nothing to do. What ended may have been ended by
    /// it, at an owner before us.
    async fn needless(&mut self, wish: Wish, delivery: &DeliveryRef, held: Held) {
        match wish {
            Wish::End => self.orders.stop_again(delivery, held),
            Wish::Retry if self.is_begun(delivery.id) => {
                self.tried(Box::new(delivery.clone()), held).await;
            }
            Wish::Retry => self.orders.let_go(held).settle().await,
        }
    }

    /// Goes on with a command.
    pub(super) async fn ordered(&mut self, done: Done) -> Result<(), ReadError> {
        match done {
            Done::Stopped(wish, aim, held) if self.is_needless(wish, &aim) => {
                self.needless(wish, &aim.delivery, held).await;
            }
            Done::Stopped(Wish::End, aim, held) => {
                self.end(&aim.delivery, aim.attempt, &aim.trace);
                self.orders.wait(aim.delivery.id, Wish::End, held);
            }
            Done::Stopped(Wish::Retry, aim, held) => self.retry_now(*aim, held).await,
            Done::StoppedAgain(delivery, held) => {
                if self.feeds.remembers_end(&delivery) {
                    self.orders.let_go(held).settle().await;
                } else {
                    self.orders.ask_again(Wish::End, delivery, held);
                }
            }
            Done::AskedAgain(delivery, held) => self.tried(delivery, held).await,
            Done::Found(number, found, next) => self.end_found(number, found, next).await?,
            Done::Silenced(number) => self.walk_on(number).await,
            Done::Refused(refused, error) => self.refused(refused, &error).await,
        }
        Ok(())
    }

    /// Gives commands back: they come again, here or at the next owner.
    async fn refused(&mut self, refused: Refused, error: &ReadError) {
        let settlers = match refused {
            Refused::Command(held) => vec![self.orders.let_go(held)],
            Refused::Walk(number) => self.orders.end_walk(number),
        };
        tracing::warn!(
            error = chain(error),
            shard = self.shard.index(),
            commands = settlers.len(),
            "commands come again later"
        );
        for settler in settlers {
            settler.redeliver(REFUSED_WAIT).await;
        }
        self.orders.begin_walks();
    }

    /// Goes on with the commands that waited for facts that are on record now.
    pub(super) async fn orders_on_record(&mut self, batch: &pen::Batch) {
        if self.orders.waiting.is_empty() && self.orders.walks.is_empty() {
            return;
        }
        for record in &batch.records {
            let Some(delivery) = record.fact.delivery() else { continue };
            self.walks_on_record(delivery.id).await;
            let asked = self.orders.waiting.remove(&delivery.id).unwrap_or_default();
            let has_ended = self.ledger.standing(delivery.id) == Standing::Concluded;
            let mut left = Vec::new();
            for (wish, held) in asked {
                match wish {
                    Wish::Retry => self.tried(Box::new(delivery.clone()), held).await,
                    Wish::End if has_ended => self.orders.stop_again(delivery, held),
                    Wish::End => left.push((wish, held)),
                }
            }
            if !left.is_empty() {
                // It was in flight, and goes on: not any more.
                self.orders.waiting.insert(delivery.id, left);
                let attempts = attempts_of(&record.fact);
                self.end(delivery, attempts.saturating_add(1), &record.trace);
            }
        }
    }

    /// Whether a delivery is to be ended when it turns up, whoever brings it: it ends on the spot,
    /// also after everything about it was forgotten.
    pub(super) fn is_cancelled(&self, delivery: &DeliveryRef) -> bool {
        self.orders.cancels(delivery.id) || self.desk.is_cancelled_by_hand(delivery)
    }

    /// Ends an attempt that waits.
    pub(super) fn end_waiting(&mut self, Waiting { job, origin, place }: Waiting) {
        let source = match origin {
            Origin::Message(message) => pen::Source::Message(message, place),
            Origin::Feed(_) => pen::Source::Feed(place),
            Origin::Order => pen::Source::Order(Some(place)),
        };
        let trace = job.trace();
        self.end_by_hand((job.delivery, job.attempt.saturating_sub(1)), trace, source);
    }

    /// Puts on record that a person ended a delivery after so many attempts.
    pub(super) fn end_by_hand(
        &mut self,
        (delivery, attempts): (DeliveryRef, u32),
        trace: TraceContext,
        source: pen::Source,
    ) {
        let (conclusion, reason) = (Conclusion::Cancelled, ConclusionReason::ByHand);
        let ended = DeliveryConcluded { delivery, conclusion, attempts, reason };
        let fact = Fact::DeliveryConcluded(ended);
        let records = vec![Record { recorded_at: self.desk.now(), trace, fact }];
        self.pen.gather(Entry { records, source });
    }

    /// Ends a delivery whose next attempt has that number, unless the ledger knows better.
    fn end(&mut self, delivery: &DeliveryRef, attempt: u32, trace: &TraceContext) -> Ended {
        let id = delivery.id;
        if self.ledger.is_live(id) {
            let is_it = |waiting: &Waiting| waiting.job.delivery.id == id;
            let mut taken = self.lanes.take_out(delivery.endpoint, is_it, self.desk.now());
            taken.append(&mut self.early.give_up(is_it));
            let ended = if taken.is_empty() { Ended::Later } else { Ended::Now };
            for waiting in taken {
                self.end_waiting(waiting);
            }
            return ended;
        }
        let attempt = match self.ledger.standing(id) {
            Standing::Concluded => return Ended::Before,
            Standing::Next(next) => next,
            Standing::Unknown => attempt,
        };
        if !self.feeds.end(delivery) {
            return Ended::Later;
        }
        // What brings it meanwhile waits for its end.
        self.ledger.hold(id, attempt);
        self.feeds.came_back(delivery);
        let attempts = attempt.saturating_sub(1);
        self.end_by_hand((delivery.clone(), attempts), trace.clone(), pen::Source::Order(None));
        Ended::Now
    }

    /// Makes an attempt whose time has not come.
    async fn retry_now(&mut self, aim: Aim, held: Held) {
        if self.waits_for_feed(&aim) {
            return self.orders.let_go(held).redeliver(ROOM_WAIT).await;
        }
        let room = self.ration.take(Source::Due, 1, 0).and_then(|(mut places, _)| places.pop());
        let Some(place) = room else {
            return self.orders.let_go(held).redeliver(ROOM_WAIT).await;
        };
        let Aim { delivery, attempt, untouched: _, journal_sequence, trace } = aim;
        let (now, id) = (self.desk.now(), delivery.id);
        self.ledger.hold(id, attempt);
        self.feeds.came_back(&delivery);
        self.orders.wait(id, Wish::Retry, held);
        let retry =
            RetryDue { delivery, attempt, due_at: now, journal_sequence, trace, batch: None };
        let job = Job::later(retry);
        self.rulebook.renew(&self.desk);
        self.arrive(Waiting { job, origin: Origin::Order, place }, false, now);
    }

    /// Tells whether there is nothing to be done about a command: it was done, or the delivery is
    /// in flight, or ended.
    fn is_needless(&self, wish: Wish, aim: &Aim) -> bool {
        let id = aim.delivery.id;
        match (wish, self.ledger.standing(id)) {
            (_, Standing::Concluded) => true,
            (Wish::End, Standing::Unknown | Standing::Next(_)) => false,
            (Wish::Retry, Standing::Next(next)) => next != aim.attempt || self.ledger.is_live(id),
            // Its first attempt is about to be made, or as soon as its endpoint takes it.
            (Wish::Retry, Standing::Unknown) => {
                self.ledger.is_live(id) || (aim.untouched && !self.is_brought_by_feed(aim))
            }
        }
    }

    /// Tells whether a delivery is brought by its endpoint's feed, maybe much later.
    fn turns_up(&mut self, aim: &Aim) -> bool {
        let delivery = &aim.delivery;
        let ordering = self.rulebook.rules(&self.desk, delivery.endpoint).ordering;
        let is_fed = || self.feeds.whose(delivery, ordering != Ordering::None) != Whose::Task;
        let is_new = aim.untouched && self.ledger.standing(delivery.id) == Standing::Unknown;
        self.feeds.holds(delivery) || (is_new && is_fed())
    }
}

/// How many attempts of its delivery were made, by a fact about it.
fn attempts_of(fact: &Fact) -> u32 {
    match fact {
        Fact::AttemptMade(made) => made.attempt,
        Fact::DeliveryDeferred(deferred) => deferred.attempt.saturating_sub(1),
        Fact::DeliveryParked(parked) => parked.attempt.saturating_sub(1),
        Fact::DeliveryConcluded(concluded) => concluded.attempts,
        Fact::RetryScheduled(scheduled) => scheduled.attempt.saturating_sub(1),
        Fact::ShardClaimed(_) | Fact::ShardReleased(_) | Fact::EventRouted(_) => 0,
    }
}
