//! Asking the conditions of endpoints about the content of events.
//!
//! That takes time, so it is done beside the runtime, without holding the configuration, and beside
//! the intake: events that nobody asks about do not wait for it. What takes few steps is asked as
//! it comes. What takes more waits in its tenant's line (see [`crate::costly`]), and is asked by
//! turns, a bounded part of the work each; so are the events of replays. Each of the three has turns
//! of its own, so that none of them waits for the others. What all conditions about one event take
//! together is bounded too: what is beyond counts as no match, or is left to the owner of an endpoint
//! that is fed.

mod asking;

use std::sync::Arc;

use anyhow::Context as _;
use fanfare_domain::StoredEvent;
use fanfare_service::{Clock, Joined as _};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

pub(crate) use self::asking::Answered;
use self::asking::Asker;
use crate::{
    counters::Counters,
    routes::Matches,
    work::{Item, Routing},
};

/// How many parts of the work are done at once, of what takes few steps, of what takes more, and of
/// replays.
const LIGHT_AT_ONCE: usize = 2;
const COSTLY_AT_ONCE: usize = 2;
const PAST_AT_ONCE: usize = 1;

/// How much an event may weigh whose conditions are asked as it comes.
const LIGHT_MAX: usize = 64 * 1_024;

/// How much one part of the work weighs that takes few steps; it has one event at least.
const PART_MAX: usize = 1 << 20;

/// How much an endpoint weighs that asks about an event, in bytes of data.
const ASKING: usize = 256;

/// Asks conditions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Conditions(Arc<Inner>);

struct Inner {
    asker: Asker,
    light: Semaphore,
    costly: Semaphore,
    past: Semaphore,
    stop: CancellationToken,
}

/// Events, by what they have to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Apart<T> {
    /// Nothing.
    pub(crate) ready: Vec<T>,
    /// Conditions that take few steps, as far as that can be seen.
    pub(crate) light: Vec<T>,
    /// Conditions about much data, or very many of them.
    pub(crate) costly: Vec<T>,
}

impl Conditions {
    /// Nothing was told yet. What takes long ends with `stop`.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            asker: Asker::new(clock, counters),
            light: Semaphore::new(LIGHT_AT_ONCE),
            costly: Semaphore::new(COSTLY_AT_ONCE),
            past: Semaphore::new(PAST_AT_ONCE),
            stop,
        }))
    }

    /// How many parts of the work may be done at once; more wait.
    pub(crate) const AT_ONCE: usize = LIGHT_AT_ONCE + COSTLY_AT_ONCE + PAST_AT_ONCE;

    /// How many parts of the work are being done.
    pub(crate) fn under_way(&self) -> usize {
        let Inner { light, costly, past, .. } = &*self.0;
        let free = [light, costly, past].map(Semaphore::available_permits);
        Self::AT_ONCE.saturating_sub(free.into_iter().sum())
    }

    /// Decides what takes few steps; what takes more is left as it is. Cancel safe: items that are
    /// dropped are handed out again.
    pub(crate) async fn answer(&self, items: Vec<Item>) -> anyhow::Result<Answered<Item>> {
        let (mut decided, mut left, mut steps) = (Vec::with_capacity(items.len()), Vec::new(), 0);
        if items.iter().all(|item| weight(item) == 0) {
            return Ok(Answered { decided: items, left, steps });
        }
        for part in parts(items, weight) {
            let turn = self.0.light.acquire().await.context("wait for a turn")?;
            let (inner, ended) = (Arc::clone(&self.0), CancellationToken::new());
            let _ends = ended.clone().drop_guard();
            let asking = spawn_blocking(move || inner.asker.decide_light(part, &ended));
            let some = asking.await.joined().context("ask conditions")?;
            drop(turn);
            steps += some.steps;
            decided.extend(some.decided);
            left.extend(some.left);
        }
        Ok(Answered { decided, left, steps })
    }

    /// Decides about the first of some events, one at least unless the service stops, for as many
    /// steps as a turn has. Cancel safe.
    pub(crate) async fn answer_some(&self, items: Vec<Item>) -> anyhow::Result<Answered<Item>> {
        let turn = self.0.costly.acquire().await.context("wait for a turn")?;
        let (inner, ended) = (Arc::clone(&self.0), self.0.stop.child_token());
        let _ends = ended.clone().drop_guard();
        let asking = spawn_blocking(move || inner.asker.decide_some(items, &ended));
        let answered = asking.await.joined().context("ask conditions")?;
        drop(turn);
        Ok(answered)
    }

    /// Decides about events that are replayed, by turns. Cancel safe: what is being asked then ends
    /// with the condition that it is at.
    pub(crate) async fn decide(
        &self,
        matched: Vec<(StoredEvent, Matches)>,
    ) -> anyhow::Result<Vec<(StoredEvent, Matches)>> {
        if matched.iter().all(|(_, matches)| matches.asking.is_empty()) {
            return Ok(matched);
        }
        let (mut left, mut decided) = (matched, Vec::new());
        while !left.is_empty() {
            let turn = self.0.past.acquire().await.context("wait for a turn")?;
            let (inner, ended) = (Arc::clone(&self.0), CancellationToken::new());
            let _ends = ended.clone().drop_guard();
            let asking = spawn_blocking(move || inner.asker.decide_some(left, &ended));
            let some = asking.await.joined().context("ask conditions")?;
            drop(turn);
            decided.extend(some.decided);
            left = some.left;
        }
        Ok(decided)
    }
}

impl<T> Apart<T> {
    fn by(items: Vec<T>, weight: impl Fn(&T) -> usize) -> Self {
        let (mut ready, mut light, mut costly) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            match weight(&item) {
                0 => ready.push(item),
                1..=LIGHT_MAX => light.push(item),
                _ => costly.push(item),
            }
        }
        Self { ready, light, costly }
    }
}

impl Apart<Item> {
    /// Sorts items by what they have to wait for.
    pub(crate) fn of(items: Vec<Item>) -> Self {
        Self::by(items, weight)
    }
}

/// How much asking about an item weighs, as far as that can be seen from outside: 0 if nobody asks.
fn weight(item: &Item) -> usize {
    match &item.routing {
        Routing::New(matches) if matches.asking.is_empty() => 0,
        Routing::New(matches) => {
            let asking = matches.asking.len().saturating_mul(ASKING);
            asking.saturating_add(item.event.event.data.len())
        }
        Routing::OnRecord(_) => 0,
    }
}

/// Cuts items into parts of bounded weight.
fn parts<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut sum) = (Vec::new(), Vec::new(), 0_usize);
    for item in items {
        let weight = weight(&item);
        if sum.saturating_add(weight) > PART_MAX && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            sum = 0;
        }
        sum = sum.saturating_add(weight);
        part.push(item);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_nothing_waits_for_nobody_and_who_asks_much_in_line() {
        let apart = |weights: &[usize]| Apart::by(weights.to_vec(), |weight| *weight);
        let heavy = LIGHT_MAX + 1;
        let found = apart(&[0, heavy, 7, 0, LIGHT_MAX, heavy + 1]);
        let (ready, light) = (vec![0, 0], vec![7, LIGHT_MAX]);
        assert_eq!(found, Apart { ready, light, costly: vec![heavy, heavy + 1] });
    }

    #[test]
    fn a_part_is_bounded_and_nothing_is_lost() {
        let weights: Vec<usize> = [LIGHT_MAX; 50].into_iter().chain([PART_MAX * 3, 1, 1]).collect();
        let parts = parts(weights.clone(), |weight| *weight);
        assert_eq!(parts.concat(), weights, "the order stays");
        for part in &parts {
            assert!(part.len() == 1 || part.iter().sum::<usize>() <= PART_MAX, "{part:?}");
        }
    }
}
