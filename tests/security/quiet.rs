//! Two hundred endpoints that misbehave at once are nobody else's business: the others get what is
//! theirs while every one of these still hangs.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{EndpointId, Fact, Outcome};
use fanfare_event_log::{
    EventLog,
    journal::{From, JournalFilter},
};
use fanfare_testkit::{
    receiver::{Hostile, Receiver, trick},
    wait_until,
};
use serde_json::json;

use crate::{
    support::{Api, EAGER, Expected, Installation, Options, Service},
    world::new_endpoint,
};

const TENANT: &str = "quiet";
/// How many endpoints misbehave.
const HOSTILE: usize = 200;
/// What they do: each of it holds a request for as long as it may take, and floods are paced.
const TRICKS: [&str; 10] = [
    "silence",
    "deafness",
    "slow-status",
    "slow-head",
    "slow-body",
    "slow-announced-body",
    "slow-chunks",
    "slow-continues",
    "tls-silence",
    "tls-drip",
];
/// How long each of their requests may take.
const HANGS: Duration = Duration::from_mins(1);
/// Endpoints that behave, and what they get.
const HEALTHY: usize = 10;
const EVENTS: usize = 10;
/// How much more memory the dispatcher may take meanwhile, in bytes.
const MEMORY_MAX: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_endpoints_have_everything_while_two_hundred_others_hang() -> Result<()> {
    let options = Options {
        profile: EAGER,
        // What TLS would take longer for than a request may take would end before it.
        variables: vec![(
            String::from("FANFARE_DISPATCHER__EGRESS__TIMEOUT_CONNECT"),
            String::from("60s"),
        )],
        ..Options::default()
    };
    let installation = Installation::start_with(options).await?;
    let api = installation.api();
    api.tenant(TENANT, EAGER).await?;
    let mut servers = Vec::new();
    for name in TRICKS {
        servers.push(Hostile::start(&trick(name).context("a trick")?).await?);
    }
    let hostile = hostile_endpoints(api, &servers).await?;
    let (receiver, mut healthy) = (Receiver::start().await?, BTreeSet::new());
    for number in 0..HEALTHY {
        let new = new_endpoint(&receiver.url(&format!("/{number}")));
        healthy.insert(api.endpoint(TENANT, &new).await?.id.parse::<EndpointId>()?);
    }
    let before = installation.memory(Service::Dispatcher)?;
    let events: Vec<_> = (0..EVENTS).map(|n| json!({ "type": "a.b", "data": n })).collect();
    // First the hostile ones get hold of everything that they can get hold of.
    let first = json!({ "events": events });
    api.post(&format!("/v1/tenants/{TENANT}/events/batch"), &first).await?;
    wait_until("the others to hang", async || {
        let count: u64 = servers.iter().map(Hostile::connections).sum();
        if count >= u64::try_from(HOSTILE).unwrap_or(u64::MAX) { Ok(()) } else { Err(count) }
    })
    .await;
    api.post(&format!("/v1/tenants/{TENANT}/events/batch"), &first).await?;
    wait_until("the healthy endpoints to have everything", async || {
        let count = receiver.count();
        if count >= 2 * HEALTHY * EVENTS { Ok(()) } else { Err(count) }
    })
    .await;
    let log = installation.log().await?;
    let ended = ended_before_the_healthy(&log, &healthy, &hostile).await?;
    ensure!(ended == 0, "{ended} of the hostile requests had ended before the healthy were done");
    let more = installation.memory(Service::Dispatcher)?.saturating_sub(before);
    ensure!(more < MEMORY_MAX, "{more} bytes more for requests that hang");
    // What hangs ends with those who hold it.
    drop((servers, receiver));
    log.close().await;
    installation.finish(Expected::Calm).await
}

/// Makes the endpoints that misbehave.
async fn hostile_endpoints(api: &Api, servers: &[Hostile]) -> Result<BTreeSet<EndpointId>> {
    let mut made = BTreeSet::new();
    for number in 0..HOSTILE {
        let server = &servers[number % servers.len()];
        let mut new = new_endpoint(&server.url(&format!("/{number}")));
        new["timeout_ms"] = json!(u64::try_from(HANGS.as_millis())?);
        // More at once would be more than the machine's, and no worse for the others.
        new["concurrency"] = json!(2);
        made.insert(api.endpoint(TENANT, &new).await?.id.parse()?);
    }
    Ok(made)
}

/// Waits until all deliveries of the healthy endpoints are concluded; returns how many attempts of
/// the hostile ones were on record by then.
async fn ended_before_the_healthy(
    log: &EventLog,
    healthy: &BTreeSet<EndpointId>,
    hostile: &BTreeSet<EndpointId>,
) -> Result<usize> {
    let mut reader = log.journal(JournalFilter::All, From::Sequence(1)).await?;
    let (mut delivered, mut ended) = (0, 0);
    wait_until("the healthy endpoints' deliveries to be concluded", async || {
        let last = log.journal_last().await.map_err(|error| format!("{error:#}"))?;
        while let Ok(Some(batch)) = reader.next_until(last).await {
            for record in batch.facts {
                match record.fact {
                    Fact::DeliveryConcluded(it) if healthy.contains(&it.delivery.endpoint) => {
                        delivered += 1;
                    }
                    Fact::AttemptMade(it) if hostile.contains(&it.delivery.endpoint) => {
                        // A body without end is an answer, whenever it is done with.
                        ended += usize::from(matches!(it.outcome, Outcome::Failed(_)));
                    }
                    Fact::DeliveryConcluded(_)
                    | Fact::AttemptMade(_)
                    | Fact::ShardClaimed(_)
                    | Fact::ShardReleased(_)
                    | Fact::DeliveryDeferred(_)
                    | Fact::DeliveryParked(_)
                    | Fact::RetryScheduled(_)
                    | Fact::EventRouted(_) => {}
                }
            }
        }
        if delivered >= 2 * HEALTHY * EVENTS { Ok(()) } else { Err(delivered.to_string()) }
    })
    .await;
    Ok(ended)
}
