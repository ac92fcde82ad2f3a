//! Asking the conditions of endpoints about the content of events.
//!
//! That takes time, so it is done beside the runtime, without holding the configuration, and beside
//! the intake: events that nobody asks about do not wait for it, those that are asked about quickly
//! do not wait for others, and whatever takes longer goes on by itself. A few are asked at once; in
//! turn, a bounded part of the work each. What all conditions about one event take together is bounded
//! too: what is beyond counts as no match, or is left to the owner of an endpoint that is fed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_domain::{
    Condition, EndpointId, Event, StoredEvent,
    condition::{Budget, Failed, Subject},
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

    /// How many parts of the work may be done at once; more wait.
    pub(crate) const AT_ONCE: usize = AT_ONCE;

    /// How many parts of the work are being done.
    pub(crate) fn under_way(&self) -> usize {
        AT_ONCE.saturating_sub(self.0.turns.available_permits())
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
                let mut asking = Asking::about(&subject);
                matches.answer(|endpoint, condition| {
                    inner.holds(condition, &mut asking, (endpoint, event))
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

/// What is asked about one event.
///
/// All of it has one budget, so that a tenant with thousands of costly filters does not stop others.
/// Filters that say the same are asked once.
struct Asking<'a> {
    subject: &'a Subject,
    budget: Budget,
    answers: BTreeMap<Box<str>, Result<bool, Failed>>,
}

impl<'a> Asking<'a> {
    fn about(subject: &'a Subject) -> Self {
        Self { subject, budget: Budget::whole(), answers: BTreeMap::new() }
    }

    fn ask(&mut self, condition: &Condition) -> Result<bool, Failed> {
        if let Some(known) = self.answers.get(condition.text()) {
            return known.clone();
        }
        let answer = condition.judge_within(self.subject, &mut self.budget);
        self.answers.insert(Box::from(condition.text()), answer.clone());
        answer
    }
}

impl Inner {
    fn answer(&self, item: &mut Item) {
        let event = Arc::clone(&item.event.event);
        if let Routing::New(matches) = &mut item.routing
            && !matches.asking.is_empty()
        {
            let subject = Subject::of(&event);
            let mut asking = Asking::about(&subject);
            matches.answer(|endpoint, condition| {
                self.holds(condition, &mut asking, (endpoint, &event))
            });
        }
    }

    /// Tells whether a condition holds; `None` if that would take more than is left for the event.
    fn holds(
        &self,
        condition: &Condition,
        asking: &mut Asking<'_>,
        (endpoint, event): (EndpointId, &Event),
    ) -> Option<bool> {
        self.counters.count_asked();
        let failed = match asking.ask(condition) {
            Ok(holds) => return Some(holds),
            Err(failed) => failed,
        };
        self.tell(&failed, endpoint, event);
        match failed {
            Failed::TooCostlyTogether { .. } => None,
            Failed::Broken(_)
            | Failed::Missing(_)
            | Failed::Evaluation(_)
            | Failed::NotBoolean
            | Failed::TooCostly { .. }
            | Failed::Data(_)
            | Failed::Defect => Some(false),
        }
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

    #[test]
    fn what_is_asked_about_an_event_is_bounded_together_and_asked_once() {
        let data = format!("{{\"list\":[{}]}}", vec!["7"; 20_000].join(","));
        let subject = Subject::new("a", &BTreeMap::new(), data.as_bytes());
        let costly = |than: usize| {
            Condition::parse(&format!("data.list.all(it, it < 9 || it > {than})")).unwrap()
        };
        let mut asking = Asking::about(&subject);
        let mut answered = 0;
        let beyond = loop {
            match asking.ask(&costly(answered)) {
                Ok(holds) => assert!(holds),
                Err(failed) => break failed,
            }
            answered += 1;
            assert!(answered < 10_000, "there is no end");
        };
        assert_eq!(beyond, Failed::TooCostlyTogether { limit: Budget::STEPS });
        assert!(answered > 50, "{answered}");
        let before = asking.budget;
        assert_eq!(asking.ask(&costly(0)), Ok(true), "what was answered stays so");
        assert_eq!(asking.ask(&Condition::parse("type == 'a'").unwrap()), Ok(true));
        assert!(format!("{before:?}") != format!("{:?}", asking.budget), "a cheap one fits still");
    }
}
