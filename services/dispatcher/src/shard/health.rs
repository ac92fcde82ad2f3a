//! Telling how an endpoint does.

use fanfare_domain::{BreakerState, EndpointId, Health};
use fanfare_event_log::HealthQuestion;

use super::ShardWorker;
use crate::lanes::Phase;

impl ShardWorker {
    /// Answers a question: what is to be said is settled when this is called.
    pub(super) fn tell_health(
        &self,
        question: HealthQuestion,
    ) -> impl Future<Output = ()> + Send + use<> {
        let health = self.health(question.endpoint);
        async move { question.answer(&health).await }
    }

    fn health(&self, endpoint: EndpointId) -> Health {
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let early = self.early.count(|waiting| waiting.job.delivery.endpoint == endpoint);
        let Some(lane) = self.lanes.health(endpoint, self.desk.now()) else {
            let concurrency = self.rulebook.rules(&self.desk, endpoint).concurrency;
            return Health { held: count(early), ..Health::unburdened(concurrency) };
        };
        Health {
            breaker: match lane.breaker {
                Phase::Closed => BreakerState::Closed,
                Phase::Open => BreakerState::Open,
                Phase::Recovering => BreakerState::HalfOpen,
            },
            since: lane.since,
            window: lane.window,
            in_flight: count(lane.in_flight),
            held: count(lane.firsts + lane.retries + early),
            quiet_until: lane.quiet_until,
        }
    }
}
