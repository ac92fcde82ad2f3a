//! The check that is repeated for as long as a log is open.

use std::time::Duration;

use fanfare_domain::chain;
use tokio::{sync::watch, time::timeout};
use tracing::{error, warn};

use super::{Checked, DurabilityError, verified};
use crate::{Durability, Settings};

/// How often the servers are asked.
const EACH: Duration = Duration::from_mins(1);

/// Checks again and again what was checked at the start; for ever, unless nothing was promised
/// that could be checked. `connects` counts the connections.
pub(crate) async fn watch(
    settings: Settings,
    at_start: Option<Checked>,
    mut connects: watch::Receiver<u64>,
) {
    let Some(mut before) = at_start else { return };
    while is_due(&mut connects).await {
        // Boxed, because it is rare and large.
        let found = Box::pin(verified(&settings)).await;
        before = tell(settings.durability, found, &before);
    }
}

/// Waits for a minute, but no longer than for the next connection. `false` means that there will
/// be none any more.
async fn is_due(connects: &mut watch::Receiver<u64>) -> bool {
    !matches!(timeout(EACH, connects.changed()).await, Ok(Err(_)))
}

/// Says what was found: what is wrong each time, and who keeps what is promised if that is news.
/// Returns what is to be compared with next time.
fn tell(level: Durability, found: Result<Checked, DurabilityError>, before: &Checked) -> Checked {
    match found {
        Ok(checked) => {
            if checked != *before {
                checked.tell(level);
            }
            return checked;
        }
        Err(DurabilityError::NotKept(broken)) => {
            error!(error = %broken, %level, "the servers do not keep what is promised");
        }
        Err(error) => {
            let error = chain(&error);
            warn!(error, %level, "whether the servers keep what is promised cannot be checked");
        }
    }
    // Once it is kept again, that is news.
    Checked::default()
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_check_is_repeated_each_minute_and_after_each_connection() {
        let connects = watch::Sender::new(0_u64);
        let mut receiver = connects.subscribe();
        let begun = Instant::now();
        let mut due = async || (is_due(&mut receiver).await, begun.elapsed().as_secs());
        assert_eq!([due().await, due().await], [(true, 60), (true, 120)]);
        // One that comes while others are checked is not missed.
        connects.send_modify(|connects| *connects += 1);
        assert_eq!(due().await, (true, 120));
        let connect = async {
            sleep(Duration::from_secs(7)).await;
            connects.send_modify(|connects| *connects += 1);
        };
        assert_eq!(tokio::join!(due(), connect).0, (true, 127));
        assert_eq!(due().await, (true, 187));
        drop(connects);
        assert_eq!(due().await, (false, 187));
    }
}
