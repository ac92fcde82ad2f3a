//! One process has a role: handed over at once, taken over in time, never lost by a restart.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fanfare_event_log::{
    EventLog, ReadError, Settings,
    ownership::{Lease, TAKEOVER_AFTER, Taken},
};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;
use crate::support::{log, outsider, patient, server, settings, wait_until};

const ROLE: &str = "jobs.3";

/// Somebody who has a role.
struct Holder {
    lease: Lease,
    stop: CancellationToken,
    beating: AbortHandle,
}

async fn acquire(
    log: &EventLog,
    owner: &str,
    tasks: &mut JoinSet<Result<(), ReadError>>,
) -> Result<Holder> {
    let stop = CancellationToken::new();
    let acquired = log.acquire(ROLE, owner, stop.clone()).await?;
    let (lease, beat) = acquired.context("it was not stopped")?;
    let beating = tasks.spawn(beat);
    Ok(Holder { lease, stop, beating })
}

#[tokio::test]
async fn a_released_role_is_handed_over_at_once() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let (one, two) = (log(&server).await?, log(&server).await?);
    let first = acquire(&one, "one", &mut tasks).await?;
    let mut waiting = JoinSet::new();
    let second = acquire(&two, "two", &mut waiting);
    tokio::pin!(second);
    ensure!(timeout(Duration::from_secs(1), &mut second).await.is_err(), "there is one holder");
    let released_at = Instant::now();
    first.stop.cancel();
    let second = second.await?;
    // Waiting for a holder that died would have taken all of this time.
    assert!(released_at.elapsed() < TAKEOVER_AFTER, "{:?}", released_at.elapsed());
    assert!(tasks.join_next().await.unwrap()?.is_ok(), "releasing is no failure");
    assert!(!first.lease.lost().is_cancelled() && !second.lease.lost().is_cancelled());
    Ok(())
}

#[tokio::test]
async fn a_dead_holder_is_followed_after_three_seconds() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let (one, two) = (log(&server).await?, log(&server).await?);
    let first = acquire(&one, "one", &mut tasks).await?;
    first.beating.abort();
    let died_at = Instant::now();
    acquire(&two, "two", &mut tasks).await?;
    let waited = died_at.elapsed();
    // The last beat may have been 200 ms before the death.
    assert!(waited + Duration::from_millis(300) >= TAKEOVER_AFTER, "{waited:?}");
    assert!(waited < TAKEOVER_AFTER * 2, "{waited:?}");
    Ok(())
}

#[tokio::test]
async fn a_lease_is_confirmed_again_and_again() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let holder = acquire(&log, "one", &mut tasks).await?;
    for _ in 0..5 {
        let before = holder.lease.confirmed_at();
        wait_until("the lease is confirmed", async || Ok(holder.lease.confirmed_at() > before))
            .await?;
        assert!(holder.lease.confirmed_at() <= Instant::now());
    }
    Ok(())
}

#[tokio::test]
async fn a_holder_survives_a_restarted_server_that_others_wait_at() -> Result<()> {
    let (mut server, mut tasks) = (server().await?, JoinSet::new());
    let (one, two) = (log(&server).await?, log(&server).await?);
    let holder = acquire(&one, "one", &mut tasks).await?;
    let mut waiting = JoinSet::new();
    let waiter = acquire(&two, "two", &mut waiting);
    tokio::pin!(waiter);
    server.kill().await?;
    // Longer than it takes to take over: time without a server counts for nobody.
    let away = timeout(TAKEOVER_AFTER + Duration::from_secs(1), &mut waiter).await;
    ensure!(away.is_err(), "nobody can take over without a server");
    server.restart().await?;
    let back_at = Instant::now();
    let back =
        wait_until("the lease is confirmed", async || Ok(holder.lease.confirmed_at() > back_at));
    tokio::select! {
        _ = &mut waiter => anyhow::bail!("the holder is back"),
        back = back => back?,
    }
    assert!(!holder.lease.lost().is_cancelled());
    Ok(())
}

#[tokio::test]
async fn a_holder_whose_role_was_taken_knows() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let holder = acquire(&log, "one", &mut tasks).await?;
    let owners = outsider(&server).await?.get_key_value("FANFARE_owners").await?;
    owners.put(ROLE, "thief".into()).await?;
    timeout(Duration::from_secs(5), holder.lease.lost().cancelled()).await?;
    let ended = tasks.join_next().await.unwrap()?;
    let Err(ReadError::Refused { source, .. }) = ended else { panic!("{ended:?}") };
    let taken = source.downcast_ref::<Taken>().expect("that is why");
    assert_eq!((taken.role.as_str(), taken.owner.as_str()), (ROLE, "thief"));
    // Whoever lost a role does not release it.
    assert_eq!(owners.get(ROLE).await?.as_deref(), Some(&b"thief"[..]));
    Ok(())
}

#[tokio::test]
async fn a_deleted_key_is_taken_back() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let holder = acquire(&log, "one", &mut tasks).await?;
    let owners = outsider(&server).await?.get_key_value("FANFARE_owners").await?;
    owners.delete(ROLE).await?;
    wait_until("the key is there again", async || Ok(owners.get(ROLE).await?.is_some())).await?;
    owners.purge(ROLE).await?;
    wait_until("the key is there again", async || Ok(owners.get(ROLE).await?.is_some())).await?;
    assert!(!holder.lease.lost().is_cancelled());
    Ok(())
}

#[tokio::test]
async fn waiting_ends_with_the_stop() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let _holder = acquire(&log, "one", &mut tasks).await?;
    let stop = CancellationToken::new();
    let waiting = log.acquire(ROLE, "two", stop.clone());
    tokio::pin!(waiting);
    ensure!(timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    stop.cancel();
    assert!(timeout(Duration::from_secs(5), waiting).await??.is_none());
    let owners = outsider(&server).await?.get_key_value("FANFARE_owners").await?;
    assert_eq!(owners.get(ROLE).await?.as_deref(), Some(&b"one"[..]));
    Ok(())
}

#[tokio::test]
async fn a_heartbeat_under_way_is_sent_again_when_the_connection_is_lost() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let proxy = Proxy::to(server.client_address()).await?;
    let log = patient(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let holder = acquire(&log, "one", &mut tasks).await?;
    let owners = outsider(&server).await?.get_key_value("FANFARE_owners").await?;
    let beat = async || -> Result<u64> {
        Ok(owners.entry(ROLE).await?.context("somebody has the role")?.revision)
    };
    for _ in 0..3 {
        proxy.swallow_answers();
        let before = beat().await?;
        // This beat was sent later, so its answer has vanished, and it is waited for.
        wait_until("another beat is stored", async || Ok(beat().await? > before)).await?;
        let cut_at = Instant::now();
        proxy.cut();
        wait_until("the lease is confirmed", async || Ok(holder.lease.confirmed_at() > cut_at))
            .await?;
        assert!(!holder.lease.lost().is_cancelled());
    }
    Ok(())
}
