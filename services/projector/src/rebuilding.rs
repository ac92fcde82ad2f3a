//! Making the delivery log anew: drop it, and fold the streams up to where they end now.
//!
//! A projector that runs meanwhile finds that the log has moved under it, and stands by; if it comes
//! in between, the two take turns, and each goes on from where the tables are.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context as _;
use fanfare_delivery_log::{Database, Progress, Store, StoreError};
use fanfare_domain::Timestamp;
use fanfare_event_log::{EventLog, JournalFilter, journal::From};
use tokio::time::timeout;

use crate::{
    Settings, erasing,
    folding::{FoldError, Limits, Portion},
};

/// After how long without an event to ask again whether there is one to wait for.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// The messages that are behind it, of all streams, those counted that have aged out.
    pub done: u64,
    /// The messages that there are.
    pub of: u64,
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// How far the streams are folded.
    pub progress: Progress,
}

/// Where to stop: what comes later is the projector's.
#[derive(Clone, Copy)]
struct Ends {
    config: u64,
    events: u64,
    journal: u64,
}

/// Drops the delivery log and folds it again from an installation that is there, telling how far it
/// has come. What is older than the retention at `now` is left out.
pub async fn rebuild(
    settings: &Settings,
    now: Timestamp,
    mut show: impl FnMut(Folded),
) -> anyhow::Result<Rebuilt> {
    let erasing = erasing(settings)?;
    let log = EventLog::attach("projector", &settings.log).await.context("open the event log")?;
    let database = Database::new(&settings.database).context("read the database's URL")?;
    let forgotten = now.saturating_sub(settings.retention);
    let when = (forgotten, settings.limits());
    let rebuilt = anew(&log, (&database, erasing), when, &mut show).await;
    database.close().await;
    log.close().await;
    Ok(Rebuilt { progress: rebuilt.context("fold the delivery log anew")? })
}

async fn anew(
    log: &EventLog,
    (database, erasing): (&Database, BTreeSet<String>),
    (forgotten, limits): (Timestamp, Limits),
    show: &mut impl FnMut(Folded),
) -> Result<Progress, FoldError> {
    let ends = Ends {
        config: log.config_last().await?,
        events: log.events_last().await?,
        journal: log.journal_last().await?,
    };
    let store = Store::renew(database, log.inbox_identity(), forgotten).await?.erasing(erasing);
    loop {
        match fold(log, &store, (ends, limits), show).await {
            Err(FoldError::Store(StoreError::Moved)) => {}
            ended => return ended,
        }
    }
}

/// Folds the configuration, then all events, then all facts: the rows are the same in whatever
/// order, but what is of deleted endpoints is not written first.
async fn fold(
    log: &EventLog,
    store: &Store,
    (ends, limits): (Ends, Limits),
    show: &mut impl FnMut(Folded),
) -> Result<Progress, FoldError> {
    let mut progress = store.progress().await?;
    let mut tell = |progress: Progress| {
        let (config, events) = (progress.config.min(ends.config), progress.events.min(ends.events));
        let done = config + events + progress.journal.min(ends.journal);
        show(Folded { done, of: ends.config + ends.events + ends.journal });
    };
    let mut config = log.follow_config(progress.config + 1).await?;
    loop {
        let mut portion = Portion::of(progress);
        while !portion.is_full(limits) && config.pending().await? > 0 {
            if let Ok(change) = timeout(ASK_AGAIN, config.next()).await {
                portion.config(&change?);
            }
        }
        if portion.is_empty() {
            break;
        }
        progress = portion.write(store).await?;
        tell(progress);
    }
    let mut events = log.follow_events(progress.events + 1).await?;
    loop {
        let mut portion = Portion::of(progress);
        while !portion.is_full(limits) && events.pending().await? > 0 {
            // The last ones may be such as cannot be read.
            if let Ok(event) = timeout(ASK_AGAIN, events.next()).await {
                portion.event(&event?);
            }
        }
        if portion.is_empty() {
            break;
        }
        progress = portion.write(store).await?;
        tell(progress);
    }
    let from = From::Sequence(progress.journal + 1);
    let mut journal = log.journal(JournalFilter::All, from).await?;
    let mut more = progress.journal < ends.journal;
    while more {
        let mut portion = Portion::of(progress);
        while more && !portion.is_full(limits) {
            match journal.next_until(ends.journal).await? {
                Some(batch) => portion.journal(&batch),
                None => more = false,
            }
        }
        if !portion.is_empty() {
            progress = portion.write(store).await?;
            tell(progress);
        }
    }
    Ok(progress)
}
