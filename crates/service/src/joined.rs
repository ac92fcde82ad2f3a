//! How a task ended, without what it held: a crashed task's own words may be made of data.

use tokio::task::JoinError;

/// Why a task has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfinished {
    /// It panicked. Where, is on standard error.
    #[error("a task crashed")]
    Crashed,
    /// It was stopped before its end.
    #[error("a task was stopped")]
    Stopped,
}

/// What tokio says of a task that was joined.
///
/// A [`JoinError`] repeats the words of a panic, so it never goes into an error or a log by itself.
pub trait Joined<T> {
    /// Returns the task's result, or why there is none, and nothing else.
    ///
    /// # Errors
    ///
    /// If the task panicked or was stopped.
    fn joined(self) -> Result<T, Unfinished>;
}

impl<T> Joined<T> for Result<T, JoinError> {
    fn joined(self) -> Result<T, Unfinished> {
        self.map_err(Unfinished::from)
    }
}

impl From<JoinError> for Unfinished {
    fn from(error: JoinError) -> Self {
        if error.is_panic() { Self::Crashed } else { Self::Stopped }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use tokio::task::JoinSet;

    use super::*;

    const SECRET: &str = "7b1d55c2-secret";

    #[tokio::test]
    async fn a_task_that_crashed_is_told_of_without_its_words() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("{SECRET} did not fit") });
        let ended: Result<(), JoinError> = tasks.join_next().await.unwrap();
        let told = ended.as_ref().unwrap_err().to_string();
        assert!(told.contains(SECRET), "else there is nothing to leave out: {told}");
        let error = ended.joined().context("ask about an event").unwrap_err();
        assert!(!format!("{error:#} {error:?}").contains(SECRET), "{error:?}");
        assert_eq!(format!("{error:#}"), "ask about an event: a task crashed");
    }

    #[tokio::test]
    async fn a_task_that_was_stopped_did_not_crash() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending::<()>()).abort();
        assert_eq!(tasks.join_next().await.unwrap().joined(), Err(Unfinished::Stopped));
    }
}
