//! Asking what endpoints want to know of an event. Takes time, and is bounded by steps.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fanfare_domain::{
    Condition, EndpointId, Event, StoredEvent,
    condition::{Budget, Failed, Subject},
    trace::span::Told,
};
use fanfare_service::{Clock, Quiet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{
    counters::Counters,
    routes::Matches,
    work::{Item, Routing},
};

/// How often it is told in the log that an endpoint's filter failed, at most; all are counted.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How many steps all conditions about one event may take that does not wait by itself: less than a
/// millisecond or so.
const LIGHT_STEPS: u64 = 32 << 10;

/// How many steps are enough for a turn.
const TURN_STEPS: u64 = 16 << 20;

/// An event that may be waiting for answers.
pub(super) trait Open {
    /// The event, and whom it may be for; `None` if nothing is to be asked.
    fn open(&mut self) -> Option<(Arc<Event>, &mut Matches)>;
}

/// What came of a turn.
pub(crate) struct Answered<T> {
    /// Those that are decided.
    pub(crate) decided: Vec<T>,
    /// Those that are not.
    pub(crate) left: Vec<T>,
    /// How many steps that took.
    pub(crate) steps: u64,
}

/// Why nothing is decided about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undecided {
    /// It takes more steps than it may.
    Costly,
    /// Nobody wants to know any more.
    Stopped,
}

/// Asks, and tells what fails.
pub(super) struct Asker {
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    told: Quiet<EndpointId>,
}

impl Open for Item {
    fn open(&mut self) -> Option<(Arc<Event>, &mut Matches)> {
        match &mut self.routing {
            Routing::New(matches) if !matches.asking.is_empty() => {
                Some((Arc::clone(&self.event.event), matches))
            }
            Routing::New(_) | Routing::OnRecord(_) => None,
        }
    }
}

impl Open for (StoredEvent, Matches) {
    fn open(&mut self) -> Option<(Arc<Event>, &mut Matches)> {
        let (event, matches) = self;
        (!matches.asking.is_empty()).then_some((Arc::clone(&event.event), matches))
    }
}

impl Asker {
    /// Nothing was told yet.
    pub(super) fn new(clock: Arc<dyn Clock>, counters: Arc<Counters>) -> Self {
        Self { clock, counters, told: Quiet::new(TELL_EVERY) }
    }

    /// Decides about each event that takes few steps.
    pub(super) fn decide_light<T: Open>(
        &self,
        items: Vec<T>,
        ended: &CancellationToken,
    ) -> Answered<T> {
        let (mut decided, mut left, mut steps) = (Vec::with_capacity(items.len()), Vec::new(), 0);
        for mut item in items {
            match self.decide(&mut item, LIGHT_STEPS, ended) {
                Ok(taken) => {
                    steps += taken;
                    decided.push(item);
                }
                Err(Undecided::Costly | Undecided::Stopped) => left.push(item),
            }
        }
        Answered { decided, left, steps }
    }

    /// Decides about the first events, one at least, until that is enough for a turn.
    pub(super) fn decide_some<T: Open>(
        &self,
        items: Vec<T>,
        ended: &CancellationToken,
    ) -> Answered<T> {
        let (mut decided, mut steps) = (Vec::new(), 0);
        let mut items = items.into_iter();
        while steps < TURN_STEPS
            && let Some(mut item) = items.next()
        {
            match self.decide(&mut item, Budget::STEPS, ended) {
                Ok(taken) => {
                    steps += taken;
                    decided.push(item);
                }
                Err(Undecided::Costly | Undecided::Stopped) => {
                    let left = std::iter::once(item).chain(items).collect();
                    return Answered { decided, left, steps };
                }
            }
        }
        Answered { decided, left: items.collect(), steps }
    }

    /// Decides about an event, if that takes no more steps. Returns how many it took; reading the
    /// data counts too.
    fn decide(
        &self,
        item: &mut impl Open,
        steps: u64,
        ended: &CancellationToken,
    ) -> Result<u64, Undecided> {
        let Some((event, matches)) = item.open() else { return Ok(0) };
        if ended.is_cancelled() {
            return Err(Undecided::Stopped);
        }
        let subject = Subject::of(&event);
        let mut asking = Asking::about(&subject, Budget::of(steps));
        matches.answer(|endpoint, condition| {
            if ended.is_cancelled() {
                return Err(Undecided::Stopped);
            }
            self.holds(condition, &mut asking, (endpoint, &event))
        })?;
        let read = u64::try_from(event.data.len()).unwrap_or(u64::MAX);
        Ok(asking.steps().saturating_add(read))
    }

    /// Tells whether a condition holds; `None` if that would take more than all conditions about
    /// the event may.
    fn holds(
        &self,
        condition: &Condition,
        asking: &mut Asking<'_>,
        (endpoint, event): (EndpointId, &Event),
    ) -> Result<Option<bool>, Undecided> {
        let answer = asking.ask(condition);
        if asking.is_light() && matches!(answer, Err(Failed::TooCostlyTogether { .. })) {
            return Err(Undecided::Costly);
        }
        self.counters.count_asked();
        let failed = match answer {
            Ok(holds) => return Ok(Some(holds)),
            Err(failed) => failed,
        };
        self.tell(&failed, endpoint, event);
        Ok(match failed {
            Failed::TooCostlyTogether { .. } => None,
            Failed::Broken(_)
            | Failed::Missing(_)
            | Failed::Evaluation(_)
            | Failed::NotBoolean
            | Failed::TooCostly { .. }
            | Failed::Data(_)
            | Failed::Defect => Some(false),
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

/// What is asked about one event.
///
/// All of it has one budget, so that what thousands of costly filters take has an end. Filters that
/// say the same are asked once.
struct Asking<'a> {
    subject: &'a Subject,
    whole: Budget,
    budget: Budget,
    answers: BTreeMap<Box<str>, Result<bool, Failed>>,
}

impl<'a> Asking<'a> {
    fn about(subject: &'a Subject, budget: Budget) -> Self {
        Self { subject, whole: budget, budget, answers: BTreeMap::new() }
    }

    /// Whether what does not fit is to be asked later, with more.
    fn is_light(&self) -> bool {
        self.whole.left() < Budget::STEPS
    }

    /// How many steps were taken.
    fn steps(&self) -> u64 {
        self.whole.left().saturating_sub(self.budget.left())
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

#[cfg(test)]
mod tests {
    use fanfare_domain::{EventId, Timestamp, TraceContext};
    use fanfare_service::SystemClock;

    use super::*;
    use crate::routes;

    /// An expression that takes a step or more for each element.
    fn costly(than: usize) -> String {
        format!("data.list.all(it, it < 9 || it > {than})")
    }

    fn list(elements: usize) -> String {
        format!("{{\"list\":[{}]}}", vec!["7"; elements].join(","))
    }

    /// An event, and the endpoints that ask about it.
    fn open(data: &str, conditions: &[String]) -> (StoredEvent, Matches) {
        let event = Event {
            id: EventId::new(Timestamp::EPOCH, [1; 10]),
            tenant: "acme".parse().unwrap(),
            event_type: "a".parse().unwrap(),
            occurred_at: Timestamp::EPOCH,
            accepted_at: None,
            config_revision: None,
            data: String::from(data).into(),
            ordering_key: None,
            attributes: BTreeMap::new(),
            idempotency_key: None,
            trace: TraceContext::default(),
        };
        let (event, accepted_at) = (Arc::new(event), Timestamp::EPOCH);
        let stored = StoredEvent { event, sequence: 7, accepted_at, envelope: "".into() };
        (stored, routes::tests::asking(conditions))
    }

    fn asker() -> Asker {
        Asker::new(Arc::new(SystemClock), Arc::default())
    }

    #[test]
    fn what_takes_many_steps_is_left_and_decided_as_a_whole_later() {
        let small = open(&list(10), &[costly(1), costly(2)]);
        let large = open(&list(20_000), &[String::from("data.list[0] == 7"), costly(1)]);
        let asker = asker();
        let ended = CancellationToken::new();
        let Answered { decided, left, .. } = asker.decide_light(vec![large, small], &ended);
        assert_eq!(decided[0].1.targets.len(), 2);
        assert!(left[0].1.targets.is_empty(), "nothing is decided by halves");
        assert_eq!((decided.len(), left.len(), left[0].1.asking.len()), (1, 1, 2));
        assert_eq!(asker.counters.conditions_failed(), 0, "it is no failure");
        let Answered { decided, left, steps } = asker.decide_some(left, &ended);
        assert_eq!((decided[0].1.targets.len(), left.len()), (2, 0));
        assert!(steps > LIGHT_STEPS, "{steps}");
    }

    #[test]
    fn a_turn_ends_with_its_steps_and_nothing_is_lost() {
        let conditions: Vec<String> = (0..40).map(costly).collect();
        let mut left: Vec<_> = (0..5).map(|_| open(&list(20_000), &conditions)).collect();
        let (asker, ended) = (asker(), CancellationToken::new());
        let mut turns = Vec::new();
        while !left.is_empty() {
            let answered = asker.decide_some(left, &ended);
            assert!(answered.decided.iter().all(|(_, matches)| matches.targets.len() == 40));
            turns.push(answered.decided.len());
            left = answered.left;
        }
        assert_eq!(turns, [1; 5]);
    }

    #[test]
    fn nothing_more_is_asked_once_nobody_wants_to_know() {
        let (asker, ended) = (asker(), CancellationToken::new());
        ended.cancel();
        let all = vec![open("{}", &[String::from("true")]), open("{}", &[])];
        let Answered { decided, left, .. } = asker.decide_some(all, &ended);
        assert_eq!((decided.len(), left.len()), (0, 2));
        assert_eq!(asker.counters.conditions_asked(), 0);
    }

    #[test]
    fn what_is_asked_about_an_event_is_bounded_together_and_asked_once() {
        let data = list(20_000);
        let subject = Subject::new("a", &BTreeMap::new(), data.as_bytes());
        let costly = |than: usize| Condition::parse(&costly(than)).unwrap();
        let mut asking = Asking::about(&subject, Budget::whole());
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
        let before = asking.steps();
        assert_eq!(asking.ask(&costly(0)), Ok(true), "what was answered stays so");
        assert_eq!(asking.steps(), before);
        assert_eq!(asking.ask(&Condition::parse("type == 'a'").unwrap()), Ok(true));
        assert!(asking.steps() > before, "a cheap one fits still");
    }
}
