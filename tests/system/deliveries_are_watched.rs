//! Who watches a tenant's deliveries is told of each as it happens, and misses nothing by being away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Answer, Expected, Hooks, Options, Route, Scene, api::text, scene::TENANT};

const PATIENCE: Duration = Duration::from_mins(1);

/// How many events are published each time, and how many deliveries end before the stream is left.
const EVENTS: usize = 12;
const BEFORE: usize = 5;

/// A stream of deliveries.
struct Stream {
    answer: Response,
    buffer: String,
    /// The last place that it has said.
    place: Option<String>,
}

impl Stream {
    /// Opens it behind a place, and waits until it has said where it is.
    async fn open(scene: &Scene, after: Option<&str>) -> Result<Self> {
        let address = scene.api().address().context("the API listens")?;
        let client = Client::builder().no_proxy().build()?;
        let url = format!("http://{address}/v1/tenants/{TENANT}/live");
        let mut request = client.get(url).bearer_auth(scene.api().key());
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let answer = request.send().await?.error_for_status()?;
        let mut stream = Self { answer, buffer: String::new(), place: None };
        while after.is_none() && stream.place.is_none() {
            stream.next().await?;
        }
        Ok(stream)
    }

    /// The data of the next message, if it is no comment.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some((message, rest)) = self.buffer.split_once("\n\n") {
                let line = |name: &str| message.lines().find_map(|line| line.strip_prefix(name));
                if let Some(place) = line("id: ") {
                    self.place = Some(String::from(place));
                }
                let data = line("data: ").map(serde_json::from_str).transpose()?;
                self.buffer = String::from(rest);
                return Ok(data);
            }
            let chunk = timeout(PATIENCE, self.answer.chunk()).await.context("nothing comes")??;
            self.buffer.push_str(std::str::from_utf8(&chunk.context("the stream goes on")?)?);
        }
    }

    /// Reads until so many deliveries have ended; returns what it says, each with its place.
    async fn until_ended(&mut self, count: usize) -> Result<Vec<(String, Value)>> {
        let (mut said, mut ended) = (Vec::new(), 0);
        while ended < count {
            let Some(one) = self.next().await? else { continue };
            ended += usize::from(one["fact"] == "delivery_concluded");
            said.push((self.place.clone().context("each has a place")?, one));
        }
        Ok(said)
    }
}

async fn publish(scene: &mut Scene) -> Result<()> {
    let planned = (0..EVENTS).map(|_| scene.plan("a.b", Route::Http));
    scene.publish(planned.collect::<Result<_>>()?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_is_told_what_happened_meanwhile_and_nothing_twice() -> Result<()> {
    let hooks = Hooks::answering(|_, earlier| Answer::Status(if earlier == 0 { 500 } else { 200 }));
    let mut scene = Scene::set_with(Options::default(), hooks.await?).await?;
    scene.subscribe("/hook", &[">"], &["10ms", "1s"]).await?;
    let mut stream = Stream::open(&scene, None).await?;
    publish(&mut scene).await?;
    let mut said = stream.until_ended(BEFORE).await?;
    let place = stream.place.take().context("a place")?;
    drop(stream);
    publish(&mut scene).await?;
    scene.concluded(PATIENCE).await?;
    let mut stream = Stream::open(&scene, Some(&place)).await?;
    said.extend(stream.until_ended(2 * EVENTS - BEFORE).await?);

    let places: BTreeSet<&String> = said.iter().map(|(place, _)| place).collect();
    assert_eq!(places.len(), said.len(), "nothing twice");
    let mut of_delivery: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (_, one) in &said {
        let delivery = text(one, "delivery_id")?;
        of_delivery.entry(delivery).or_default().push(text(one, "fact")?);
    }
    assert_eq!(of_delivery.len(), 2 * EVENTS);
    for (delivery, facts) in &of_delivery {
        let made = facts.iter().filter(|fact| *fact == "attempt_made").count();
        assert_eq!(made, 2, "{delivery}: {facts:?}");
        assert_eq!(facts.last().map(String::as_str), Some("delivery_concluded"));
    }
    scene.finish(Expected::Calm).await
}
