//! The delivery log through the API: away, unready, and full of two tenants' things.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_delivery_log::{Changes, Database, Progress, Store, Streams};
use fanfare_domain::{
    Conclusion, DeliveryId, EndpointId, Event, EventId, Fact, Fault, Outcome, Record, StoredEvent,
    TenantId, TraceContext,
    fact::{AttemptMade, ConclusionReason, DeliveryConcluded},
};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use fanfare_testkit::delivery_of;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{World, operations, streams};

/// What there is of one tenant.
struct Things {
    event: EventId,
    endpoint: EndpointId,
    delivery: DeliveryId,
}

fn record(fact: Fact) -> Record {
    Record { recorded_at: SystemClock.now(), trace: TraceContext::default(), fact }
}

/// Publishes an event of a tenant to EVENTS.
pub(crate) async fn publish(world: &World, tenant: &TenantId) -> Result<StoredEvent> {
    let now = SystemClock.now();
    let event = Event {
        id: EventId::new(now, random_bytes()),
        tenant: tenant.clone(),
        event_type: "a.b".parse()?,
        occurred_at: now,
        accepted_at: None,
        config_revision: None,
        data: "{\"n\":1.10}".into(),
        ordering_key: None,
        attributes: BTreeMap::from([(String::from("region"), String::from("eu"))]),
        idempotency_key: None,
        trace: TraceContext::default(),
    };
    let written = world.log.publisher().event(&event).await?.stored().await?;
    world.log.event(written.sequence).await?.context("the event")
}

/// Folds an exhausted delivery of a tenant, of one attempt that timed out.
fn fold(changes: &mut Changes, stored: &StoredEvent, endpoint: EndpointId) -> DeliveryId {
    let delivery = delivery_of(stored, endpoint, 0);
    let made = Fact::AttemptMade(Box::new(AttemptMade {
        delivery: delivery.clone(),
        attempt: 1,
        started_at: SystemClock.now(),
        duration: Duration::from_millis(12),
        timing: fanfare_domain::fact::Timing::default(),
        outcome: Outcome::Failed(Fault::TimedOut),
        detail: String::new(),
        config_revision: 1,
        url: Arc::from("https://example.com/hook"),
        signature: String::from("abc"),
        response_headers: Vec::new(),
        response_body: "".into(),
        response_truncated: false,
        retry_at: None,
        batch: None,
        trace_sampled: None,
    }));
    let ended = Fact::DeliveryConcluded(DeliveryConcluded {
        delivery: delivery.clone(),
        conclusion: Conclusion::Exhausted,
        attempts: 1,
        reason: ConclusionReason::AttemptsSpent,
    });
    changes.event(stored);
    changes.journal(stored.sequence, &[record(made), record(ended)]);
    delivery.id
}

/// Fills the log with things of each tenant.
async fn fill<const N: usize>(world: &World, tenants: [&str; N]) -> Result<Vec<Things>> {
    let mut changes = Changes::default();
    let mut things = Vec::new();
    for tenant in tenants {
        world.tenant(tenant, "kyberaccess").await?;
        let endpoint: EndpointId = world.endpoint(tenant).await?.parse()?;
        let stored = publish(world, &tenant.parse()?).await?;
        let delivery = fold(&mut changes, &stored, endpoint);
        things.push(Things { event: stored.event.id, endpoint, delivery });
    }
    let mut config = world.log.follow_config(1).await?;
    let last = world.log.config_last().await?;
    loop {
        let stored = config.next().await?;
        changes.config(stored.revision, stored.stored_at, &stored.change);
        if stored.revision == last {
            break;
        }
    }
    let store = Store::open(&world.database, &streams(&world.log).await?).await?;
    let after = Progress { events: 9, journal: 9, config: last };
    store.apply(changes, Progress::default(), after).await?;
    Ok(things)
}

#[tokio::test]
async fn a_tenants_key_finds_its_own_things_and_no_others() -> Result<()> {
    let world = World::new().await?;
    let things = fill(&world, ["acme", "other"]).await?;
    let [own, others] = things.as_slice() else { anyhow::bail!("two tenants") };
    let (_, key) = world.key(Some("acme"), "read").await?;
    let get =
        async |path: String| world.api.call(Method::GET, &path, Some(&key), Value::Null).await;
    for list in ["deliveries", "dead-letters", "events", "audit"] {
        let found = get(format!("/v1/tenants/acme/{list}")).await?;
        let owners: Vec<_> = found.data().iter().map(|one| &one["tenant_id"]).collect();
        assert!(
            !owners.is_empty() && owners.iter().all(|one| **one == "acme"),
            "{list}: {found:?}"
        );
        assert_eq!(get(format!("/v1/tenants/other/{list}")).await?.status, StatusCode::NOT_FOUND);
    }
    for query in [
        format!("deliveries?endpoint={}", others.endpoint),
        format!("deliveries?event={}", others.event),
        format!("deliveries?search={}", others.delivery),
        format!("deliveries?search={}", others.event),
        format!("events?search={}", others.event),
        format!("dead-letters?endpoint={}", others.endpoint),
        format!("audit?id={}", others.endpoint),
    ] {
        let found = get(format!("/v1/tenants/acme/{query}")).await?;
        assert_eq!((found.status, found.data()), (StatusCode::OK, &[][..]), "{query}");
    }
    for (things, status) in [(own, StatusCode::OK), (others, StatusCode::NOT_FOUND)] {
        for path in [
            format!("events/{}", things.event),
            format!("deliveries/{}/attempts", things.delivery),
            format!("deliveries/{}/attempts/1", things.delivery),
            format!("endpoints/{}/deliveries", things.endpoint),
            format!("endpoints/{}/statistics", things.endpoint),
        ] {
            let found = get(format!("/v1/tenants/acme/{path}")).await?;
            assert_eq!(found.status, status, "{path}: {found:?}");
        }
    }
    assert_eq!(get(String::from("/v1/audit")).await?.status, StatusCode::FORBIDDEN);
    assert_eq!(world.get("/v1/audit?tenant=other").await?.status, StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn an_attempt_shows_as_the_profile_shows_it_and_data_as_it_came() -> Result<()> {
    let world = World::new().await?;
    let things = fill(&world, ["acme"]).await?;
    let own = things.first().context("a tenant's things")?;
    let attempt = format!("/v1/tenants/acme/deliveries/{}/attempts/1", own.delivery);
    let attempt = world.get(&attempt).await?;
    assert_eq!((&attempt.body["status"], attempt.text("fault")), (&json!(408), "timed_out".into()));
    assert_eq!(attempt.body["response"], Value::Null);
    // The revision on record is the tenant's and not the endpoint's, so that nobody can tell.
    assert_eq!(attempt.body["request"]["fidelity"], "unverified");
    assert!(attempt.body["request"]["body"].is_string(), "{attempt:?}");
    let dead = world.get("/v1/tenants/acme/dead-letters").await?;
    assert_eq!((&dead.body["data"][0]["last_status"]), &json!(408), "{dead:?}");
    let path = format!("/v1/tenants/acme/events/{}", own.event);
    let told = world.api.request(Method::GET, &path).bearer_auth(&world.operator).send().await?;
    let told = told.text().await?;
    assert!(told.contains(r#""data":{"n":1.10}"#), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_log_that_is_away_stops_nothing_else() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let unready = ["nowhere.sqlite", "empty.sqlite", "foreign.sqlite"].map(|name| world.file(name));
    drop(std::fs::File::create(&unready[1])?);
    let foreign = Database::new(&format!("sqlite:{}", unready[2].display()).parse()?)?;
    let ours = streams(&world.log).await?;
    let theirs =
        Streams { inbox: String::from("ANOTHER"), events: String::from("ANOTHER"), ..ours };
    Store::open(&foreign, &theirs).await?;
    for path in unready {
        let api = world.another_on(&path).await?;
        let get = async |path: &str| {
            api.call(Method::GET, path, Some(&world.operator), Value::Null).await
        };
        for list in ["deliveries", "dead-letters", "events", "audit"] {
            let refused = get(&format!("/v1/tenants/acme/{list}")).await?;
            assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
            assert_eq!(refused.code(), "delivery_log_unavailable");
        }
        assert_eq!(get("/v1/audit").await?.code(), "delivery_log_unavailable");
        for path in ["/v1/tenants/acme", "/v1/tenants/acme/endpoints", "/readyz"] {
            assert_eq!(get(path).await?.status, StatusCode::OK, "{path}");
        }
        api.stop().await?;
    }
    assert!(!world.file("nowhere.sqlite").exists(), "a reader makes no file");
    Ok(())
}

#[test]
fn every_list_of_the_log_is_in_the_document() {
    let names: Vec<String> = operations().into_iter().map(|operation| operation.id).collect();
    for name in ["list_deliveries", "list_events", "list_dead_letters", "list_audit", "get_attempt"]
    {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}
