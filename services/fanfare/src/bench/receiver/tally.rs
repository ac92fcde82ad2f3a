//! What the receiver saw, by group of endpoints, and what their gates say.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_service::{Clock, SystemClock};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    DUE, NUMBER, SENT_AT,
    behaviour::{Behaviour, Decision, Gate, Kind},
};
use crate::bench::samples::{Sample, Samples};

/// How many requests of a group are kept one by one; more are only counted.
const SAMPLES_MAX: u64 = 4_000_000;

/// In which order numbered events came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The highest number that came.
    pub(crate) highest: u64,
    /// How many came after one with a higher number.
    pub(crate) behind: u64,
    /// How far the one that was furthest behind was behind the highest before it.
    pub(crate) furthest: u64,
}

/// Everything that the receiver knows.
pub(super) struct Tally {
    state: Mutex<State>,
}

struct State {
    begun: Instant,
    groups: BTreeMap<String, Group>,
    gates: BTreeMap<String, Gate>,
}

#[derive(Default)]
struct Group {
    requests: u64,
    /// How many were refused because it was too early.
    refused: u64,
    samples: Samples,
    order: Order,
}

impl Tally {
    pub(super) fn new() -> Self {
        let begun = Instant::now();
        let state = State { begun, groups: BTreeMap::new(), gates: BTreeMap::new() };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and decides what it gets.
    pub(super) fn received(&self, behaviour: &Behaviour, body: &[u8]) -> Decision {
        let now = SystemClock.now().as_nanos();
        let mut state = self.lock();
        let decision = state.decide(behaviour, body, now / 1_000_000);
        let at = u32::try_from(state.begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        let group = match state.groups.get_mut(&behaviour.group) {
            Some(group) => group,
            None => state.groups.entry(behaviour.group.clone()).or_default(),
        };
        group.requests += 1;
        if matches!(decision, Decision::Refuse { .. }) {
            group.refused += 1;
            return decision;
        }
        let since = match behaviour.kind {
            Kind::Due(_) => due_second(behaviour, body).map(|second| second * 1_000_000_000),
            Kind::Ok | Kind::Wait(_) | Kind::Status(_) | Kind::Never | Kind::Drip | Kind::Gate => {
                number_after(body, SENT_AT).filter(|nanos| *nanos > 0)
            }
        };
        let micros = since.map_or(0, |since| (now.saturating_sub(since) / 1_000).max(1));
        if group.samples.len() < SAMPLES_MAX {
            group.samples.push(Sample(at, u32::try_from(micros).unwrap_or(u32::MAX)));
        }
        if let Some(number) = number_after(body, NUMBER) {
            group.order.came(number);
        }
        decision
    }

    /// Answers what the benchmark asks, or does what it wants.
    pub(super) fn control(&self, path: &str) -> String {
        let mut parts = path.split('/').skip(1);
        let mut next = || parts.next().unwrap_or_default();
        let (what, group) = (next(), next());
        let number: u64 = next().parse().unwrap_or(0);
        let mut state = self.lock();
        let counted = state.groups.get(group);
        match what {
            "reset" => {
                state.groups.clear();
                state.gates.clear();
                state.begun = Instant::now();
            }
            "count" => return counted.map_or(0, |group| group.samples.len()).to_string(),
            "refused" => return counted.map_or(0, |group| group.refused).to_string(),
            "requests" => return counted.map_or(0, |group| group.requests).to_string(),
            "samples" => {
                let samples = counted.map(|group| &group.samples);
                return serde_json::to_string(samples.unwrap_or(&Samples::default()))
                    .unwrap_or_default();
            }
            "order" => {
                let order = counted.map(|group| group.order).unwrap_or_default();
                return serde_json::to_string(&order).unwrap_or_default();
            }
            "open" => state.set_gate(group, Gate::Open),
            "shut" => state.set_gate(group, Gate::Shut { retry_at: number }),
            "slow" => state.set_gate(group, Gate::Slow { wait: Duration::from_millis(number) }),
            _ => {}
        }
        String::new()
    }
}

impl State {
    fn set_gate(&mut self, group: &str, gate: Gate) {
        self.gates.insert(group.to_owned(), gate);
    }

    fn decide(&self, behaviour: &Behaviour, body: &[u8], now_ms: u64) -> Decision {
        match behaviour.kind {
            Kind::Ok => Decision::Answer(StatusCode::OK),
            Kind::Wait(wait) => Decision::AnswerAfter(wait),
            Kind::Status(status) => Decision::Answer(status),
            Kind::Never => Decision::Never,
            Kind::Drip => Decision::Drip,
            Kind::Gate => self.gates.get(&behaviour.group).copied().unwrap_or_default().decision(),
            Kind::Due(_) => match due_second(behaviour, body) {
                // That is about one event: 503 would be about the endpoint.
                Some(second) if now_ms < second * 1_000 => {
                    Decision::Refuse { status: StatusCode::TOO_EARLY, retry_at: second }
                }
                Some(_) | None => Decision::Answer(StatusCode::OK),
            },
        }
    }
}

impl Order {
    fn came(&mut self, number: u64) {
        if number < self.highest {
            self.behind += 1;
            self.furthest = self.furthest.max(self.highest - number);
        } else {
            self.highest = number;
        }
    }
}

/// The whole second at which an endpoint wants an event: HTTP knows no shorter times.
fn due_second(behaviour: &Behaviour, body: &[u8]) -> Option<u64> {
    let Kind::Due(later) = behaviour.kind else { return None };
    let due = number_after(body, DUE)?;
    Some((due + u64::try_from(later.as_millis()).unwrap_or(0)).div_ceil(1_000))
}

/// The number that stands behind a member's name.
fn number_after(body: &[u8], name: &str) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once(name)?;
    let end = rest.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(tally: &Tally, path: &str, body: &str) -> Decision {
        tally.received(&Behaviour::of(path), body.as_bytes())
    }

    #[test]
    fn the_producers_numbers_are_found_in_the_body() {
        let body = br#"{"data":{"sent_at":17,"number":4,"x":1}}"#;
        assert_eq!(number_after(body, SENT_AT), Some(17));
        assert_eq!(number_after(body, NUMBER), Some(4));
        assert_eq!(number_after(body, DUE), None);
    }

    #[test]
    fn groups_are_counted_apart() {
        let tally = Tally::new();
        for path in ["/ok/one/1", "/ok/one/2", "/never/two"] {
            post(&tally, path, "{}");
        }
        assert_eq!(tally.control("/count/one"), "2");
        assert_eq!(tally.control("/count/two"), "1");
        tally.control("/reset");
        assert_eq!(tally.control("/count/one"), "0");
    }

    #[test]
    fn a_gate_refuses_until_it_is_opened() {
        let tally = Tally::new();
        tally.control("/shut/storm/1700000000");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let refused = Decision::Refuse { status, retry_at: 1_700_000_000 };
        assert_eq!(post(&tally, "/gate/storm/1", "{}"), refused);
        tally.control("/open/storm");
        assert_eq!(post(&tally, "/gate/storm/1", "{}"), Decision::Answer(StatusCode::OK));
        assert_eq!(tally.control("/refused/storm"), "1");
        assert_eq!(tally.control("/count/storm"), "1");
        assert_eq!(tally.control("/requests/storm"), "2");
    }

    #[test]
    fn what_is_not_due_is_refused_until_its_second() {
        let tally = Tally::new();
        let later = SystemClock.now().as_millis() + 3_600_000;
        let body = format!(r#"{{"due":{later}}}"#);
        let retry_at = (later + 500).div_ceil(1_000);
        let refused = Decision::Refuse { status: StatusCode::TOO_EARLY, retry_at };
        assert_eq!(post(&tally, "/due/500000/1/late", &body), refused);
        let answered = Decision::Answer(StatusCode::OK);
        assert_eq!(post(&tally, "/due/500000/1/late", r#"{"due":1000}"#), answered);
    }

    #[test]
    fn events_behind_a_later_one_are_counted() {
        let mut order = Order::default();
        for number in [1, 2, 5, 3, 4, 6] {
            order.came(number);
        }
        assert_eq!(order, Order { highest: 6, behind: 2, furthest: 2 });
    }
}
