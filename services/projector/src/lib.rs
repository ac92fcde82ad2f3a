//! Keeps the delivery log: folds events, facts and changes of the configuration into tables that can
//! be searched.
//!
//! | reads   | writes           |
//! | ------- | ---------------- |
//! | CONFIG  | the delivery log |
//! | EVENTS  |                  |
//! | JOURNAL |                  |
//!
//! **Guarantee.** What is in the tables is the fold of the streams up to the progress that stands
//! beside it, written in the same transaction. Killed anywhere, it goes on from there. Of several
//! projectors on one database one makes progress, and the others stand by: see
//! `fanfare_delivery_log`'s `store`.
//!
//! **Not here.** Nothing that delivers waits for this service or its database, and nobody but those
//! who search reads what it writes.

mod counters;
mod folding;
mod projecting;
mod rebuilding;
mod settings;

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Context as _;
use fanfare_delivery_log::Database;
use fanfare_domain::profile::HistoryRule;
use fanfare_event_log::EventLog;
use fanfare_service::{Context, load_profiles};

use crate::{counters::Counters, projecting::Projecting};

pub use fanfare_delivery_log::Whose;
pub use rebuilding::{Folded, Rebuilt, rebuild};
pub use settings::Settings;

/// The names of the profiles with which the history of a deleted endpoint is removed.
fn erasing(settings: &Settings) -> anyhow::Result<BTreeSet<String>> {
    let profiles = load_profiles(settings.profiles_dir.as_deref()).context("load the profiles")?;
    let erasing = profiles.iter().filter(|profile| profile.history == HistoryRule::Delete);
    Ok(erasing.map(|profile| profile.name.clone()).collect())
}

/// Connects to the log and spawns what folds it. The database may be away, and is waited for.
pub async fn start(context: &mut Context, settings: Settings) -> anyhow::Result<()> {
    let readiness = context.readiness("projecting");
    let erasing = erasing(&settings)?;
    let log = EventLog::open("projector", &settings.log).await.context("open the event log")?;
    let database = Database::new(&settings.database).context("read the database's URL")?;
    let counters = Arc::<Counters>::default();
    let limits = settings.limits();
    counters::register(context.metrics(), &counters, (context.clock(), limits));
    let levels = database.clone();
    context.metrics().database("projector", move || levels.levels());
    let projecting = Projecting {
        counters,
        log: log.clone(),
        database: database.clone(),
        erasing,
        clock: context.clock(),
        retention: settings.retention,
        limits,
        stop: context.stop(),
    };
    context.spawn("projecting", async move {
        let ended = projecting.run().await;
        database.close().await;
        log.close().await;
        ended
    });
    readiness.ready();
    Ok(())
}
