//! Turns each accepted event into deliveries: one for every endpoint that wants it.
//!
//! | reads           | writes     |
//! | --------------- | ---------- |
//! | EVENTS          | JOURNAL    |
//! | CONFIG          | DELIVERIES |
//! | bucket of feeds | allowances |
//! | JOBS            | JOBS       |
//!
//! **Guarantee.** An event is settled only after its routing and all its tasks are stored. Ids of
//! deliveries and tasks are made from the event and its endpoints, and a routing that is on record
//! is never made again, so that a crash at any point adds nothing and loses nothing. Which endpoints
//! an event is for is decided by when it was accepted, never by when it is routed. An endpoint that
//! is fed gets no task: its shard's owner reads EVENTS. A condition on the content is asked once
//! the type has matched; one that gives no answer counts as if it did not hold.
//!
//! **Not here.** Sending is the dispatcher's, and so is parking what is for a paused endpoint.

mod allowances;
mod conditions;
mod costly;
mod counters;
#[doc(hidden)]
pub mod fuzzing;
mod instruments;
mod intake;
mod outlet;
mod recorded;
mod replays;
mod routes;
mod routing;
mod settings;
mod spans;
mod together;
mod work;

use std::sync::Arc;

use anyhow::Context as _;
use fanfare_event_log::{ConfigView, EventLog, FeedsView, JobsView};
use fanfare_service::Context;

use crate::{
    allowances::Allowances,
    conditions::Conditions,
    costly::Tools,
    intake::{Intake, Parts},
    outlet::Outlet,
    recorded::Lookup,
    replays::Desk,
    routes::Routes,
    spans::Spans,
    work::Work,
};

pub use counters::Counters;
pub use settings::Settings;

/// Connects to the log, folds the configuration, and spawns what routes events.
pub async fn start(context: &mut Context, settings: Settings) -> anyhow::Result<()> {
    start_counted(context, settings, Arc::default()).await
}

/// Like [`start`], counting what is done.
pub async fn start_counted(
    context: &mut Context,
    settings: Settings,
    counters: Arc<Counters>,
) -> anyhow::Result<()> {
    let readiness = context.readiness("routing");
    let log = EventLog::open("fan-out", &settings.log).await.context("open the event log")?;
    // What is being written when the service stops needs the log until it is written.
    let (routes, follow) = ConfigView::<Routes>::start(&log, context.support_stop())
        .await
        .context("read the configuration")?;
    let (feeds, follow_feeds) =
        FeedsView::start(&log, context.support_stop()).await.context("read the feeds")?;
    let (jobs, follow_jobs) =
        JobsView::start(&log, context.support_stop()).await.context("read the jobs")?;
    if settings.log.replicas > 1 {
        routes.read(Routes::expect_two_clocks);
    }
    let events = log.read_events().await.context("read events")?;
    let stop = context.stop();
    let outlet = Outlet::new(log.publisher(), stop.clone());
    let allowances = Allowances::new(log.clone(), context.clock(), stop.clone());
    let width = instruments::width(context.metrics());
    let batches_max = settings.batches_max;
    instruments::register(context.metrics(), &counters, routes.clone(), batches_max);
    let conditions = Conditions::new(context.clock(), Arc::clone(&counters), stop.clone());
    instruments::register_waits(context.metrics(), &log, &conditions);
    let spans = Spans::new(context.traces().clone(), context.clock());
    let desk = Desk {
        log: log.clone(),
        jobs,
        routes: routes.clone(),
        conditions: conditions.clone(),
        outlet: outlet.clone(),
        allowances: Allowances::new(log.clone(), context.clock(), stop.clone()),
        clock: context.clock(),
        spans: spans.clone(),
        counters: Arc::clone(&counters),
    };
    let writes = (Arc::clone(&counters), width, spans);
    let tools = Tools {
        log: log.clone(),
        clock: context.clock(),
        routes,
        feeds,
        conditions,
        work: Work::new(log.clone(), outlet, allowances, settings.tasks_max, writes),
    };
    let intake = Intake::new(Parts {
        lookup: Lookup::new(log.clone()),
        tools,
        counters,
        batches_max,
        ack_wait: settings.log.ack_wait,
        stop: stop.clone(),
    });
    context.spawn("routing", intake.run(events));
    context.spawn("replays", desk.take_part(stop));
    context.spawn_support("configuration", async move {
        tokio::try_join!(
            async { follow.await.context("follow the configuration") },
            async { follow_feeds.await.context("follow the feeds") },
            async { follow_jobs.await.context("follow the jobs") },
        )?;
        log.close().await;
        Ok(())
    });
    readiness.ready();
    Ok(())
}
