//! Events whose filters take long: they wait beside the intake, which goes on with all others.
//!
//! ```text
//! intake ─▶ in line, by tenant ─▶ read again ─▶ match ─▶ ask conditions ─▶ work
//!              ▲                                             │
//!              └────────────── what a turn had no time for ──┘
//! ```
//!
//! What waits is unsettled, and held: the log does not hand it out again as long as somebody says that
//! it is being worked on. Little of it is in memory. It is matched anew when its turn has come, which
//! gives the same, since whom an event is for is decided by when it was accepted. Of a suspect event
//! the record is asked again before anything is written, and what is on record by then counts. A turn writes nothing if what
//! it is about was not held in time: it is handed out again, as suspect. As many events can wait as
//! the log hands out unsettled; beyond that the intake waits for them. There is no order between
//! events, here or anywhere in fan-out.

mod lines;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{TenantId, Timestamp};
use fanfare_event_log::{ConfigView, EventLog, FeedsView, Settler};
use fanfare_service::{Clock, Joined as _};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tracing::debug;

use self::lines::{Lines, Waiting};
use crate::{
    conditions::Conditions,
    intake::{self, Taken},
    recorded::waiting::Waiting as Suspects,
    routes::Routes,
    work::{Batch, Item, Routing, Work},
};

/// How many groups of events are in hand at once.
const GROUPS_MAX: usize = 4;

/// How often what waits is held, within the time after which it is handed out again.
const HELD_TIMES: u32 = 3;

/// See the module.
pub(crate) struct Costly {
    tools: Tools,
    lines: Lines<Settler>,
    /// The suspect ones among them.
    suspects: Suspects,
    at_it: JoinSet<anyhow::Result<Turn>>,
    ticks: Interval,
    ack_wait: Duration,
    held: watch::Sender<Hold>,
}

/// What it takes to ask about events, and to write what becomes of them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tools {
    /// Where events are read again.
    pub(crate) log: EventLog,
    /// Tells when facts are recorded.
    pub(crate) clock: Arc<dyn Clock>,
    /// Whom events are for.
    pub(crate) routes: ConfigView<Routes>,
    /// Who reads events by itself.
    pub(crate) feeds: FeedsView,
    /// Asks what endpoints want to know of events.
    pub(crate) conditions: Conditions,
    /// Writes what was decided.
    pub(crate) work: Work,
}

/// When what waits and what is in hand was held for the last time.
#[derive(Clone, Copy, Debug)]
struct Hold {
    at: Instant,
    /// How often that was too late.
    lost: u64,
}

/// Tells whether what was taken in hand is nobody else's.
struct Held {
    latest: watch::Receiver<Hold>,
    lost: u64,
    patience: Duration,
}

impl Held {
    /// Tells whether it may be somebody else's by now: the process, or its connection, stood still.
    fn is_too_late(&self) -> bool {
        let Hold { at, lost } = *self.latest.borrow();
        lost > self.lost || at.elapsed() >= self.patience
    }
}

/// What comes next.
pub(crate) enum Next {
    /// A turn is over.
    Ended(Turn),
    /// What waits is to be held.
    Hold,
}

/// A turn that is over.
pub(crate) struct Turn {
    tenant: TenantId,
    group: Vec<u64>,
    left: Vec<Waiting<Settler>>,
    steps: u64,
}

impl Costly {
    /// Nothing waits. What is not held for so long is handed out again.
    ///
    /// Must be called inside a Tokio runtime.
    pub(crate) fn new(tools: Tools, ack_wait: Duration) -> Self {
        let mut ticks = interval(ack_wait / HELD_TIMES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (lines, at_it) = (Lines::new(), JoinSet::new());
        let held = watch::Sender::new(Hold { at: Instant::now(), lost: 0 });
        let suspects = Suspects::new(tools.log.clone());
        Self { tools, lines, suspects, at_it, ticks, ack_wait, held }
    }

    /// How many events wait or are in hand.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// When the oldest event was accepted that is not done with.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.lines.oldest()
    }

    /// Has events wait for their turn.
    pub(crate) fn add(&mut self, items: Vec<Item>) {
        for item in items {
            if let Some(looked_to) = item.suspect {
                self.suspects.add(&item.event, looked_to);
            }
            let tenant = item.event.event.tenant.clone();
            self.lines.add(&tenant, waiting(item));
        }
        self.begin();
    }

    /// Lets go of events whose routing turned out to be on record.
    pub(crate) fn leave_out(&mut self, items: &[Item]) {
        for Item { event, routing, .. } in items {
            if matches!(routing, Routing::OnRecord(_))
                && self.lines.remove(&event.event.tenant, event.sequence)
            {
                self.suspects.remove(&[event.sequence]);
            }
        }
    }

    /// Waits for what comes next. Cancel safe.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Next> {
        tokio::select! {
            Some(ended) = self.at_it.join_next() => {
                Ok(Next::Ended(ended.joined().context("ask about events")??))
            }
            _ = self.ticks.tick() => Ok(Next::Hold),
        }
    }

    /// Goes on with it.
    pub(crate) async fn go_on(&mut self, next: Next) {
        match next {
            Next::Ended(turn) => self.end(turn),
            Next::Hold => self.hold().await,
        }
        self.begin();
    }

    async fn hold(&mut self) {
        if self.is_too_late() {
            self.held.send_modify(|held| held.lost += 1);
            let forgotten = self.lines.forget_waiting();
            self.suspects.remove(&forgotten);
            debug!(forgotten = forgotten.len(), "what was not held in time is handed out again");
        }
        if !self.tools.log.is_connected() {
            // Nobody hears it: what waits may be handed out to others before long.
            return;
        }
        self.held.send_modify(|held| held.at = Instant::now());
        for settler in self.lines.settlers() {
            settler.hold().await;
        }
    }

    fn is_too_late(&self) -> bool {
        self.held().is_too_late()
    }

    fn held(&self) -> Held {
        let lost = self.held.borrow().lost;
        Held { latest: self.held.subscribe(), lost, patience: self.ack_wait }
    }

    /// Finishes what is in hand, which is little once the service stops, and hands back what waits.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.at_it.join_next().await {
            self.end(ended.joined().context("ask about events")??);
        }
        for settler in self.lines.settlers() {
            settler.clone().redeliver(Duration::ZERO).await;
        }
        Ok(())
    }

    /// Gives turns to those who may have one.
    fn begin(&mut self) {
        while self.at_it.len() < GROUPS_MAX
            && !self.is_too_late()
            && let Some((tenant, group)) = self.lines.take()
        {
            let (tools, suspects) = (self.tools.clone(), self.suspects.clone());
            self.at_it.spawn(tools.take_turn(suspects, (tenant, group), self.held()));
        }
    }

    fn end(&mut self, turn: Turn) {
        let Turn { tenant, group, left, steps } = turn;
        let is_left = |sequence: &u64| left.iter().any(|waiting| waiting.sequence == *sequence);
        let done: Vec<u64> = group.iter().copied().filter(|it| !is_left(it)).collect();
        self.suspects.remove(&done);
        self.lines.end((&tenant, &group), left, steps);
    }
}

impl Tools {
    /// Decides about some events of a tenant, as many as a turn has time for, and writes what becomes
    /// of them.
    async fn take_turn(
        self,
        suspects: Suspects,
        (tenant, waiting): (TenantId, Vec<Waiting<Settler>>),
        held: Held,
    ) -> anyhow::Result<Turn> {
        let group = waiting.iter().map(|waiting| waiting.sequence).collect();
        let mut unsettled = Vec::with_capacity(waiting.len());
        for Waiting { sequence, event, settler, .. } in waiting {
            let event = match event {
                Some(event) => Some(event),
                None => self.log.event(sequence).await.context("read an event again")?,
            };
            match event {
                Some(event) => unsettled.push(Taken { event, settler, suspect: None }),
                // It was removed, and nobody is to get it.
                None => settler.settle().await,
            }
        }
        let feeds = intake::confirmed(&self.feeds).await.context("confirm the feeds")?;
        let (items, config_revision) = self
            .routes
            .read(|routes| intake::decide_by((routes, feeds), unsettled, &BTreeMap::new()));
        let answered = self.conditions.answer_some(items).await.context("ask conditions")?;
        let items = recorded(&suspects, answered.decided).await?;
        if held.is_too_late() {
            return Ok(Turn { tenant, group, left: Vec::new(), steps: answered.steps });
        }
        if !items.is_empty() {
            let routed_at = self.clock.now();
            self.work.write(Batch { items, config_revision, routed_at }).await?;
        }
        let left = answered.left.into_iter().map(self::waiting).collect();
        Ok(Turn { tenant, group, left, steps: answered.steps })
    }
}

/// Gives suspect events the routing that was put on record while they waited.
async fn recorded(suspects: &Suspects, mut items: Vec<Item>) -> anyhow::Result<Vec<Item>> {
    let events: Vec<_> = items.iter().map(|item| item.event.clone()).collect();
    let found = suspects.find(&events).await.context("look up suspect events again")?;
    for item in &mut items {
        if let Some(found) = found.get(&item.event.event.id) {
            item.routing = Routing::OnRecord(found.clone());
        }
    }
    Ok(items)
}

fn waiting(item: Item) -> Waiting<Settler> {
    let Item { event, settler, .. } = item;
    Waiting {
        sequence: event.sequence,
        accepted_at: event.accepted_at,
        bytes: event.envelope.len(),
        event: Some(event),
        settler,
    }
}
