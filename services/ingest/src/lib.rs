//! Turns what producers send into events: checked, stored once, and never lost.
//!
//! | reads                         | writes   |
//! | ----------------------------- | -------- |
//! | INBOX                         | EVENTS   |
//! | requests (`<prefix>.publish`) | REJECTED |
//! | CONFIG                        |          |
//!
//! **Guarantee.** A message of INBOX is settled only after its event is stored, or after it was
//! refused for a reason that stays. An event's id is a function of its message, and an idempotency
//! key stands for one event, so that a crash at any point makes no second event. A request is
//! answered with an id only after its event is stored. No message ends or stops the service.
//!
//! **Repeats.** What a producer sends twice is one event if both carry the same idempotency key,
//! for 24 hours, by whichever way they come. A `Nats-Msg-Id` on INBOX is something else: the
//! servers know it again for the stream's duplicate window (`duplicate_window`, two minutes by
//! default) and drop the repeat; a repeat after that is another message, and another event. With
//! neither there is nothing to know a repeat by. So who publishes to INBOX, hears nothing, and
//! repeats it, gives a key: it costs one write to the key-value bucket, which is why a
//! `Nats-Msg-Id` is not taken for one.
//!
//! **Order.** Events are written in the order of INBOX, except around a loss of the connection
//! and where EVENTS is full.
//!
//! **Not here.** Whom an event is for is fan-out's.

mod admit;
mod counters;
mod directory;
mod door;
mod intake;
mod judge;
mod keys;
mod outlet;
mod serve;
mod settings;

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use fanfare_domain::json::Limits;
use fanfare_event_log::{ConfigView, EventLog};
use fanfare_service::{Context, load_profiles};

use crate::{
    admit::Rules,
    directory::Directory,
    door::Door,
    intake::{Finisher, Intake, Parts, Sweeper},
    judge::Judge,
    keys::Keys,
    outlet::Outlet,
    serve::{Clerk, Desk},
};

pub use counters::Counters;
pub use settings::Settings;

/// How much larger than its data a message of the log may get: the rest of the event, and what
/// later records say beside it.
const HEADROOM: u64 = 128 * 1_024;

/// Connects to the log, folds the configuration, and spawns what takes messages and requests.
pub async fn start(context: &mut Context, settings: Settings) -> anyhow::Result<()> {
    start_counted(context, settings, Arc::default()).await
}

/// Like [`start`], counting what is done.
pub async fn start_counted(
    context: &mut Context,
    settings: Settings,
    counters: Arc<Counters>,
) -> anyhow::Result<()> {
    let readiness = context.readiness("intake");
    let (stop, clock) = (context.stop(), context.clock());
    let rules = rules(&settings).context("load profiles")?;
    let log = EventLog::open("ingest", &settings.log).await.context("open the event log")?;
    check_sizes(&settings, log.payload_max())?;
    let (directory, follow) = ConfigView::<Directory>::start(&log, stop.clone())
        .await
        .context("read the configuration")?;
    let (judge_clock, judge_counters) = (Arc::clone(&clock), Arc::clone(&counters));
    let judge = Arc::new(Judge::new(directory, rules, judge_clock, judge_counters));
    let keys = Keys::open(&log, Arc::clone(&clock), settings.log.duplicate_window)
        .await
        .context("open the idempotency keys")?;
    let outlet = || Outlet::new(log.publisher(), stop.clone());
    let intake = Intake::new(Parts {
        inbox_identity: log.inbox_identity().to_owned(),
        judge: Arc::clone(&judge),
        keys: keys.clone(),
        finisher: Finisher {
            outlet: outlet(),
            keys: keys.clone(),
            counters: Arc::clone(&counters),
        },
        sweeper: Sweeper { log: log.clone(), outlet: outlet(), counters: Arc::clone(&counters) },
        batches_max: settings.batches_max,
        keys_max: settings.keys_max,
        stop: stop.clone(),
    });
    let timeout = settings.request_timeout;
    let desk = Desk {
        // A window of its own: a flood of messages must not hold requests back.
        clerk: Arc::new(Clerk { judge, keys, outlet: outlet(), clock, counters, timeout }),
        requests_max: settings.requests_max,
        bytes_max: settings.requests_bytes_max,
        stop,
    };
    let inbox = Door::open(&settings.log).await?;
    let requests = Door::open(&settings.log).await?;
    context.spawn("configuration", async move { follow.await.context("follow the configuration") });
    context.spawn("intake", async move {
        let ended = tokio::try_join!(intake.run(inbox), desk.run(requests));
        log.close().await;
        ended.map(|((), ())| ())
    });
    readiness.ready();
    Ok(())
}

fn rules(settings: &Settings) -> anyhow::Result<Rules> {
    let bytes_max = usize::try_from(settings.data_bytes_max).unwrap_or(usize::MAX);
    Ok(Rules {
        limits: Limits { bytes_max, depth_max: settings.data_depth_max },
        profiles: load_profiles(settings.profiles_dir.as_deref())?,
    })
}

/// Refuses to start where accepted data might become too large for the servers later.
fn check_sizes(settings: &Settings, payload_max: usize) -> anyhow::Result<()> {
    let payload_max = u64::try_from(payload_max).unwrap_or(u64::MAX);
    let needed = settings.data_bytes_max.saturating_add(HEADROOM);
    ensure!(
        needed <= payload_max,
        "data_bytes_max is {}, so the servers' max_payload must be at least {needed}, and it is \
         {payload_max}",
        settings.data_bytes_max,
    );
    Ok(())
}
