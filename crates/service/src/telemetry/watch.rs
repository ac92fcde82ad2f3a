//! Looks after logging while the process runs: what is logged can be changed, and what was left out
//! is told.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    io::AsyncReadExt as _,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::{
    Filter, Telemetry,
    repeats::{LEFT_OUT, Repeats, WINDOW},
};
use crate::Context;

/// How often the file with the filter is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much of it is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Logging that is set up.
pub struct Logging {
    telemetry: Telemetry,
    filter: reload::Handle<EnvFilter, Registry>,
    repeats: Arc<Repeats>,
    /// What the file held when it was read last; `None` if there was nothing.
    held: Option<String>,
}

impl Context {
    /// Looks after logging until everything else has ended.
    pub fn watch_logging(&mut self, logging: Logging) {
        let stop = self.support_stop();
        self.spawn_telemetry("logging", async move {
            stop.run_until_cancelled(logging.run()).await;
        });
    }
}

impl Logging {
    pub(super) fn new(
        telemetry: Telemetry,
        filter: reload::Handle<EnvFilter, Registry>,
        repeats: Arc<Repeats>,
    ) -> Self {
        Self { telemetry, filter, repeats, held: None }
    }

    async fn run(mut self) {
        let (mut looks, mut tells) = (interval(LOOK_EVERY), interval(WINDOW));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tells.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick(), if self.telemetry.filter_file.is_some() => self.look().await,
                _ = tells.tick() => tell_left_out(&self.repeats),
            }
        }
    }

    /// Reads the file, and goes by what it says if that is something new.
    async fn look(&mut self) {
        let Some(path) = self.telemetry.filter_file.as_deref() else { return };
        let held = read(path).await;
        if held == self.held {
            return;
        }
        let filter = match &held {
            None => Ok(self.telemetry.filter.clone()),
            Some(text) => text.parse::<Filter>(),
        };
        match filter {
            Ok(filter) => {
                let shown = filter.to_string();
                match self.filter.reload(filter.built()) {
                    Ok(()) => info!(filter = shown, "the filter of the log was changed"),
                    Err(cause) => warn!(%cause, "the filter of the log cannot be changed"),
                }
            }
            Err(cause) => warn!(%cause, path = %path.display(), "the file holds no filter"),
        }
        self.held = held;
    }
}

/// Says how many lines were not written since it was said last.
pub(super) fn tell_left_out(repeats: &Repeats) {
    for (place, lines) in repeats.left_out() {
        info!(target: LEFT_OUT, %place, lines, "lines were left out, the same was said too often");
    }
}

/// Returns the filter in a file; `None` if there is none.
async fn read(path: &Path) -> Option<String> {
    // A pipe would be waited for, and what is large is no filter.
    if !tokio::fs::metadata(path).await.ok()?.is_file() {
        return None;
    }
    let file = tokio::fs::File::open(path).await.ok()?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).await.ok()?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_line_that_says_something_is_the_filter() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("fanfare-filter-{}", std::process::id()));
        assert_eq!(read(&path).await, None);
        std::fs::write(&path, "# why\n\n  warn,fanfare_dispatcher=debug \n").unwrap();
        assert_eq!(read(&path).await.as_deref(), Some("warn,fanfare_dispatcher=debug"));
        std::fs::remove_file(&path).unwrap();
    }
}
