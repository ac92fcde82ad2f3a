//! The producer: publishes events as any software with a NATS client does.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use bytes::Bytes;
use fanfare_service::{Clock as _, SystemClock};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior};

use super::receiver::{DUE, NUMBER, SENT_AT};

/// How many publishes of the producer may be unconfirmed, in system and floor alike.
pub(crate) const PUBLISH_WINDOW: usize = 256;

/// What an event's data says to the receiver.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stamp {
    /// When it was published, in nanoseconds since the epoch; 0 is not looked at.
    pub(crate) sent_at: u64,
    /// Its number.
    pub(crate) number: Option<u64>,
    /// When it is wanted, in milliseconds since the epoch.
    pub(crate) due: Option<u64>,
}

/// An event's data: a JSON object of about that many bytes, with a stamp.
pub(crate) fn data(bytes: usize, stamp: Stamp) -> String {
    let mut text = format!("{{{SENT_AT}{}", stamp.sent_at);
    for (name, value) in [(NUMBER, stamp.number), (DUE, stamp.due)] {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _written = write!(text, ",{name}{value}");
        }
    }
    text.push_str(",\"fill\":\"");
    let fill = bytes.saturating_sub(text.len() + 2);
    text.extend(std::iter::repeat_n('x', fill));
    text.push_str("\"}");
    text
}

/// Publishes events of one type of one tenant.
#[derive(Clone)]
pub(crate) struct Producer {
    jetstream: jetstream::Context,
    subject: String,
    bytes: usize,
}

impl Producer {
    /// Connects, to publish events with data of that many bytes.
    pub(crate) async fn connect(url: &str, tenant: &str, kind: &str, bytes: usize) -> Result<Self> {
        let client = async_nats::connect(url).await.context("connect the producer")?;
        let subject = format!("fanfare.inbox.{tenant}.{kind}");
        Ok(Self { jetstream: jetstream::new(client), subject, bytes })
    }

    /// The same connection, for events of another type or tenant.
    pub(crate) fn of(&self, tenant: &str, kind: &str) -> Self {
        Self { subject: format!("fanfare.inbox.{tenant}.{kind}"), ..self.clone() }
    }

    /// Publishes as fast as they are acknowledged, and waits until the last is.
    pub(crate) async fn flood(&self, events: u64) -> Result<()> {
        self.flood_of(events, |number| Stamp { number: Some(number), ..Stamp::default() }).await
    }

    /// Like [`Producer::flood`], with a stamp for each number.
    pub(crate) async fn flood_of(&self, events: u64, stamp: impl Fn(u64) -> Stamp) -> Result<()> {
        self.publish_all((1..=events).map(|number| (self.subject.clone(), stamp(number)))).await
    }

    /// Like [`Producer::flood`], events of several types of a tenant in turn.
    pub(crate) async fn flood_types(
        &self,
        events: u64,
        tenant: &str,
        types: &[String],
    ) -> Result<()> {
        let subjects = types.iter().map(|kind| format!("fanfare.inbox.{tenant}.{kind}"));
        let subjects: Vec<String> = subjects.collect();
        let all = (1..=events).zip(subjects.iter().cycle());
        self.publish_all(all.map(|(_, subject)| (subject.clone(), Stamp::default()))).await
    }

    async fn publish_all(&self, events: impl Iterator<Item = (String, Stamp)>) -> Result<()> {
        stream::iter(events)
            .map(|(subject, stamp)| {
                let body = Bytes::from(data(self.bytes, stamp));
                async move { anyhow::Ok(self.jetstream.publish(subject, body).await?.await?) }
            })
            .buffer_unordered(PUBLISH_WINDOW)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .context("publish")
    }

    /// Publishes one event that carries the present time; its acknowledgement is not waited for.
    pub(crate) async fn one(&self) -> Result<()> {
        let stamp = Stamp { sent_at: SystemClock.now().as_nanos(), ..Stamp::default() };
        let body = Bytes::from(data(self.bytes, stamp));
        // Dropping the future of the acknowledgement does not undo the publish.
        drop(self.jetstream.publish(self.subject.clone(), body).await.context("publish")?);
        Ok(())
    }

    /// Publishes at an even rate for a while, each event with its time. Returns how many.
    pub(crate) async fn steadily(&self, rate: u32, span: Duration) -> Result<u64> {
        let mut ticks = ticks(rate);
        let begun = Instant::now();
        let mut published = 0;
        while begun.elapsed() < span {
            ticks.tick().await;
            self.one().await?;
            published += 1;
        }
        Ok(published)
    }
}

/// Even ticks, that many a second. Ticks that were missed are made up for: the load stays.
pub(crate) fn ticks(rate: u32) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_of_the_size_asked_for() {
        let stamp =
            Stamp { sent_at: 1_700_000_000_000_000_000, number: Some(7), due: Some(1_700_000) };
        let data = data(500, stamp);
        assert_eq!(data.len(), 500);
        let read: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(read["number"], 7);
        assert_eq!(read["due"], 1_700_000);
    }
}
