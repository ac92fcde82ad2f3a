//! A key stands for one event, whoever claims it and however often.

use std::collections::BTreeSet;

use anyhow::Result;
use fanfare_domain::{EventId, TenantId};
use fanfare_event_log::idempotency::{IdempotencyKeys, KeyState};
use futures_util::future::try_join_all;

use crate::support::{log, outsider, server, time};

fn id(number: u8) -> EventId {
    EventId::new(time(0), [number; 10])
}

fn tenant(id: &str) -> TenantId {
    id.parse().expect("a tenant's id")
}

#[tokio::test]
async fn the_first_claim_counts() -> Result<()> {
    let server = server().await?;
    let keys = log(&server).await?.idempotency_keys().await?;
    let acme = tenant("acme");
    assert_eq!(keys.claim(&acme, "k", id(1)).await?, KeyState::Claimed);
    assert_eq!(keys.claim(&acme, "k", id(2)).await?, KeyState::Pending(id(1)));
    assert_eq!(keys.claim(&acme, "k", id(1)).await?, KeyState::Claimed, "its own claim");
    assert_eq!(keys.claim(&tenant("other"), "k", id(2)).await?, KeyState::Claimed);
    assert_eq!(keys.claim(&acme, "K", id(2)).await?, KeyState::Claimed);
    Ok(())
}

#[tokio::test]
async fn a_completed_key_stays_completed() -> Result<()> {
    let server = server().await?;
    let keys = log(&server).await?.idempotency_keys().await?;
    let acme = tenant("acme");
    keys.complete(&acme, "unknown", id(1)).await?;
    assert_eq!(keys.claim(&acme, "unknown", id(2)).await?, KeyState::Claimed, "nothing was noted");
    keys.complete(&acme, "unknown", id(1)).await?;
    assert_eq!(keys.claim(&acme, "unknown", id(3)).await?, KeyState::Pending(id(2)));
    for _ in 0..2 {
        keys.complete(&acme, "unknown", id(2)).await?;
        assert_eq!(keys.claim(&acme, "unknown", id(3)).await?, KeyState::Done(id(2)));
        assert_eq!(keys.claim(&acme, "unknown", id(2)).await?, KeyState::Done(id(2)));
    }
    Ok(())
}

#[tokio::test]
async fn of_many_claims_at_once_one_gets_the_key() -> Result<()> {
    let server = server().await?;
    let keys = [
        log(&server).await?.idempotency_keys().await?,
        log(&server).await?.idempotency_keys().await?,
    ];
    let claim = async |keys: &IdempotencyKeys, number: u8| {
        anyhow::Ok((number, keys.claim(&tenant("acme"), "k", id(number)).await?))
    };
    let claims = (0..50).map(|number| claim(&keys[usize::from(number % 2)], number));
    let states = try_join_all(claims).await?;
    let winners: BTreeSet<u8> = states
        .iter()
        .filter(|(_, state)| *state == KeyState::Claimed)
        .map(|(number, _)| *number)
        .collect();
    let winner = *winners.first().expect("somebody gets it");
    assert_eq!(winners.len(), 1);
    assert!(
        states
            .iter()
            .all(|(number, state)| *number == winner || *state == KeyState::Pending(id(winner)))
    );
    Ok(())
}

#[tokio::test]
async fn a_claim_over_a_killed_server_is_made_once() -> Result<()> {
    let mut server = server().await?;
    let keys = log(&server).await?.idempotency_keys().await?;
    let acme = tenant("acme");
    server.kill().await?;
    let (claimed, restarted) = tokio::join!(keys.claim(&acme, "k", id(1)), server.restart());
    restarted?;
    assert_eq!(claimed?, KeyState::Claimed);
    assert_eq!(keys.claim(&acme, "k", id(2)).await?, KeyState::Pending(id(1)));
    Ok(())
}

#[tokio::test]
async fn a_key_that_was_deleted_or_spoilt_is_free() -> Result<()> {
    let server = server().await?;
    let keys = log(&server).await?.idempotency_keys().await?;
    let bucket = outsider(&server).await?.get_key_value("FANFARE_idempotency").await?;
    let acme = tenant("acme");
    let token = fanfare_domain::id::idempotency_token(&acme, "k");
    keys.claim(&acme, "k", id(1)).await?;
    bucket.delete(&token).await?;
    assert_eq!(keys.claim(&acme, "k", id(2)).await?, KeyState::Claimed);
    bucket.put(&token, "nonsense".into()).await?;
    assert_eq!(keys.claim(&acme, "k", id(3)).await?, KeyState::Claimed);
    assert_eq!(keys.claim(&acme, "k", id(4)).await?, KeyState::Pending(id(3)));
    Ok(())
}
