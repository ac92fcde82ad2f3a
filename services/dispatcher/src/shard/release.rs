//! Giving a shard away.
//!
//! Nothing new is begun. What ends within a moment goes on record as usual; requests that take
//! longer run on, and the next owner learns of them from the last facts that we write.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Timestamp,
    fact::{InFlight, LimitState},
};
use fanfare_event_log::{AppendError, JournalWriter, PublishError};
use tokio::time::{Instant, sleep};

use super::ShardWorker;
use crate::{
    lanes::{Flight, Learnt, RateState},
    leftovers::Leftovers,
    legacy::{self, MARGIN},
};

/// How long requests are waited for. Meanwhile the shard's lanes stand.
const DRAIN: Duration = Duration::from_millis(400);

impl ShardWorker {
    /// Writes the last facts, and gives back what waits. What is returned has to be seen through.
    pub(super) async fn release(mut self) -> Result<Leftovers> {
        self.orders.close();
        let mut drained = pin!(sleep(DRAIN));
        while self.attempts.busy() > 0 {
            self.pen.write(&mut self.messages, fanfare_event_log::record_length);
            tokio::select! {
                done = self.attempts.done() => self.finish(done),
                written = self.pen.written() => {
                    self.recorded(&written.context("record attempts")?).await;
                }
                () = &mut drained => break,
            }
        }
        let in_flight = self.close();
        while !self.pen.is_idle() {
            self.pen.write(&mut self.messages, fanfare_event_log::record_length);
            let written = self.pen.written().await;
            self.recorded(&written.context("record attempts")?).await;
        }
        let requests = in_flight.values().flat_map(|(deliveries, _)| deliveries).copied().collect();
        let writer = self.say_what_is_left(requests).await?;
        let waiting = self.messages.abandon().into_iter().chain(self.ahead.abandon());
        for settler in waiting.chain(self.orders.abandon()) {
            settler.redeliver(Duration::ZERO).await;
        }
        self.commands.stop().await;
        self.tasks.stop().await;
        self.due.stop().await;
        let (shard, log) = (self.shard, self.desk.log().clone());
        Ok(Leftovers { shard, log, writer, attempts: self.attempts, in_flight })
    }

    /// Lets no request begin any more; returns those that were begun with their deliveries, and
    /// when each is over.
    fn close(&mut self) -> BTreeMap<Flight, (Vec<InFlight>, Instant)> {
        while let Some(finished) = self.attempts.done_already() {
            self.finish(Ok(finished));
        }
        let (now, instant) = (self.desk.now(), Instant::now());
        let mut in_flight = BTreeMap::new();
        for (flight, flying) in std::mem::take(&mut self.flying) {
            match flying.progress.close() {
                Some(ends_by) => {
                    let until = instant + ends_by.saturating_add(MARGIN).since(now);
                    in_flight.insert(flight, (flying.requests(ends_by), until));
                }
                None => drop(flying.worker.map(|worker| worker.abort())),
            }
        }
        in_flight
    }

    /// Where rate limits stand, which endpoints asked to be left alone, and what was learnt of them.
    fn limits(&self, now: Timestamp) -> Vec<LimitState> {
        let none = |endpoint| LimitState {
            endpoint,
            gate: Timestamp::EPOCH,
            plan: Timestamp::EPOCH,
            quiet_until: None,
            breaker: None,
            window: None,
        };
        let mut limits = BTreeMap::new();
        for (endpoint, RateState { gate, plan }) in self.lanes.rate_states(now) {
            limits.insert(endpoint, LimitState { gate, plan, ..none(endpoint) });
        }
        for (endpoint, until) in self.lanes.quiet(now) {
            limits.entry(endpoint).or_insert_with(|| none(endpoint)).quiet_until = Some(until);
        }
        for (endpoint, Learnt { breaker, window }) in self.lanes.learnt() {
            let limit = limits.entry(endpoint).or_insert_with(|| none(endpoint));
            (limit.breaker, limit.window) = (breaker, window);
        }
        limits.into_values().collect()
    }

    /// Writes the last facts: what is in flight, also of owners before us, and the rate limits.
    async fn say_what_is_left(
        &mut self,
        mut requests: Vec<InFlight>,
    ) -> Result<Option<JournalWriter>> {
        let Some(mut writer) = self.pen.take_writer() else { return Ok(None) };
        requests.extend(self.foreign.iter());
        let now = self.desk.now();
        let limits = self.limits(now);
        let claim = (self.shard, writer.epoch());
        let left = (self.lanes.since(), &*limits);
        for facts in legacy::release(claim, &requests, left, now).chunks(legacy::TOGETHER_MAX) {
            match writer.append(facts).await {
                Ok(_) => {}
                Err(AppendError::Refused(error @ PublishError::Full { .. })) => {
                    tracing::warn!(%error, "a shard is given away without a word");
                    break;
                }
                Err(error) => return Err(error).context("record what is left"),
            }
        }
        tracing::debug!(
            shard = self.shard.index(),
            in_flight = requests.len(),
            "gave a shard away"
        );
        Ok(Some(writer))
    }
}
