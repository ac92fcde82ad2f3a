//! The journal's facts about one event, told with the receivers' names.

use std::collections::BTreeMap;

use fanfare_domain::{
    Conclusion, EndpointId, EventId, Fact, Record, Timestamp,
    fact::{AttemptMade, DeliveryConcluded},
};

use crate::{
    client::{
        fact::outcome,
        text::{count, span, span_until},
    },
    output::{Output, Tone},
};

/// What has happened so far to one event.
#[derive(Debug)]
pub(super) struct Story {
    event: EventId,
    names: BTreeMap<EndpointId, &'static str>,
    begun: Option<Timestamp>,
    ended: BTreeMap<EndpointId, Conclusion>,
}

/// One sentence of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    after: String,
    who: &'static str,
    tone: Tone,
    what: String,
}

impl Story {
    /// Begins the story of an event.
    pub(super) const fn new(event: EventId, names: BTreeMap<EndpointId, &'static str>) -> Self {
        Self { event, names, begun: None, ended: BTreeMap::new() }
    }

    /// Tells whether a fact belongs to the story.
    pub(super) fn is_about(&self, fact: &Fact) -> bool {
        let routed = if let Fact::EventRouted(routed) = fact { Some(routed.event) } else { None };
        routed.or_else(|| Some(fact.delivery()?.event)) == Some(self.event)
    }

    /// Tells whether every delivery has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended.len() == self.names.len()
    }

    /// Goes on with a fact; `None` if it is not worth a sentence.
    pub(super) fn tell(&mut self, record: &Record) -> Option<Sentence> {
        let at = record.recorded_at;
        let begun = *self.begun.get_or_insert(at);
        let name = |endpoint| self.names.get(&endpoint).copied().unwrap_or("another");
        let (who, tone, what) = match &record.fact {
            Fact::EventRouted(routed) => {
                let targets = routed.targets.len() + routed.fed.len();
                let targets = u64::try_from(targets).unwrap_or(u64::MAX);
                ("", Tone::Accent, format!("routed to {}", count(targets, "endpoint")))
            }
            Fact::AttemptMade(made) => {
                let (tone, what) = attempt(at, made);
                (name(made.delivery.endpoint), tone, what)
            }
            Fact::DeliveryConcluded(concluded) => {
                self.ended.insert(concluded.delivery.endpoint, concluded.conclusion);
                let (tone, what) = conclusion(concluded);
                (name(concluded.delivery.endpoint), tone, what)
            }
            // The attempt before says so already.
            Fact::RetryScheduled(_) | Fact::ShardClaimed(_) | Fact::ShardReleased(_) => {
                return None;
            }
            Fact::DeliveryDeferred(deferred) => {
                (name(deferred.delivery.endpoint), Tone::Warning, String::from("put off"))
            }
            Fact::DeliveryParked(parked) => {
                (name(parked.delivery.endpoint), Tone::Warning, String::from("parked"))
            }
        };
        Some(Sentence { after: span(at.since(begun)), who, tone, what })
    }
}

fn attempt(at: Timestamp, made: &AttemptMade) -> (Tone, String) {
    let what = format!(
        "attempt {}: {} in {}",
        made.attempt,
        outcome(&made.outcome, &made.detail),
        span(made.duration)
    );
    match made.retry_at {
        Some(retry_at) => (Tone::Warning, format!("{what}; again in {}", span_until(retry_at, at))),
        None if made.outcome.status().is_some_and(|status| (200..300).contains(&status)) => {
            (Tone::Good, what)
        }
        None => (Tone::Bad, what),
    }
}

fn conclusion(concluded: &DeliveryConcluded) -> (Tone, String) {
    let attempts = count(concluded.attempts.into(), "attempt");
    let what = format!("{} after {attempts}", concluded.conclusion.as_str());
    let tone = match concluded.conclusion {
        Conclusion::Delivered => Tone::Good,
        Conclusion::Exhausted | Conclusion::Refused | Conclusion::Cancelled => Tone::Bad,
    };
    (tone, what)
}

impl Sentence {
    /// Writes it.
    pub(super) fn show(&self, output: Output) -> String {
        let after = output.tone(Tone::Dim, &format!("{:>8}", format!("+{}", self.after)));
        let who = output.tone(Tone::Strong, &format!("{:<7}", self.who));
        format!("  {after}  {who} {}", output.tone(self.tone, &self.what))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use fanfare_domain::{
        DeliveryId, DeliveryRef, Outcome, TraceContext,
        fact::{ConclusionReason, EventRouted},
    };

    use super::*;

    const BEGUN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn event() -> EventId {
        EventId::new(BEGUN, [1; 10])
    }

    fn endpoint() -> EndpointId {
        EndpointId::from_bytes([2; 16])
    }

    fn delivery() -> DeliveryRef {
        DeliveryRef {
            id: DeliveryId::of(event(), endpoint(), 0),
            tenant: "demo".parse().unwrap(),
            event: event(),
            event_sequence: 1,
            event_type: "invoice.paid".parse().unwrap(),
            endpoint: endpoint(),
            generation: 0,
            accepted_at: BEGUN,
        }
    }

    fn record(millis: u64, fact: Fact) -> Record {
        let recorded_at = BEGUN.saturating_add(Duration::from_millis(millis));
        Record { recorded_at, trace: TraceContext::default(), fact }
    }

    fn attempt(millis: u64, number: u32, status: u16, retry_in: Option<u64>) -> Record {
        let outcome = match status {
            200 => Outcome::Accepted { status },
            _ => Outcome::Refused { status, retry_after: None },
        };
        record(
            millis,
            Fact::AttemptMade(Box::new(AttemptMade {
                delivery: delivery(),
                attempt: number,
                started_at: BEGUN,
                duration: Duration::from_millis(3),
                timing: fanfare_domain::fact::Timing::default(),
                outcome,
                detail: String::new(),
                config_revision: 1,
                url: Arc::from("http://127.0.0.1/"),
                signature: String::new(),
                response_headers: Vec::new(),
                response_body: Bytes::new(),
                response_truncated: false,
                retry_at: retry_in
                    .map(|retry_in| BEGUN.saturating_add(Duration::from_millis(millis + retry_in))),
                batch: None,
                trace_sampled: None,
            })),
        )
    }

    #[test]
    fn a_story_is_told_from_routing_to_the_end() {
        let mut story = Story::new(event(), BTreeMap::from([(endpoint(), "shaky")]));
        let routed = Fact::EventRouted(EventRouted {
            event: event(),
            tenant: "demo".parse().unwrap(),
            event_sequence: 1,
            config_revision: 1,
            generation: 0,
            targets: vec![endpoint()],
            skipped: Vec::new(),
            held: Vec::new(),
            fed: Vec::new(),
            part: 0,
            parts: 1,
        });
        let concluded = Fact::DeliveryConcluded(DeliveryConcluded {
            delivery: delivery(),
            conclusion: Conclusion::Delivered,
            attempts: 2,
            reason: ConclusionReason::Outcome,
        });
        let output = Output { json: false, colours: false };
        let facts = [
            record(0, routed),
            attempt(4, 1, 500, Some(1_002)),
            attempt(1_020, 2, 200, None),
            record(1_020, concluded),
        ];
        let told: Vec<String> =
            facts.iter().filter_map(|fact| Some(story.tell(fact)?.show(output))).collect();
        let expected = [
            "     +0 ms          routed to 1 endpoint",
            "     +4 ms  shaky   attempt 1: 500 in 3 ms; again in 1 s",
            "      +1 s  shaky   attempt 2: 200 in 3 ms",
            "      +1 s  shaky   delivered after 2 attempts",
        ];
        assert_eq!(told, expected);
        assert!(story.is_over());
    }

    #[test]
    fn other_events_are_another_story() {
        let other = EventId::new(BEGUN, [9; 10]);
        let story = Story::new(other, BTreeMap::from([(endpoint(), "good")]));
        assert!(!story.is_about(&attempt(0, 1, 200, None).fact));
        assert!(!story.is_over());
    }
}
