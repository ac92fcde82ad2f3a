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
//! **Order.** Events of INBOX with the same ordering key (of the same tenant) are stored in the order
//! of INBOX, whatever is killed, frozen, cut off or full meanwhile:
//!
//! - one process reads INBOX at a time ([`post`]), and the others stand by. It takes INBOX over from
//!   the one before: everything unsettled is handed out to it at once, from the oldest message on;
//! - it never reads on behind a message that got lost on its way ([`intake`]);
//! - an event is sent only once the one before it in its line is stored ([`intake`]). So whatever is
//!   sent twice, by whomever, is a repeat of what is stored already or of the last in its line;
//! - who was stopped for a while sends nothing before the server has confirmed that it is still the
//!   one ([`guard`]). What was on its way for longer than the duplicate window (`duplicate_window`)
//!   is not known again: a process that is frozen in the midst of a write for longer than that may
//!   store one event of a key twice, the second time out of order.
//!
//! Events without a key are sent as they come, many at once. A request is stored when it is: in
//! the order of answers, also with a key. Who wants order waits for each answer.
//!
//! **Not here.** Whom an event is for is fan-out's.

mod admit;
mod counters;
mod directory;
mod door;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod instruments;
mod intake;
mod judge;
mod keys;
mod outlet;
mod post;
mod serve;
mod settings;
mod spans;
mod survey;

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use fanfare_domain::json::Limits;
use fanfare_event_log::{ConfigView, EventLog};
use fanfare_service::{Context, load_profiles};

use crate::{
    admit::Rules,
    directory::Directory,
    door::Door,
    guard::Guard,
    intake::{Examiner, Intake},
    judge::Judge,
    keys::Keys,
    outlet::Outlet,
    serve::{Clerk, Desk},
    spans::Spans,
    survey::Seen,
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
    let seen = Seen::default();
    instruments::register(context.metrics(), &counters, directory.clone(), &settings);
    instruments::register_streams(context.metrics(), &seen, log.shards());
    let (windows, limit) = (log.windows(), log.windows());
    context.metrics().writes("ingest", move || windows.under_way(), move || limit.limit());
    let (judge_clock, judge_counters) = (Arc::clone(&clock), Arc::clone(&counters));
    let judge = Arc::new(Judge::new(directory, rules, judge_clock, judge_counters));
    let keys = Keys::open(&log, Arc::clone(&clock), settings.log.duplicate_window)
        .await
        .context("open the idempotency keys")?;
    let examiner = Examiner {
        inbox_identity: log.inbox_identity().to_owned(),
        judge: Arc::clone(&judge),
        keys: keys.clone(),
        stored: tokio::sync::Mutex::new(log.event_ids()),
        keys_max: settings.keys_max,
    };
    let inbox =
        EventLog::open("ingest-inbox", &settings.log).await.context("open the event log")?;
    let intake = Arc::new(Intake {
        log: log.clone(),
        inbox: Mutex::new(inbox),
        settings: settings.log.clone(),
        examiner,
        counters: Arc::clone(&counters),
        batches_max: settings.batches_max,
        spans: Spans::new(context.traces().clone(), Arc::clone(&clock)),
        stop: stop.clone(),
    });
    let (timeout, survey_counters) = (settings.request_timeout, Arc::clone(&counters));
    let outlet = Outlet::new(log.publisher(), Guard::OPEN, stop.clone());
    let spans = Spans::new(context.traces().clone(), Arc::clone(&clock));
    let desk = Desk {
        clerk: Arc::new(Clerk { judge, keys, outlet, clock, counters, spans, timeout }),
        requests_max: settings.requests_max,
        bytes_max: settings.requests_bytes_max,
        stop: stop.clone(),
    };
    let requests = Door::open(&settings.log).await?;
    context.spawn("survey", seen.keep(log.clone(), survey_counters, stop.clone()));
    context.spawn("configuration", async move { follow.await.context("follow the configuration") });
    context.spawn("intake", async move {
        let reading = post::stand_for(log.clone(), intake, stop);
        let ended = tokio::try_join!(reading, desk.run(requests));
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
