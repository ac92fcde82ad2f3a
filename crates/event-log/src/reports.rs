//! What came of requests that ran on after their shard was given away.
//!
//! ```text
//! request  <prefix>.owner.<shard>.report    headers name the delivery and the attempt;
//!                                           the payload is a batch of facts, or empty
//! answer   empty                            once that is on record, or is not waited for any more
//! ```
//!
//! Only the owner of a shard may write its facts, so whoever had it before tells the owner. Plain
//! messages: a report that is lost is sent again, until its sender knows or its time is over.

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, HeaderValue, Message, Subject, Subscriber,
    client::{Request, RequestErrorKind},
};
use bytes::Bytes;
use fanfare_domain::{DeliveryId, Shard, fact::AttemptReport};
use futures_util::StreamExt as _;
use tracing::{debug, warn};

use crate::{EventLog, ReadError, Topology, topology::header};

/// The reports to the owner of a shard.
pub struct Reports {
    topology: Topology,
    client: Client,
    messages: Subscriber,
}

/// A report that came.
pub struct Reported {
    /// What it says.
    pub report: AttemptReport,
    /// Answers it.
    pub receipt: Receipt,
}

/// Tells who reported that they need not repeat it. Dropping it makes them repeat it.
pub struct Receipt {
    client: Client,
    reply: Subject,
}

impl EventLog {
    /// Takes reports about a shard. What is sent after this returns comes.
    pub async fn reports(&self, shard: Shard) -> Result<Reports, ReadError> {
        let subject = self.topology().owner_report(shard);
        let client = self.inner.client.clone();
        let refused = |source: async_nats::Error| crate::cas::refused(&subject, source);
        let messages = client.subscribe(subject.clone()).await.map_err(|e| refused(e.into()))?;
        client.flush().await.map_err(|error| refused(error.into()))?;
        Ok(Reports { topology: self.topology().clone(), client, messages })
    }

    /// Tells the owner of a shard what came of a request; returns whether it answered within the
    /// time. To be repeated until it did.
    pub async fn report(&self, shard: Shard, report: &AttemptReport, time: Duration) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::DELIVERY, report.delivery.to_string());
        headers.insert(header::ATTEMPT, report.attempt.to_string());
        let payload = match &*report.records {
            [] => Bytes::new(),
            records => fanfare_proto::encode_facts(records),
        };
        let request = Request::new().headers(headers).payload(payload).timeout(Some(time));
        let subject = self.topology().owner_report(shard);
        match self.inner.client.send_request(subject, request).await {
            Ok(_) => true,
            Err(error) if error.kind() == RequestErrorKind::NoResponders => false,
            Err(error) => {
                debug!(%shard, %error, "a report was not answered");
                false
            }
        }
    }
}

impl Reports {
    /// Waits for a report; `None` once the log is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Reported> {
        loop {
            let message = self.messages.next().await?;
            let reply = message.reply.clone().filter(|reply| self.topology.may_answer(reply));
            let Some(reply) = reply else { continue };
            if let Some(report) = read(message) {
                let receipt = Receipt { client: self.client.clone(), reply };
                return Some(Reported { report, receipt });
            }
            warn!("a report about an attempt cannot be read");
        }
    }
}

impl Receipt {
    /// Answers. Queued, not waited for.
    pub async fn give(self) {
        if let Err(error) = self.client.publish(self.reply, Bytes::new()).await {
            debug!(%error, "a report was not answered");
        }
    }
}

/// Reads a report, all of whose facts must be about its delivery.
fn read(message: Message) -> Option<AttemptReport> {
    let headers = message.headers?;
    let text = |name| headers.get(name).map(HeaderValue::as_str);
    let delivery: DeliveryId = text(header::DELIVERY)?.parse().ok()?;
    let attempt = text(header::ATTEMPT)?.parse().ok()?;
    let records = match message.payload {
        payload if payload.is_empty() => Vec::new(),
        payload => fanfare_proto::decode_journal(payload).ok()?,
    };
    let about = |of: &fanfare_domain::DeliveryRef| of.id == delivery;
    let is_about_it = records.iter().all(|record| record.fact.delivery().is_some_and(about));
    is_about_it.then_some(AttemptReport { delivery, attempt, records })
}
