//! Judging with the configuration at hand, so that no message can end the service.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fanfare_event_log::{ConfigView, InboxMessage};

use crate::{
    admit::{Draft, Reason, Rejection, Rules, admit},
    directory::Directory,
};

/// Judges messages by the rules and the configuration as it stands.
pub(crate) struct Judge {
    directory: ConfigView<Directory>,
    rules: Rules,
}

impl Judge {
    /// Puts the parts together.
    pub(crate) fn new(directory: ConfigView<Directory>, rules: Rules) -> Self {
        Self { directory, rules }
    }

    /// Waits until the configuration is at least as new as this call. Cancel safe.
    pub(crate) async fn catch_up(&self) -> Result<(), fanfare_event_log::ReadError> {
        self.directory.confirm().await.map(drop)
    }

    /// Judges a message. A panic of ours is a reason to refuse it: the message would come again,
    /// and so would the panic.
    pub(crate) fn judge(&self, message: &InboxMessage) -> Result<Draft, Rejection> {
        let judging = || self.directory.read(|directory| admit(message, directory, &self.rules));
        catch_unwind(AssertUnwindSafe(judging))
            .unwrap_or_else(|_| Err(Reason::InternalError.because("judging the message failed")))
    }
}
