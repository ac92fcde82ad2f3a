//! Listening to what others say to the servers.

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};

/// Everything that is said under a subject, questions to the servers included.
pub struct Overheard {
    client: Client,
    heard: Subscriber,
}

impl Overheard {
    /// Listens from now on. `subject` may hold wildcards.
    pub async fn on(url: String, subject: &str) -> Result<Self> {
        let client = async_nats::connect(url).await?;
        let heard = client.subscribe(subject.to_owned()).await?;
        let overheard = Self { client, heard };
        overheard.catch_up().await?;
        Ok(overheard)
    }

    /// Waits for something to be said, and returns its subject.
    pub async fn next(&mut self) -> Result<String> {
        let heard = self.heard.next().await.context("the connection is open")?;
        Ok(heard.subject.to_string())
    }

    /// The subjects of all that was said since the last call.
    pub async fn all(&mut self) -> Result<Vec<String>> {
        self.catch_up().await?;
        let ready = std::iter::from_fn(|| self.heard.next().now_or_never().flatten());
        Ok(ready.map(|heard| heard.subject.to_string()).collect())
    }

    /// That nobody answers is told after all that was said before.
    async fn catch_up(&self) -> Result<()> {
        let asked = self.client.request("nobody.listens", Bytes::new()).await;
        let kind = asked.err().map(|error| error.kind());
        ensure!(kind == Some(RequestErrorKind::NoResponders), "{kind:?}");
        Ok(())
    }
}
