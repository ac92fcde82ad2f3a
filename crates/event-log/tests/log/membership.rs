//! Members share the shards: at every moment nobody works on another's, and in the end somebody
//! works on each, whoever comes, leaves, dies, freezes or is cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_domain::{Shard, ShardCount};
use fanfare_event_log::{
    EventLog, ReadError, Settings,
    membership::{Duty, Membership, TAKEOVER_AFTER},
};
use fanfare_nats_server::Server;
use fanfare_testkit::{Proxy, wait_until as wait_for};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{open, outsider, overhear, server, settings, wait_until};

const ROLE: &str = "worker";
const SHARDS: u16 = 16;

/// Who works on what at this moment, kept by the workers themselves.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<Posts>>);

#[derive(Default)]
struct Posts {
    working: BTreeMap<Shard, String>,
    /// Two who worked on one shard at the same time.
    clashes: Vec<(Shard, String, String)>,
    /// When a shard was last without anybody, and how long each of these pauses was.
    idle_since: BTreeMap<Shard, Instant>,
    pauses: Vec<Duration>,
}

impl Board {
    fn look<R>(&self, look: impl FnOnce(&mut Posts) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self, shard: Shard, who: &str) -> Post {
        self.look(|posts| {
            if let Some(other) = posts.working.insert(shard, who.to_owned()) {
                posts.clashes.push((shard, other, who.to_owned()));
            }
            if let Some(since) = posts.idle_since.remove(&shard) {
                posts.pauses.push(since.elapsed());
            }
        });
        Post { board: self.clone(), shard, who: who.to_owned() }
    }

    fn loads(&self) -> BTreeMap<String, usize> {
        self.look(|posts| {
            let mut loads = BTreeMap::new();
            for who in posts.working.values() {
                *loads.entry(who.clone()).or_default() += 1;
            }
            loads
        })
    }

    /// Waits until exactly so many work, and all shards are worked on.
    async fn spread_over(&self, members: usize) {
        wait_for("the shards to be spread", async || {
            let loads = self.loads();
            let mean = usize::from(SHARDS) / members;
            let even = loads.values().all(|load| (mean..=mean + 1).contains(load));
            let whole = loads.values().sum::<usize>() == usize::from(SHARDS);
            if loads.len() == members && even && whole { Ok(()) } else { Err(loads) }
        })
        .await;
    }

    fn clashes(&self) -> Vec<(Shard, String, String)> {
        self.look(|posts| posts.clashes.clone())
    }

    fn longest_pause(&self) -> Duration {
        self.look(|posts| posts.pauses.drain(..).max().unwrap_or_default())
    }
}

/// Ends when it is dropped, as a worker does.
struct Post {
    board: Board,
    shard: Shard,
    who: String,
}

impl Drop for Post {
    fn drop(&mut self) {
        self.board.look(|posts| {
            if posts.working.get(&self.shard) == Some(&self.who) {
                posts.working.remove(&self.shard);
                posts.idle_since.insert(self.shard, Instant::now());
            }
        });
    }
}

/// A process, as far as the others can tell.
struct Member {
    membership: Membership,
    stop: CancellationToken,
    frozen: watch::Sender<bool>,
    driving: AbortHandle,
    tasks: JoinSet<Result<(), ReadError>>,
}

async fn works(board: Board, duty: Duty) -> Result<(), ReadError> {
    let _post = board.begin(duty.shard, &duty.owner);
    duty.stop.cancelled().await;
    Ok(())
}

fn join(log: &EventLog, name: &str, board: &Board) -> Member {
    let stop = CancellationToken::new();
    let (membership, driver) = log.join(ROLE, name, stop.clone());
    let frozen = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let driving = tasks.spawn(freezable(frozen.subscribe(), driver));
    let board = board.clone();
    tasks.spawn(membership.clone().work(move |duty| works(board.clone(), duty)));
    Member { membership, stop, frozen, driving, tasks }
}

impl Member {
    /// Leaves in order.
    async fn leave(&mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = timeout(Duration::from_secs(20), self.tasks.join_next()).await? {
            ended??;
        }
        Ok(())
    }

    /// Dies: nothing is released, nothing is said.
    async fn die(&mut self) {
        self.tasks.shutdown().await;
    }

    fn is_fresh(&self) -> bool {
        let confirmed = self.membership.lease().confirmed_at();
        confirmed.is_some_and(|at| at.elapsed() < Duration::from_millis(700))
    }
}

/// Does nothing while it is frozen, as a stopped process.
async fn freezable<T>(mut frozen: watch::Receiver<bool>, inner: impl Future<Output = T>) -> T {
    tokio::pin!(inner);
    loop {
        // Without anybody to freeze it, it goes on.
        frozen.wait_for(|frozen| !frozen).await.ok();
        tokio::select! {
            biased;
            Ok(_) = frozen.wait_for(|frozen| *frozen) => {}
            done = &mut inner => return done,
        }
    }
}

fn wide(server: &Server) -> Settings {
    Settings { shards: ShardCount::new(SHARDS).unwrap(), ..settings(server) }
}

async fn keys(server: &Server) -> Result<BTreeSet<String>> {
    use futures_util::TryStreamExt as _;
    let bucket = outsider(server).await?.get_key_value("FANFARE_owners").await?;
    Ok(bucket.keys().await?.try_collect().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_leave_and_nobody_works_on_anothers() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let logs = [open(&wide(&server)).await?, open(&wide(&server)).await?];
    let mut first = join(&logs[0], "a", &board);
    board.spread_over(1).await;
    let mut second = join(&logs[1], "b", &board);
    board.spread_over(2).await;
    let joining = board.longest_pause();
    let mut third = join(&logs[0], "c", &board);
    board.spread_over(3).await;
    first.leave().await?;
    board.spread_over(2).await;
    let leaving = board.longest_pause();
    // Waiting for a member that died would have taken all of this time.
    assert!(joining < TAKEOVER_AFTER && leaving < TAKEOVER_AFTER, "{joining:?}, {leaving:?}");
    second.leave().await?;
    board.spread_over(1).await;
    third.leave().await?;
    assert_eq!(board.clashes(), []);
    assert!(board.loads().is_empty());
    assert_eq!(keys(&server).await?, [String::from("worker.shards")].into());
    Ok(())
}

/// Its first beat was stored, and taken for that of the dead before the answer came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_evicted_while_joining_joins_under_another_name() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let log = open(&wide(&server)).await?;
    let bucket = outsider(&server).await?.get_key_value("FANFARE_owners").await?;
    bucket.put("worker.member.a", Bytes::from_static(b"{\"state\":\"live\"}")).await?;
    bucket.delete("worker.member.a").await?;
    let mut member = join(&log, "a", &board);
    board.spread_over(1).await;
    assert_eq!(board.loads().into_keys().collect::<Vec<_>>(), ["a-2"]);
    member.leave().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_begin_together_share_and_the_lease_is_renewed() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let log = open(&wide(&server)).await?;
    let mut members = ["a", "b", "c"].map(|name| join(&log, name, &board));
    for member in &mut members {
        member.membership.joined().await?;
    }
    board.spread_over(3).await;
    for member in &members {
        let lease = member.membership.lease();
        for _ in 0..3 {
            let before = lease.confirmed_at();
            wait_until("the lease is renewed", async || Ok(lease.confirmed_at() > before)).await?;
            assert!(lease.confirmed_at() <= Some(Instant::now()));
        }
    }
    assert_eq!(board.clashes(), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shards_of_a_dead_member_are_taken_after_three_seconds() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let log = open(&wide(&server)).await?;
    let mut first = join(&log, "a", &board);
    let _second = join(&log, "b", &board);
    board.spread_over(2).await;
    board.longest_pause();
    first.die().await;
    let died_at = Instant::now();
    board.spread_over(1).await;
    let waited = died_at.elapsed();
    // The last beat may have been 200 ms before the death.
    assert!(waited + Duration::from_millis(400) >= TAKEOVER_AFTER, "{waited:?}");
    // Where the survivor itself stood still meanwhile, it begins to wait again.
    assert!(waited < TAKEOVER_AFTER * 3, "{waited:?}");
    assert_eq!(board.clashes(), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_loses_everything_and_joins_anew_when_it_wakes() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let log = open(&wide(&server)).await?;
    let first = join(&log, "a", &board);
    let _second = join(&log, "b", &board);
    board.spread_over(2).await;
    first.frozen.send_replace(true);
    wait_until("the other has taken all", async || {
        Ok(board.loads().get("b") == Some(&usize::from(SHARDS)))
    })
    .await?;
    // Its workers, which stand for a process that is frozen as a whole, were there all the time;
    // what they may do hangs on the lease.
    assert!(!first.is_fresh());
    assert_eq!(first.membership.member().as_deref(), Some("a"));
    first.frozen.send_replace(false);
    wait_until("it is somebody else", async || {
        Ok(first.membership.member().as_deref() == Some("a-2"))
    })
    .await?;
    assert!(!board.loads().contains_key("a"), "the workers of old are gone");
    board.spread_over(2).await;
    wait_until("it beats again", async || Ok(first.is_fresh())).await?;
    // The workers under the old name had not ended when the other began; nobody else clashed.
    assert!(board.clashes().iter().all(|(_, before, after)| before == "a" && after == "b"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_is_replaced_and_comes_back() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let proxy = Proxy::to(server.client_address()).await?;
    let far = open(&Settings { url: proxy.url(), ..wide(&server) }).await?;
    let near = open(&wide(&server)).await?;
    let first = join(&far, "a", &board);
    let _second = join(&near, "b", &board);
    board.spread_over(2).await;
    proxy.block();
    wait_until("the lease is old", async || Ok(!first.is_fresh())).await?;
    assert_eq!(board.loads()["a"], usize::from(SHARDS) / 2, "nobody has taken anything yet");
    wait_until("the other has taken all", async || {
        Ok(board.loads().get("b") == Some(&usize::from(SHARDS)))
    })
    .await?;
    proxy.cut();
    board.spread_over(2).await;
    assert_eq!(first.membership.member().as_deref(), Some("a-2"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_costs_nobody_anything() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let proxy = Proxy::to(server.client_address()).await?;
    let far = open(&Settings { url: proxy.url(), ..wide(&server) }).await?;
    let near = open(&wide(&server)).await?;
    let first = join(&far, "a", &board);
    let second = join(&near, "b", &board);
    board.spread_over(2).await;
    let mut beats = overhear(&server, "$KV.FANFARE_owners.worker.member.a").await?;
    // Whoever joined first may have had to give shards away.
    board.longest_pause();
    for _ in 0..3 {
        proxy.swallow_answers();
        // Until it has beaten in vain.
        beats.all().await?;
        timeout(Duration::from_secs(20), beats.next()).await??;
        let cut_at = Instant::now();
        proxy.cut();
        let lease = first.membership.lease();
        wait_until("it beats again", async || Ok(lease.confirmed_at() > Some(cut_at))).await?;
    }
    assert_eq!(first.membership.member().as_deref(), Some("a"));
    assert_eq!(second.membership.member().as_deref(), Some("b"));
    assert_eq!(board.longest_pause(), Duration::ZERO);
    assert_eq!(board.clashes(), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_without_a_server_counts_for_nobody() -> Result<()> {
    let (mut server, board) = (server().await?, Board::default());
    let logs = [open(&wide(&server)).await?, open(&wide(&server)).await?];
    let members = [join(&logs[0], "a", &board), join(&logs[1], "b", &board)];
    board.spread_over(2).await;
    board.longest_pause();
    server.kill().await?;
    // Longer than it takes to take over.
    sleep(TAKEOVER_AFTER + Duration::from_secs(1)).await;
    assert!(members.iter().all(|member| !member.is_fresh()));
    server.restart().await?;
    wait_until("both beat", async || Ok(members.iter().all(Member::is_fresh))).await?;
    for (member, name) in members.iter().zip(["a", "b"]) {
        assert_eq!(member.membership.member().as_deref(), Some(name));
    }
    assert_eq!((board.longest_pause(), board.clashes()), (Duration::ZERO, Vec::new()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_key_an_operator_deletes_joins_anew() -> Result<()> {
    let (server, board) = (server().await?, Board::default());
    let log = open(&wide(&server)).await?;
    let member = join(&log, "a", &board);
    board.spread_over(1).await;
    let bucket = outsider(&server).await?.get_key_value("FANFARE_owners").await?;
    for (purged, name) in [(false, "a-2"), (true, "a-3")] {
        let key = format!("worker.member.{}", member.membership.member().context("it joined")?);
        if purged {
            bucket.purge(key).await?;
        } else {
            bucket.delete(key).await?;
        }
        wait_until("it is somebody else", async || {
            Ok(member.membership.member().as_deref() == Some(name))
        })
        .await?;
        board.spread_over(1).await;
    }
    bucket.delete("worker.shards").await?;
    wait_until("the table is there again", async || {
        Ok(bucket.get("worker.shards").await?.is_some_and(|table| table.len() > 100))
    })
    .await?;
    board.spread_over(1).await;
    assert_eq!(board.clashes(), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_gives_up_is_replaced_and_one_that_fails_ends_everything() -> Result<()> {
    let server = server().await?;
    let log = open(&wide(&server)).await?;
    let (membership, driver) = log.join(ROLE, "a", CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let turns = Arc::new(Mutex::new(BTreeMap::<Shard, usize>::new()));
    let worked = membership.work(|duty| {
        let turns = Arc::clone(&turns);
        async move {
            let turn = {
                let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
                let turn = turns.entry(duty.shard).or_default();
                *turn += 1;
                *turn
            };
            match (duty.shard.index(), turn) {
                (3, 1) => Ok(()),
                (3, _) => Err("failed"),
                _ => {
                    duty.stop.cancelled().await;
                    Ok(())
                }
            }
        }
    });
    assert_eq!(timeout(Duration::from_secs(20), worked).await?, Err("failed"));
    {
        let turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((turns[&Shard::from_index(3)], turns[&Shard::from_index(4)]), (2, 1));
    }
    // It leaves by itself: nobody is there who would release what it is granted.
    let left = timeout(Duration::from_secs(20), tasks.join_next()).await?;
    left.context("a driver")???;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_waits_for_the_workers_and_not_for_servers() -> Result<()> {
    let (mut server, board) = (server().await?, Board::default());
    let logs = [open(&wide(&server)).await?, open(&wide(&server)).await?];
    let mut first = join(&logs[0], "a", &board);
    board.spread_over(1).await;
    let finish = CancellationToken::new();
    // One shard has something in hand that takes a while.
    let (membership, driver) = logs[1].join(ROLE, "slow", first.stop.child_token());
    first.tasks.spawn(driver);
    let (held, slow) = (finish.clone(), board.clone());
    first.tasks.spawn(membership.clone().work(move |duty| {
        let (held, board) = (held.clone(), slow.clone());
        async move {
            let _post = board.begin(duty.shard, &duty.owner);
            duty.stop.cancelled().await;
            held.cancelled().await;
            Ok(())
        }
    }));
    board.spread_over(2).await;
    let third = join(&logs[0], "c", &board);
    third.membership.clone().joined().await?;
    first.stop.cancel();
    wait_until("what could be released is", async || {
        Ok(board.loads().get("c") >= Some(&(usize::from(SHARDS) / 2)))
    })
    .await?;
    assert!(board.loads().contains_key("slow"), "what is in hand is nobody else's");
    assert_eq!(board.clashes(), []);
    server.kill().await?;
    finish.cancel();
    let left_at = Instant::now();
    first.leave().await?;
    ensure!(left_at.elapsed() < Duration::from_secs(10), "it waits for a server");
    drop(third.driving);
    Ok(())
}

#[tokio::test]
async fn joining_ends_with_the_stop() -> Result<()> {
    let mut server = server().await?;
    let log = open(&wide(&server)).await?;
    server.kill().await?;
    let stop = CancellationToken::new();
    let (mut membership, driver) = log.join(ROLE, "a", stop.clone());
    tokio::pin!(driver);
    ensure!(timeout(Duration::from_millis(500), &mut driver).await.is_err(), "no server, no end");
    assert!(membership.member().is_none() && membership.lease().confirmed_at().is_none());
    stop.cancel();
    timeout(Duration::from_secs(10), driver).await??;
    assert!(membership.changed().await.is_err());
    Ok(())
}
