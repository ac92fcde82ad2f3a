//! Nothing that delivers waits for the delivery log: while its PostgreSQL is away, `fanfare up` delivers
//! what is published, and the log has it all once PostgreSQL is back.

use anyhow::{Context as _, Result, ensure};
use fanfare_testkit::{Postgres, wait_until};
use serde_json::json;

use crate::support::{Hooks, Refused, up::Up};

/// How many events there are before, and while it is away.
const BEFORE: usize = 3;
const AWAY: usize = 12;

const DELIVERED: &str = "/v1/tenants/acme/deliveries?state=delivered&limit=100";

async fn publish(up: &Up, (from, count): (usize, usize)) -> Result<()> {
    for number in from..from + count {
        up.api.publish("acme", "order.paid", "{}", &format!("key-{number}")).await?;
    }
    Ok(())
}

/// Waits until the endpoint got so many requests.
async fn received(hooks: &Hooks, count: usize) {
    wait_until("the endpoint to get everything", async || {
        if hooks.count() == count { Ok(()) } else { Err(hooks.count()) }
    })
    .await;
}

/// Waits until the log says that so many were delivered.
async fn logged(up: &Up, count: usize) {
    wait_until("the delivery log to have everything", async || {
        let found = up.api.get(DELIVERED).await.map_err(|error| format!("{error:#}"))?;
        let found = found["data"].as_array().map_or(0, Vec::len);
        if found == count { Ok(()) } else { Err(format!("{found} of {count}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_delivered_while_the_delivery_logs_database_is_away() -> Result<()> {
    let what = "events_are_delivered_while_the_delivery_logs_database_is_away";
    let Some(mut postgres) = Postgres::start(what).await? else { return Ok(()) };
    let (url, hooks) = (postgres.url(), Hooks::start().await?);
    let database = ["FANFARE_PROJECTOR__DATABASE", "FANFARE_API__DATABASE"];
    let up = Up::start(&database.map(|name| (name, url.as_str()))).await?;
    up.api.tenant("acme", "standard-webhooks").await?;
    let new = json!({"url": hooks.url("/takes"), "event_types": [">"]});
    up.api.endpoint("acme", &new).await?;
    publish(&up, (0, BEFORE)).await?;
    received(&hooks, BEFORE).await;
    logged(&up, BEFORE).await;
    postgres.stop();
    publish(&up, (BEFORE, AWAY)).await?;
    received(&hooks, BEFORE + AWAY).await;
    let refused = up.api.get(DELIVERED).await.err().context("there is no log")?;
    let refused: Refused = refused.downcast()?;
    ensure!(refused.code() == "delivery_log_unavailable", "{refused:?}");
    for probe in ["/healthz", "/readyz"] {
        ensure!(up.get(probe).await?.0 == 200, "{probe}: nothing else suffers");
    }
    postgres.restart().await?;
    logged(&up, BEFORE + AWAY).await;
    ensure!(hooks.count() == BEFORE + AWAY, "and each was delivered once");
    up.end().await
}
