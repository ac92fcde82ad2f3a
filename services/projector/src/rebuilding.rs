//! Making the delivery log anew: drop it, and fold the streams up to where they end now.
//!
//! A projector that runs meanwhile finds that the log has moved under it, and stands by; if it comes
//! in between, the two take turns, and each goes on from where the tables are.

use std::collections::BTreeSet;

use anyhow::Context as _;
use fanfare_delivery_log::{Database, Progress, Store, StoreError, Whose};
use fanfare_domain::Timestamp;
use fanfare_event_log::{EventLog, JournalFilter, Marks, journal::From};

use crate::{
    Settings, erasing,
    folding::{FoldError, Limits, Portion, sources},
};

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

/// Drops the delivery log and folds it again from an installation that is there, telling how far it
/// has come. What is older than the retention at `now` is left out, and so is what is stored after the
/// beginning: that is the projector's.
///
/// # Errors
///
/// Also if the tables are not `whose` they have to be: then the cause is [`StoreError::Foreign`] or
/// [`StoreError::Unknown`], and nothing is dropped.
pub async fn rebuild(
    settings: &Settings,
    whose: Whose,
    now: Timestamp,
    mut show: impl FnMut(Folded),
) -> anyhow::Result<Rebuilt> {
    let erasing = erasing(settings)?;
    let log = EventLog::attach("projector", &settings.log).await.context("open the event log")?;
    let database = Database::new(&settings.database).context("read the database's URL")?;
    let forgotten = now.saturating_sub(settings.retention);
    let when = (forgotten, settings.limits());
    let rebuilt = anew(&log, (&database, whose, erasing), when, &mut show).await;
    let rebuilt = rebuilt.map_err(FoldError::into_cause);
    database.close().await;
    log.close().await;
    Ok(Rebuilt { progress: rebuilt.context("fold the delivery log anew")? })
}

async fn anew(
    log: &EventLog,
    (database, whose, erasing): (&Database, Whose, BTreeSet<String>),
    (forgotten, limits): (Timestamp, Limits),
    show: &mut impl FnMut(Folded),
) -> Result<Progress, FoldError> {
    let mut ends = log.marks().await?;
    // A server that was stopped for a while may know of an old end; this one was made sure of.
    ends.journal.last = log.journal_last().await?;
    let streams = sources(log, &ends);
    let store = Store::renew(database, &streams, whose, forgotten).await?.erasing(erasing);
    loop {
        match fold(log, &store, (&ends, limits), show).await {
            Err(FoldError::Store(StoreError::Moved)) => {}
            ended => return ended,
        }
    }
}

/// Folds the configuration, then all events, then all facts, each up to its end: the rows are the same
/// in whatever order, but what is of deleted endpoints is not written first.
async fn fold(
    log: &EventLog,
    store: &Store,
    (ends, limits): (&Marks, Limits),
    show: &mut impl FnMut(Folded),
) -> Result<Progress, FoldError> {
    let (last_config, last_event) = (ends.config.last, ends.events.last);
    let last_batch = ends.journal.last;
    let mut progress = store.progress().await?;
    let mut tell = |progress: Progress| {
        let done = progress.config.min(last_config) + progress.events.min(last_event);
        let done = done + progress.journal.min(last_batch);
        show(Folded { done, of: last_config + last_event + last_batch });
    };
    let mut config = log.follow_config(progress.config + 1).await?;
    let mut more = true;
    while more {
        let mut portion = Portion::of(progress);
        while more && !portion.is_full(limits) {
            match config.next_until(last_config).await? {
                Some(change) => portion.config(&change),
                None => more = false,
            }
        }
        progress = portion.write(store).await?;
        tell(progress);
    }
    let mut events = log.follow_events(progress.events + 1).await?;
    let mut more = true;
    while more {
        let mut portion = Portion::of(progress);
        while more && !portion.is_full(limits) {
            match events.next_until(last_event).await? {
                Some(event) => portion.event(&event),
                None => more = false,
            }
        }
        progress = portion.write(store).await?;
        tell(progress);
    }
    let from = From::Sequence(progress.journal + 1);
    let mut journal = log.journal(JournalFilter::All, from).await?;
    let mut more = true;
    while more {
        let mut portion = Portion::of(progress);
        while more && !portion.is_full(limits) {
            match journal.next_until(last_batch).await? {
                Some(batch) => portion.journal(&batch),
                None => more = false,
            }
        }
        progress = portion.write(store).await?;
        tell(progress);
    }
    Ok(progress)
}
