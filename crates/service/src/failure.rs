//! Why a process stopped although nobody asked it to.

use std::{any::Any, error::Error};

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
        /// What the panic said, if it said it as text.
        message: String,
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
                Some(Self::Panicked { task, message: panic_text(payload.as_ref()) })
            }
        }
    }
}

/// Returns an error with all its causes, in one line.
///
/// Libraries like to repeat the cause in what they say themselves: a cause that was told already
/// is not told again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let literal = payload.downcast_ref::<&str>().map(|text| String::from(*text));
    literal.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let inner = anyhow::anyhow!("connection refused");
        let repeated = inner.context("IO error: connection refused").context("open the log");
        assert_eq!(chain(repeated.as_ref()), "open the log: IO error: connection refused");
        let told = anyhow::anyhow!("no space").context("write a").context("make b");
        assert_eq!(chain(told.as_ref()), "make b: write a: no space");
    }
}
