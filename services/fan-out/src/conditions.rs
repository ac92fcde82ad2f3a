//! Asking the conditions of endpoints about the content of events.
//!
//! That takes time, so it is done beside the runtime, without holding the configuration, and beside
//! the intake: events that nobody asks about do not wait for it, those that are asked about quickly
//! do not wait for others, and whatever takes longer goes on by itself. A few are asked at once; in
//! turn, a bounded part of the work each.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    Condition, EndpointId, Event, StoredEvent,
    condition::{Failed, Subject},
    trace::span::Told,
};
use fanfare_service::{Clock, Quiet};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::{debug, warn};

use crate::{
    counters::Counters,
    routes::Matches,
    work::{Item, Routing},
};

/// How often it is told in the log that an endpoint's filter failed, at most; all are counted.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How many parts of the work are done at once.
const AT_ONCE: usize = 2;

/// How many bytes of data may be looked at by conditions for one event, so that others wait with it.
const LIGHT_MAX: usize = 64 * 1_024;

/// How many for one part of the work, which has one event at least.
const PART_MAX: usize = 1 << 20;

/// Asks conditions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Conditions(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    told: Quiet<EndpointId>,
    turns: Semaphore,
}

impl Conditions {
    /// Nothing was told yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, counters: Arc<Counters>) -> Self {
        let (told, turns) = (Quiet::new(TELL_EVERY), Semaphore::new(AT_ONCE));
        Self(Arc::new(Inner { clock, counters, told, turns }))
    }

    /// Decides whatever depends on content. Cancel safe: items that are dropped are handed out again.
    pub(crate) async fn answer(&self, items: Vec<Item>) -> anyhow::Result<Vec<Item>> {
        if !items.iter().any(|item| weight(item) > 0) {
            return Ok(items);
        }
        let mut answered = Vec::with_capacity(items.len());
        for mut part in parts(items, weight) {
            let _turn = self.0.turns.acquire().await.context("wait for a turn")?;
            let inner = Arc::clone(&self.0);
            let answer = move || {
                for item in &mut part {
                    inner.answer(item);
                }
                part
            };
            answered.extend(spawn_blocking(answer).await.context("asking them panicked")?);
        }
        Ok(answered)
    }

    /// The same for events that are replayed.
    pub(crate) async fn decide(
        &self,
        mut matched: Vec<(StoredEvent, Matches)>,
    ) -> anyhow::Result<Vec<(StoredEvent, Matches)>> {
        if matched.iter().all(|(_, matches)| matches.asking.is_empty()) {
            return Ok(matched);
        }
        let inner = Arc::clone(&self.0);
        let answer = move || {
            for (event, matches) in &mut matched {
                let event = &event.event;
                let subject = Subject::of(event);
                matches.answer(|endpoint, condition| {
                    inner.holds(condition, &subject, (endpoint, event))
                });
            }
            matched
        };
        spawn_blocking(answer).await.context("asking conditions panicked")
    }
}

/// Sorts items by what they have to wait for: nothing, a little, or each for itself.
pub(crate) fn apart(items: Vec<Item>) -> Vec<Vec<Item>> {
    apart_by(items, weight)
}

fn apart_by<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut ready, mut light, mut heavy) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match weight(&item) {
            0 => ready.push(item),
            1..=LIGHT_MAX => light.push(item),
            _ => heavy.push(Vec::from([item])),
        }
    }
    let together = [ready, light].into_iter().filter(|items| !items.is_empty());
    together.chain(heavy).collect()
}

/// How many bytes of data conditions will look at; 0 if there are none.
fn weight(item: &Item) -> usize {
    match &item.routing {
        Routing::New(matches) => {
            let bytes = item.event.event.data.len().saturating_add(1);
            bytes.saturating_mul(matches.asking.len())
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

impl Inner {
    fn answer(&self, item: &mut Item) {
        let event = Arc::clone(&item.event.event);
        if let Routing::New(matches) = &mut item.routing
            && !matches.asking.is_empty()
        {
            let subject = Subject::of(&event);
            matches
                .answer(|endpoint, condition| self.holds(condition, &subject, (endpoint, &event)));
        }
    }

    fn holds(
        &self,
        condition: &Condition,
        subject: &Subject,
        (endpoint, event): (EndpointId, &Event),
    ) -> bool {
        self.counters.count_asked();
        condition.judge(subject).unwrap_or_else(|failed| {
            self.tell(&failed, endpoint, event);
            false
        })
    }

    /// Says nothing of the data: what is missing or does not fit may quote it.
    fn tell(&self, failed: &Failed, endpoint: EndpointId, event: &Event) {
        let failures = self.counters.count_failed();
        let reason = failed.kind();
        if self.told.may_tell(endpoint, self.clock.now()) {
            warn!(
                tenant_id = %event.tenant,
                endpoint_id = %endpoint,
                event_id = %event.id,
                trace_id = %Told::of(event).place().trace,
                reason,
                failures,
                "a filter gave no answer about an event, which counts as no match"
            );
        } else {
            debug!(endpoint_id = %endpoint, event_id = %event.id, reason, "a filter gave no answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_nothing_waits_for_nobody_and_who_asks_much_for_itself() {
        let apart = |weights: &[usize]| apart_by(weights.to_vec(), |weight| *weight);
        assert_eq!(apart(&[0, 0]), [[0, 0]]);
        assert_eq!(apart(&[]), Vec::<Vec<usize>>::new());
        let heavy = LIGHT_MAX + 1;
        assert_eq!(
            apart(&[0, heavy, 7, 0, LIGHT_MAX, heavy]),
            [vec![0, 0], vec![7, LIGHT_MAX], vec![heavy], vec![heavy]]
        );
    }

    #[test]
    fn a_turn_is_bounded_and_nothing_is_lost() {
        let weights: Vec<usize> = [LIGHT_MAX; 50].into_iter().chain([PART_MAX * 3, 1, 1]).collect();
        let parts = parts(weights.clone(), |weight| *weight);
        assert_eq!(parts.concat(), weights, "the order stays");
        for part in &parts {
            assert!(part.len() == 1 || part.iter().sum::<usize>() <= PART_MAX, "{part:?}");
        }
    }
}
