//! When API keys were last used, to the hour: noted in memory by each request, and written by a
//! task of its own, so that no request waits for it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{KeyId, Timestamp, chain};
use futures_util::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::app::App;

/// How often what was noted is written.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long writing or reading one of them may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are read or written at once.
const AT_ONCE: usize = 32;
/// As exactly as uses are kept.
const HOUR_MILLIS: u64 = 3_600_000;

/// When keys were last used, as far as this process knows.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<BTreeMap<KeyId, Use>>);

#[derive(Clone, Copy, Debug)]
struct Use {
    hour: Timestamp,
    written: bool,
}

impl Uses {
    /// Notes that a key is used.
    pub(crate) fn note(&self, key: KeyId, now: Timestamp) {
        let hour = hour_of(now);
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = uses.entry(key).or_insert(Use { hour, written: false });
        if noted.hour < hour {
            *noted = Use { hour, written: false };
        }
    }

    fn of(&self, key: KeyId) -> Option<Timestamp> {
        let uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.get(&key).map(|noted| noted.hour)
    }

    fn forget(&self, key: KeyId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    fn keys(&self) -> Vec<KeyId> {
        let uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        uses.keys().copied().collect()
    }

    fn unwritten(&self) -> Vec<(KeyId, Timestamp)> {
        let uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = uses.iter().filter(|(_, noted)| !noted.written);
        open.map(|(key, noted)| (*key, noted.hour)).collect()
    }

    fn written(&self, key: KeyId, hour: Timestamp) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(noted) = uses.get_mut(&key).filter(|noted| noted.hour == hour) {
            noted.written = true;
        }
    }
}

/// Returns when keys were last used, in the order of the keys; `None` for never, or if that cannot
/// be found out now.
pub(crate) async fn last_uses(app: &App, keys: Vec<KeyId>) -> Vec<Option<Timestamp>> {
    let look = move |key: KeyId| async move {
        let asked = tokio::time::timeout(PATIENCE, app.log.key_last_used(key)).await;
        let stored = asked.ok().and_then(Result::ok).flatten();
        stored.max(app.uses.of(key))
    };
    stream::iter(keys).map(look).buffered(AT_ONCE).collect().await
}

/// Forgets when a key was last used that was deleted. What cannot be forgotten now is tried again
/// later.
pub(crate) async fn forget(app: &App, key: KeyId) {
    match tokio::time::timeout(PATIENCE, app.log.forget_key_use(key)).await {
        Ok(Ok(())) => app.uses.forget(key),
        Ok(Err(cause)) => {
            warn!(key_id = %key, error = chain(&cause), "the use of a key is not forgotten yet");
            app.uses.note(key, Timestamp::EPOCH);
        }
        Err(_elapsed) => app.uses.note(key, Timestamp::EPOCH),
    }
}

/// Writes what is noted until `stop`, and then what can be written at once. Each process forgets the
/// deleted keys that it knows of: it may have written a use after somebody else forgot it.
pub(crate) async fn keep(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        write(&app).await;
        let deleted = app.uses.keys().into_iter().filter(|key| !is_there(&app, *key));
        stream::iter(deleted).for_each_concurrent(AT_ONCE, |key| forget(&app, key)).await;
    }
    // What is not written by then is written by the key's next use, or lost.
    drop(tokio::time::timeout(PATIENCE, write(&app)).await);
    Ok(())
}

fn is_there(app: &App, key: KeyId) -> bool {
    app.directory.read(|directory| directory.key(key).is_some())
}

async fn write(app: &App) {
    let put = move |(key, hour): (KeyId, Timestamp)| async move {
        match tokio::time::timeout(PATIENCE, app.log.key_used(key, hour)).await {
            Ok(Ok(())) => app.uses.written(key, hour),
            Ok(Err(cause)) => {
                warn!(key_id = %key, error = chain(&cause), "the use of a key is not written");
            }
            // The servers are away; the next time will do.
            Err(_elapsed) => {}
        }
    };
    let live = app.uses.unwritten().into_iter().filter(|(key, _)| is_there(app, *key));
    stream::iter(live).for_each_concurrent(AT_ONCE, put).await;
}

fn hour_of(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(now.as_millis() / HOUR_MILLIS * HOUR_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_written_once_an_hour() {
        let (uses, key) = (Uses::default(), KeyId::new(Timestamp::EPOCH, [1; 10]));
        let minute = |minute: u64| Timestamp::from_millis(minute * 60_000);
        uses.note(key, minute(61));
        uses.note(key, minute(119));
        assert_eq!(uses.unwritten(), [(key, minute(60))]);
        uses.written(key, minute(60));
        uses.note(key, minute(100));
        assert_eq!(uses.unwritten(), []);
        uses.note(key, minute(120));
        uses.note(key, minute(119));
        assert_eq!(uses.of(key), Some(minute(120)), "clocks may go back");
        uses.written(key, minute(60));
        assert_eq!(uses.unwritten(), [(key, minute(120))]);
    }
}
