//! What is kept of a tenant is removed; nothing of others.

use anyhow::Result;
use fanfare_domain::{Event, EventId, TenantId, Timestamp};
use fanfare_event_log::{
    EventLog,
    expunge::Part,
    idempotency::{IdempotencyKeys, KeyState},
};
use tokio::join;

use crate::support::{log, now, numbered, server};

fn tenant(id: &str) -> TenantId {
    id.parse().expect("a tenant's id")
}

/// Publishes an event with a key as ingest does; returns its sequence.
async fn publish(
    log: &EventLog,
    keys: &IdempotencyKeys,
    tenant: &TenantId,
    number: u16,
) -> Result<(u64, String)> {
    let key = format!("key-{number}");
    let idempotency_key = Some(key.clone());
    let mut event = Event { tenant: tenant.clone(), idempotency_key, ..numbered(number) };
    if tenant.as_str() == "other" {
        event.id = EventId::new(now(), [9; 10]);
    }
    assert_eq!(keys.claim(tenant, &key, event.id).await?, KeyState::Claimed, "{key}");
    let stored = log.publisher().event(&event).await?.stored().await?;
    keys.complete(tenant, &key, event.id).await?;
    Ok((stored.sequence, key))
}

#[tokio::test]
async fn no_key_outlives_its_event_whatever_is_published_meanwhile() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let keys = log.idempotency_keys().await?;
    let (acme, other) = (tenant("acme"), tenant("other"));
    let (others, _) = publish(&log, &keys, &other, 0).await?;
    let mut published = Vec::new();
    for number in 0..50 {
        published.push(publish(&log, &keys, &acme, number).await?);
    }
    let meanwhile = async {
        let mut published = Vec::new();
        for number in 50..150 {
            published.push(publish(&log, &keys, &acme, number).await?);
        }
        anyhow::Ok(published)
    };
    let (purged, meanwhile) = join!(log.purge_events(&acme, now()), meanwhile);
    let purged = purged?;
    assert!(purged.events >= 50 && purged.keys >= 50, "{purged:?}");
    published.extend(meanwhile?);
    let own = EventId::new(Timestamp::EPOCH, [7; 10]);
    for (sequence, key) in &published {
        if log.event(*sequence).await?.is_none() {
            assert_eq!(keys.claim(&acme, key, own).await?, KeyState::Claimed, "{key}");
        }
    }
    // The next time nothing is left.
    log.purge_events(&acme, now()).await?;
    for (sequence, key) in &published {
        assert_eq!(log.event(*sequence).await?, None, "{key}");
        assert_eq!(keys.claim(&acme, key, own).await?, KeyState::Claimed, "{key}");
    }
    assert!(log.event(others).await?.is_some());
    assert!(matches!(keys.claim(&other, "key-0", own).await?, KeyState::Done(_)));
    let again = log.purge_events(&acme, now()).await?;
    assert_eq!((again.events, again.keys), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_tenant_of_whom_nothing_is_kept_is_removed_too() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let acme = tenant("acme");
    assert_eq!(log.purge_events(&acme, now()).await?.events, 0);
    for part in Part::ALL {
        assert_eq!(log.purge_tenant(&acme, part).await?, 0, "{part:?}");
    }
    assert!(log.last_changes_of(&acme, 0).await?.is_empty());
    assert!(log.tasks_settled_before().await? > log.tasks_last().await?, "there is no task");
    Ok(())
}
