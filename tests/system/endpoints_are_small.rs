//! An endpoint costs each service less than a kibibyte of memory.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fanfare_domain::{
    Change, Endpoint, EndpointId, EndpointState, Entity, Timestamp, TraceContext, endpoint::Secret,
    seal::Sealed,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::support::{Expected, Route, Scene, Service};

const ENDPOINTS: u64 = 20_000;
const BYTES_MAX: u64 = 1_024;

/// The services that know endpoints.
const SERVICES: [Service; 4] =
    [Service::FanOut, Service::Dispatcher, Service::RetryScheduler, Service::Api];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_costs_each_service_less_than_a_kibibyte() -> Result<()> {
    let mut scene = Scene::set().await?;
    // What a service needs for its first delivery counts for nothing here.
    scene.subscribe("/first", &["first"], &["1s"]).await?;
    deliver(&mut scene, "first").await?;
    let before = memory(&scene)?;
    let revision = AtomicU64::new(0);
    stream::iter(0..ENDPOINTS)
        .map(async |number| {
            let revised = scene.log.change(&creation(number)?, 0).await?;
            revision.fetch_max(revised, Ordering::Relaxed);
            anyhow::Ok(())
        })
        .buffer_unordered(64)
        .try_collect::<Vec<()>>()
        .await?;
    // Whoever delivers this has read all that was written before.
    scene.subscribe("/last", &["last"], &["1s"]).await?;
    deliver(&mut scene, "last").await?;
    let after = memory(&scene)?;
    for service in SERVICES {
        let grown = after[&service].saturating_sub(before[&service]);
        let each = grown / ENDPOINTS;
        writeln!(std::io::stderr(), "endpoints_are_small: {service}: {each} bytes each")?;
        ensure!(each < BYTES_MAX, "{service} takes {each} bytes for an endpoint");
    }
    // They were made without the API, and nobody was told of them.
    scene.finish(Expected::Calm).await
}

async fn deliver(scene: &mut Scene, event_type: &str) -> Result<()> {
    let planned = scene.plan(event_type, Route::Inbox)?;
    scene.publish(vec![planned]).await?;
    scene.concluded(Duration::from_mins(1)).await
}

/// The resident memory of each service, in bytes.
fn memory(scene: &Scene) -> Result<BTreeMap<Service, u64>> {
    SERVICES.into_iter().map(|service| Ok((service, scene.installation.memory(service)?))).collect()
}

/// An endpoint like many: an address, a secret, one type.
fn creation(number: u64) -> Result<Change> {
    let mut chance = [0; 10];
    chance[..8].copy_from_slice(&number.to_be_bytes());
    let made_at = Timestamp::from_millis(1_700_000_000_000 + number);
    let sealed = Sealed { key_id: String::from("0badcafe"), bytes: Bytes::from(vec![7; 78]) };
    let endpoint = Endpoint {
        id: EndpointId::new(made_at, chance),
        tenant: crate::support::scene::tenant()?,
        url: format!("https://hooks.customer-{number}.example.com/webhooks/fanfare/{number}"),
        name: format!("Customer {number}"),
        description: String::new(),
        filters: vec![format!("rest.t{}", number % 1_000).parse().context("a filter")?],
        condition: None,
        secrets: vec![Secret { sealed, created_at: made_at, expires_at: None }],
        headers: BTreeMap::new(),
        state: EndpointState::Active,
        retry: None,
        timeout: None,
        concurrency: None,
        rate_limit: None,
        batch: None,
        cancelled_before: None,
        trace_context: None,
        security: fanfare_domain::endpoint::Security::default(),
        ordering: fanfare_domain::endpoint::Ordering::None,
        metadata: BTreeMap::new(),
        created_at: made_at,
        updated_at: made_at,
    };
    Ok(Change {
        entity: Entity::Endpoint(Arc::new(endpoint)),
        deleted: false,
        actor: String::from("test"),
        reason: String::new(),
        trace: TraceContext::default(),
    })
}
