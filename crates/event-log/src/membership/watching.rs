//! Shows a member what happens under the keys of its role, in order.

use std::{sync::Arc, time::Duration};

use fanfare_domain::chain;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tracing::{debug, warn};

use super::table::{Key, Keys, Owners, State};
use crate::{
    EventLog, ReadError,
    cas::Held,
    read::{Ordered, Start},
    topology::Bucket,
};

/// How long to wait after the servers refused.
const PAUSE: Duration = Duration::from_millis(100);

/// A key's new state.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) sequence: u64,
    pub(super) what: What,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum What {
    /// What a member says; nothing if its key was deleted.
    Member(Arc<str>, Option<State>),
    /// The table.
    Table(Owners),
}

/// Reads what is there, and then what comes, until nobody wants it any more. Told that something
/// is late, it reads anew from where it is.
pub(super) async fn watch(
    log: EventLog,
    keys: Keys,
    seen: mpsc::Sender<Seen>,
    late: Arc<Notify>,
) -> Result<(), ReadError> {
    let bucket = log.topology().bucket(Bucket::Owners);
    let root = format!("$KV.{bucket}.");
    let stream = log.topology().bucket_stream(Bucket::Owners);
    let subjects = vec![format!("{root}{}.>", keys.role())];
    let mut next = 1;
    loop {
        let start = Start::Sequence(next);
        let mut messages = Ordered::of(&log, stream.clone(), subjects.clone(), start);
        loop {
            let numbered = tokio::select! {
                numbered = messages.next() => numbered,
                () = late.notified() => {
                    debug!(role = keys.role(), "watching the members anew");
                    break;
                }
                () = seen.closed() => return Ok(()),
            };
            match numbered {
                Ok(numbered) => {
                    next = numbered.sequence + 1;
                    let key = numbered.message.subject.strip_prefix(&*root);
                    let Some(key) = key.and_then(|key| keys.parse(key)) else { continue };
                    let message = numbered.message.message;
                    let headers = message.headers.unwrap_or_default();
                    let held = Held::of(numbered.sequence, &headers, message.payload);
                    if seen.send(Seen::of(key, &held)).await.is_err() {
                        return Ok(());
                    }
                }
                Err(error @ ReadError::Closed) => return Err(error),
                Err(error) => {
                    warn!(error = chain(&error), role = keys.role(), "cannot see the members");
                    sleep(PAUSE).await;
                    break;
                }
            }
        }
        messages.close().await;
    }
}

impl Seen {
    /// Reads what a key holds.
    pub(super) fn of(key: Key, held: &Held) -> Self {
        let value = held.value.as_deref();
        let what = match key {
            Key::Member(member) => What::Member(member, value.map(State::decode)),
            Key::Table => What::Table(value.map(Owners::decode).unwrap_or_default()),
        };
        Self { sequence: held.sequence, what }
    }
}
