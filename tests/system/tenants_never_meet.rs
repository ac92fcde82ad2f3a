//! Two tenants do at random what tenants can do, all at once, with each other's ids, cursors, versions
//! and keys too: nothing of one is ever in an answer to the other, in its streams or in what its
//! endpoints get, and what is the other's looks as if there were no such thing.

mod plan;
mod side;
mod wire;

use std::{collections::BTreeSet, fmt::Write as _, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use fanfare_service::{process_env, random_bytes};
use fanfare_testkit::wait_until;
use futures_util::future::try_join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Client, Method};
use tokio::time::Instant;

use self::{
    plan::{Operations, Plan},
    side::Side,
    wire::{Ask, Stream, Told},
};
use crate::support::{Answer, EAGER, Expected, Hooks, Installation, Options, Service, api::text};

/// How many rounds there are; fewer on a machine that takes longer for them.
const ROUNDS: usize = 260;
const TIME: Duration = Duration::from_secs(20);
/// How many requests are made at once, at most.
const AT_ONCE: usize = 5;
/// How many answers about the other's things must have been compared, to be sure of anything.
const COMPARED_MIN: usize = 20;
/// `FANFARE_TENANTS_SEED=7` throws the same dice again; what came of them is up to the machine.
const SEED: &str = "FANFARE_TENANTS_SEED";

/// Both tenants, and what there is between them.
struct World {
    client: Client,
    address: String,
    hooks: Hooks,
    operations: Operations,
    sides: [Side; 2],
    /// Ids that both may see: the operator's.
    common: BTreeSet<String>,
    story: String,
    compared: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_tenant_is_ever_seen_by_another() -> Result<()> {
    let seed = match process_env()?.get(SEED) {
        Some(text) => text.parse().context("read the seed")?,
        None => u64::from_be_bytes(random_bytes()),
    };
    let options = Options { profile: EAGER, ..Options::default() };
    let mut installation = Installation::start_with(options).await?;
    installation.start_service(Service::Projector).await?;
    let mut world = World::begin(&installation).await?;
    let played = Box::pin(world.play(seed)).await;
    played.with_context(|| format!("{SEED}={seed}, after\n{}", world.story))?;
    installation.finish(Expected::Turmoil).await
}

impl World {
    async fn begin(installation: &Installation) -> Result<Self> {
        let hooks = Hooks::answering(|request, _| match request.path.as_bytes().last() {
            Some(b'0' | b'3' | b'6' | b'9') => Answer::Status(500),
            _ => Answer::Status(200),
        });
        let api = installation.api();
        let keys = api.get("/v1/keys").await?;
        let keys = keys["data"].as_array().context("the operator has keys")?;
        let common = keys.iter().map(|key| text(key, "id")).collect::<Result<_>>()?;
        let sides = [Side::begin(api).await?, Side::begin(api).await?];
        // Its tables are made while the API answers already.
        let events = format!("/v1/tenants/{}/events", sides[0].tenant);
        wait_until("the delivery log to be there", async || {
            api.get(&events).await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await;
        Ok(Self {
            client: Client::builder().no_proxy().build().context("make a client")?,
            address: api.address().context("the API listens")?,
            hooks: hooks.await?,
            operations: Operations::read()?,
            sides,
            common,
            story: String::new(),
            compared: 0,
        })
    }

    async fn play(&mut self, seed: u64) -> Result<()> {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut streams = self.prelude(&mut dice).await?;
        let begun = Instant::now();
        let mut rounds = 0;
        while rounds < ROUNDS && begun.elapsed() < TIME {
            self.round(&mut dice).await?;
            rounds += 1;
        }
        // Who comes back to the place of somebody else is told of their own.
        for (me, other) in [(0, 1), (1, 0)] {
            let mut ask = self.watch(me, 0)?;
            let place = streams.get(other).context("a stream")?.1.place()?;
            ask.headers.push(("last-event-id", place));
            streams.push((me, Stream::open(&ask, &self.client, &self.address).await?));
        }
        self.epilogue(&streams).await?;
        let compared = self.compared;
        ensure!(compared >= COMPARED_MIN, "{compared} answers about the other's are too few");
        let told = format!("tenants: {rounds} rounds, {compared} answers compared, seed {seed}");
        writeln!(std::io::stderr(), "{told}, in {:?}", begun.elapsed())?;
        Ok(())
    }

    /// Gives each of the two something, and has them watch: by a key, and by the link of a person.
    async fn prelude(&mut self, dice: &mut StdRng) -> Result<Vec<(usize, Stream)>> {
        let mut streams = Vec::new();
        for (me, way) in [(0, 0), (1, 0), (0, 4), (1, 4)] {
            let ask = self.watch(me, way)?;
            streams.push((me, Stream::open(&ask, &self.client, &self.address).await?));
        }
        for me in [0, 1] {
            for number in [1, 3] {
                let side = self.side(me)?;
                let body = plan::endpoint(side, number, &|path: &str| self.hooks.url(path));
                let path = format!("/v1/tenants/{}/endpoints", side.tenant);
                self.ask(me, Method::POST, path, Some(body.to_string())).await?;
            }
            for end in ["a", "b"] {
                let side = self.side(me)?;
                let name = format!("own.{}.{end}", side.marker);
                let body = serde_json::json!({ "type": name, "description": side.marker });
                let path = format!("/v1/tenants/{}/event-types", side.tenant);
                self.ask(me, Method::POST, path, Some(body.to_string())).await?;
                self.sides[me].note_type(name);
            }
            for list in ["endpoints", "events", "audit"] {
                let path = format!("/v1/tenants/{}/{list}?limit=1", self.side(me)?.tenant);
                self.ask(me, Method::GET, path, None).await?;
            }
            let mut event = plan::publish(dice, self.side(me)?);
            event.ask.key = String::from(self.side(me)?.admin());
            self.judged(vec![(me, event)]).await?;
        }
        for me in [0, 1] {
            self.hooks_know(me).await?;
        }
        Ok(streams)
    }

    /// Has one of the two make a request that must be answered well.
    async fn ask(
        &mut self,
        me: usize,
        method: Method,
        path: String,
        body: Option<String>,
    ) -> Result<()> {
        let mut ask = Ask::new(method, path, self.side(me)?.admin());
        ask.body = body;
        let told = self.judged(vec![(me, Plan { ask, twin: None })]).await?;
        ensure!(told.iter().all(|told| told.status < 300), "{told:?}");
        Ok(())
    }

    /// Some requests at once.
    async fn round(&mut self, dice: &mut StdRng) -> Result<()> {
        let count = dice.random_range(1..=AT_ONCE);
        let mut plans = Vec::new();
        for _ in 0..count {
            let me = dice.random_range(0..2);
            let pair = (self.side(me)?, self.side(1 - me)?);
            let urls = |path: &str| self.hooks.url(path);
            plans.push((me, plan::next(dice, &self.operations, pair, &urls)));
        }
        self.judged(plans).await?;
        Ok(())
    }

    /// Makes requests, and judges the answers.
    async fn judged(&mut self, plans: Vec<(usize, Plan)>) -> Result<Vec<Told>> {
        for (me, plan) in &plans {
            writeln!(self.story, "{me}: {}", plan.ask)?;
        }
        let (client, address) = (&self.client, self.address.as_str());
        let sent = plans.iter().map(|(_, plan)| async move {
            let told = plan.ask.send(client, address).await?;
            let twin = match &plan.twin {
                Some((twin, _)) => Some(twin.send(client, address).await?),
                None => None,
            };
            Ok::<_, anyhow::Error>((told, twin))
        });
        let answers = try_join_all(sent).await?;
        let mut all = Vec::new();
        for ((me, plan), (told, twin)) in plans.into_iter().zip(answers) {
            self.judge(me, &plan, (&told, twin.as_ref()))?;
            all.push(told);
        }
        Ok(all)
    }

    fn judge(&mut self, me: usize, plan: &Plan, answers: (&Told, Option<&Told>)) -> Result<()> {
        let (told, ask) = (answers.0, &plan.ask);
        ensure!(told.status != 500, "{ask}: {}", told.text());
        let foreign = self.side(1 - me)?.needles(|text| ask.says(text));
        let parts = told.headers.iter().map(|(_, value)| value.as_slice());
        for part in parts.chain([told.body.as_slice()]) {
            if let Some(seen) = foreign.find(part) {
                bail!("{seen} of the other is in the answer to {ask}: {}", told.text());
            }
        }
        if let (Some((_, pairs)), Some(twin)) = (&plan.twin, answers.1) {
            // Too often, or too much at once: that is not about what was asked for.
            let passing = |told: &Told| matches!(told.status, 429 | 503);
            if !passing(told) && !passing(twin) {
                let (same, other) = (told.comparable(pairs), twin.comparable(&[]));
                ensure!(same == other, "{ask} tells that it is there:\n{same}\nand not:\n{other}");
                self.compared += 1;
            }
            return Ok(());
        }
        let side = self.sides.get_mut(me).context("a tenant")?;
        side.hits += usize::from(side.is_in(&told.body));
        side.learn(&told.text(), &self.common);
        let tag = String::from_utf8_lossy(told.header("etag")).into_owned();
        side.etags.extend((!tag.is_empty()).then_some(tag));
        Ok(())
    }

    /// What both have got: their own, and nothing else.
    async fn epilogue(&mut self, streams: &[(usize, Stream)]) -> Result<()> {
        let mut last = [String::new(), String::new()];
        for (me, last) in last.iter_mut().enumerate() {
            // All others may be deleted, paused or disabled by now.
            let side = self.side(me)?;
            let new = plan::endpoint(side, 1, &|path: &str| self.hooks.url(path));
            let path = format!("/v1/tenants/{}/endpoints", side.tenant);
            self.ask(me, Method::POST, path, Some(new.to_string())).await?;
            let side = self.side(me)?;
            let body = serde_json::json!({ "type": "order.paid", "data": side.marker });
            let mut ask =
                Ask::new(Method::POST, format!("/v1/tenants/{}/events", side.tenant), side.admin());
            ask.body = Some(body.to_string());
            let told = self.judged(vec![(me, Plan { ask, twin: None })]).await?;
            let told = told.first().context("an answer")?.text();
            *last = text(&serde_json::from_str(&told)?, "id")?;
        }
        for (me, stream) in streams {
            stream.says(last.get(*me).context("an event")?).await;
            let foreign = self.side(1 - me)?.needles(|_| false);
            let bytes = stream.bytes();
            if let Some(seen) = foreign.find(&bytes) {
                bail!("{seen} of the other is in a stream: {}", String::from_utf8_lossy(&bytes));
            }
        }
        for me in [0, 1] {
            self.hooks_know(me).await?;
            let (side, foreign) = (self.side(me)?, self.side(1 - me)?.needles(|_| false));
            ensure!(side.hits > 0, "nothing of its own is in any answer");
            for request in self.hooks.requests().iter().filter(|it| side.is_in(it.path.as_bytes()))
            {
                let headers = request.headers.iter().map(|(_, value)| value.as_bytes());
                for part in headers.chain([request.path.as_bytes(), request.body.as_ref()]) {
                    if let Some(seen) = foreign.find(part) {
                        bail!("{seen} of the other is in a request to {}", request.path);
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until endpoints of a tenant have got something of its own.
    async fn hooks_know(&self, me: usize) -> Result<()> {
        let side = self.side(me)?;
        wait_until("requests with data of the tenant", async || {
            let requests = self.hooks.requests();
            let own = |path: &str, body: &[u8]| side.is_in(path.as_bytes()) && side.is_in(body);
            let found = requests.iter().any(|request| own(&request.path, &request.body));
            if found { Ok(()) } else { Err(requests.len()) }
        })
        .await;
        Ok(())
    }

    fn watch(&self, me: usize, way: usize) -> Result<Ask> {
        let side = self.side(me)?;
        let key = side.keys.get(way).context("a key")?;
        Ok(Ask::new(Method::GET, format!("/v1/tenants/{}/live", side.tenant), key))
    }

    fn side(&self, me: usize) -> Result<&Side> {
        self.sides.get(me).context("there are two tenants")
    }
}
