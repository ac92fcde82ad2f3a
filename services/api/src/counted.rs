//! Changes that are bounded by how much there is of something: limits are exact, however many
//! processes write at the same time, and at no moment is there more than they allow.
//!
//! Whoever makes such a change looks at the configuration as it is up to a sequence of CONFIG, and the
//! servers take the change only if nothing has come behind that. If something has, it is looked
//! again. In a process they are made one after the other, so that only processes have to try again.

use std::time::Duration;

use anyhow::anyhow;
use fanfare_domain::{Change, Entity};
use fanfare_event_log::ChangeError;
use tokio::time::{Instant, timeout};

use crate::{
    app::{App, CONFIRM_TIMEOUT, Edited, Revision},
    caller::Caller,
    directory::{Configured, Directory, Revised},
    error::{ApiError, Code},
    etag::IfMatch,
};

/// For how long a change is tried while others are made.
const TRIED_FOR: Duration = Duration::from_secs(10);

impl App {
    /// Writes what `look` finds to be written, and from which revision of the thing, if it finds
    /// nothing against it.
    pub(crate) async fn write_counted(
        &self,
        caller: &Caller,
        look: impl Fn(&Directory) -> Result<(Entity, u64), ApiError> + Send + Sync,
    ) -> Result<u64, ApiError> {
        let _alone = self.counted.lock().await;
        let begun = Instant::now();
        while begun.elapsed() < TRIED_FOR {
            let last = self.reach_last().await?;
            let (entity, expected) = self.directory.read(&look)?;
            let change = caller.change(entity, false);
            if let Some(revision) = self.try_counted(change, (expected, last)).await? {
                return Ok(revision);
            }
        }
        Err(Code::ChangedMeanwhile.into())
    }

    /// As [`Self::edit`], where `edit` judges by how much there is.
    pub(crate) async fn edit_counted<T>(
        &self,
        caller: &Caller,
        if_match: &IfMatch,
        find: impl Fn(&Directory) -> Option<Revised<T>> + Send,
        edit: impl Fn(&T) -> Result<Edited<T>, ApiError> + Send,
    ) -> Result<Option<Revised<T>>, ApiError>
    where
        T: Configured,
    {
        let _alone = self.counted.lock().await;
        let begun = Instant::now();
        while begun.elapsed() < TRIED_FOR {
            let last = self.reach_last().await?;
            let (next, change) = match self.revise(caller, if_match, &find, &edit)? {
                Revision::Wanted(next, change) => (next, change),
                Revision::Needless(current) => return Ok(current),
            };
            if let Some(revision) = self.try_counted(change, (next.revision, last)).await? {
                return Ok(Some(Revised { revision, ..next }));
            }
        }
        Err(Code::ChangedMeanwhile.into())
    }

    /// Asks how far CONFIG has come, and waits until all of that is in the directory.
    async fn reach_last(&self) -> Result<u64, ApiError> {
        let asked = timeout(CONFIRM_TIMEOUT, self.log.config_last()).await;
        let silent = || ApiError::Unavailable(anyhow!("CONFIG did not answer in time"));
        let last = asked.map_err(|_elapsed| silent())??;
        self.confirm().await?;
        Ok(last)
    }

    /// Writes a change, if nothing has changed behind a sequence; returns the revision once the
    /// directory has it.
    async fn try_counted(&self, change: Change, from: (u64, u64)) -> Result<Option<u64>, ApiError> {
        let written = self.log.change_at(&change, from).await.map_err(ChangeError::Refused)?;
        if written.is_some() {
            self.confirm().await?;
        }
        Ok(written)
    }
}
