//! Why a process stopped although nobody asked it to.

use crate::crash::{UNTOLD, words};

/// Why the services of a context came to an end on their own.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No service was started, so there is nothing to run.
    #[error("no task was started")]
    NothingToDo,
    /// A task returned although it was not asked to stop.
    #[error("task {task} ended before it was asked to")]
    EndedEarly {
        /// The task, as `service/task`.
        task: String,
    },
    /// A task returned an error.
    #[error("task {task} failed")]
    Failed {
        /// The task, as `service/task`.
        task: String,
        /// What it returned.
        #[source]
        cause: anyhow::Error,
    },
    /// A task panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// The task, as `service/task`.
        task: String,
        /// What the panic said, if that stands in the source. Where it was is on standard error.
        message: &'static str,
    },
    /// A second signal arrived while the services were stopping.
    #[error("stopped at once by a second signal")]
    Interrupted,
}

impl Failure {
    /// Reads what a task that was joined came to. Aborted tasks did not fail.
    pub(crate) fn of(
        task: String,
        ended: Result<anyhow::Result<()>, tokio::task::JoinError>,
    ) -> Option<Self> {
        match ended {
            Ok(Ok(())) => None,
            Ok(Err(cause)) => Some(Self::Failed { task, cause }),
            Err(gone) => {
                let payload = gone.try_into_panic().ok()?;
                let message = words(payload.as_ref()).unwrap_or(UNTOLD);
                Some(Self::Panicked { task, message })
            }
        }
    }
}
