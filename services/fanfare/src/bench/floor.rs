//! The floors: what the machine does with the same client, receiver and broker, and no logic.
//!
//! *POST only* sends requests and nothing else. The *bare loop* takes messages off a JetStream
//! work queue, POSTs each, publishes one message about it, and acks. The producer fills the
//! queue at the same time, as it does for the system: as fast as it can, or at a rate.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, consumer, stream};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use fanfare_egress::{Client, Request};
use fanfare_service::{Clock as _, Joined as _, SystemClock};
use futures_util::{StreamExt as _, TryStreamExt as _, stream as futures};
use tokio::{task::JoinSet, time::Instant};

use super::producer::{PUBLISH_WINDOW, Stamp, data, ticks};
use crate::output::Output;

/// Which floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Requests and nothing else.
    Post,
    /// Work queue, request, one publish, ack.
    Loop,
}

impl Kind {
    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Post => "post",
            Self::Loop => "loop",
        }
    }
}

/// Options of a floor's process.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which floor.
    #[arg(long, value_enum)]
    pub(crate) kind: Kind,
    /// Where the receiver is.
    #[arg(long)]
    pub(crate) receiver: String,
    /// Where NATS is, for the loop.
    #[arg(long, default_value = "")]
    pub(crate) nats: String,
    /// How many requests.
    #[arg(long)]
    pub(crate) count: u64,
    /// How many may be in flight.
    #[arg(long)]
    pub(crate) in_flight: usize,
    /// How many bytes of body.
    #[arg(long)]
    pub(crate) bytes: usize,
    /// How many a second; 0 is as many as can be.
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u32,
}

/// Runs a floor, and prints the seconds that it took.
pub(crate) async fn run(options: Options, output: Output) -> Result<()> {
    let client =
        Arc::new(Client::new(&super::egress_settings(options.in_flight)).context("make a client")?);
    let sender = Sender::new(client, &options.receiver)?;
    let seconds = match options.kind {
        Kind::Post if options.rate > 0 => post_steadily(sender, &options).await?,
        Kind::Post => post_only(sender, &options).await?,
        Kind::Loop => bare_loop(sender, &options).await?,
    };
    output.document(&serde_json::json!({
        "seconds": seconds.as_secs_f64(),
        "cpu_seconds": super::process::cpu_seconds(std::process::id())?,
    }));
    Ok(())
}

/// Sends one body to the receiver.
#[derive(Clone)]
struct Sender {
    client: Arc<Client>,
    url: fanfare_egress::Url,
}

impl Sender {
    fn new(client: Arc<Client>, url: &str) -> Result<Self> {
        Ok(Self { client, url: url.parse().context("read the receiver's URL")? })
    }

    async fn post(&self, body: Bytes) -> Result<()> {
        let request = Request {
            method: http::Method::POST,
            url: self.url.clone(),
            headers: http::HeaderMap::new(),
            body,
            deadline: Duration::from_secs(15),
            identity: None,
        };
        let answer = self.client.send(request).await;
        let status = answer.result.as_ref().map(|head| head.status);
        ensure!(status.is_ok_and(|status| status == 200), "the receiver answered {status:?}");
        Ok(())
    }
}

/// A body that carries the present time.
fn timed(bytes: usize) -> Bytes {
    let stamp = Stamp { sent_at: SystemClock.now().as_nanos(), ..Stamp::default() };
    Bytes::from(data(bytes, stamp))
}

async fn post_steadily(sender: Sender, options: &Options) -> Result<Duration> {
    let mut ticks = ticks(options.rate);
    let begun = Instant::now();
    let mut requests = JoinSet::new();
    for _ in 0..options.count {
        ticks.tick().await;
        let (sender, body) = (sender.clone(), timed(options.bytes));
        requests.spawn(async move { sender.post(body).await });
        while let Some(ended) = requests.try_join_next() {
            ended.joined()??;
        }
    }
    while let Some(ended) = requests.join_next().await {
        ended.joined()??;
    }
    Ok(begun.elapsed())
}

async fn post_only(sender: Sender, options: &Options) -> Result<Duration> {
    let body = Bytes::from(data(options.bytes, Stamp::default()));
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    let share = options.count / u64::try_from(options.in_flight)?;
    for _ in 0..options.in_flight {
        let (sender, body) = (sender.clone(), body.clone());
        workers.spawn(async move {
            for _ in 0..share {
                sender.post(body.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.joined()??;
    }
    Ok(begun.elapsed())
}

async fn bare_loop(sender: Sender, options: &Options) -> Result<Duration> {
    let client = async_nats::connect(&options.nats).await.context("connect to NATS")?;
    let jetstream = jetstream::new(client.clone());
    let tasks = work_queue(&jetstream, "tasks").await?;
    work_queue(&jetstream, "facts").await?;
    let config = consumer::pull::Config {
        durable_name: Some(String::from("loop")),
        max_ack_pending: 10_000,
        ..consumer::pull::Config::default()
    };
    let consumer = tasks.create_consumer(config).await.context("make a consumer")?;
    let begun = Instant::now();
    let mut producer = JoinSet::new();
    producer.spawn(produce(jetstream.clone(), options.clone()));
    let messages = consumer.messages().await.context("read the queue")?;
    messages
        .take(usize::try_from(options.count)?)
        .map_err(anyhow::Error::from)
        .try_for_each_concurrent(options.in_flight, |message| {
            let (sender, jetstream) = (sender.clone(), jetstream.clone());
            async move {
                sender.post(message.payload.clone()).await?;
                let fact = jetstream.publish("facts.1", message.payload.clone()).await?;
                fact.await?;
                message.ack().await.map_err(anyhow::Error::from_boxed)
            }
        })
        .await?;
    client.flush().await?;
    let taken = begun.elapsed();
    while let Some(ended) = producer.join_next().await {
        ended.joined()??;
    }
    Ok(taken)
}

async fn work_queue(jetstream: &jetstream::Context, name: &str) -> Result<stream::Stream> {
    let config = stream::Config {
        name: String::from(name),
        subjects: vec![format!("{name}.>")],
        retention: stream::RetentionPolicy::WorkQueue,
        ..stream::Config::default()
    };
    jetstream.create_stream(config).await.context("make a stream")
}

async fn produce(jetstream: jetstream::Context, options: Options) -> Result<()> {
    if options.rate > 0 {
        let mut ticks = ticks(options.rate);
        for _ in 0..options.count {
            ticks.tick().await;
            // Dropping the future of the acknowledgement does not undo the publish.
            drop(jetstream.publish("tasks.1", timed(options.bytes)).await?);
        }
        return Ok(());
    }
    let body = Bytes::from(data(options.bytes, Stamp::default()));
    futures::iter(0..options.count)
        .map(|_| {
            let (jetstream, body) = (jetstream.clone(), body.clone());
            async move { anyhow::Ok(jetstream.publish("tasks.1", body).await?.await?) }
        })
        .buffer_unordered(PUBLISH_WINDOW)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}
