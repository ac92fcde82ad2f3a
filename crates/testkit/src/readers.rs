//! How often somebody began to read a stream: for those who count the cost of looking.

use anyhow::{Context as _, Result};
use async_nats::Subscriber;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::NatsServer;

/// Counts the consumers that are made on a stream.
pub struct Readers {
    client: async_nats::Client,
    made: Subscriber,
    count: usize,
}

impl NatsServer {
    /// Counts the consumers that are made on a stream from now on.
    pub async fn count_readers(&self, stream: &str) -> Result<Readers> {
        let client = async_nats::connect(self.url()).await.context("connect")?;
        let subject = format!("$JS.EVENT.ADVISORY.CONSUMER.CREATED.{stream}.*");
        let made = client.subscribe(subject).await.context("subscribe to advisories")?;
        client.flush().await.context("reach the server")?;
        Ok(Readers { client, made, count: 0 })
    }
}

impl Readers {
    /// Returns how many have been made.
    pub async fn count(&mut self) -> Result<usize> {
        self.client.flush().await.context("reach the server")?;
        while self.made.next().now_or_never().flatten().is_some() {
            self.count += 1;
        }
        Ok(self.count)
    }
}
