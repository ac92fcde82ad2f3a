//! Word from outside that the process must stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where requests to stop come from.
pub(crate) trait StopRequests {
    /// Waits for the next request. Cancel safe.
    fn next(&mut self) -> impl Future<Output = ()> + Send;
}

/// SIGTERM and SIGINT of this process. While it lives they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals.
    pub(crate) fn install() -> io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }
}

impl StopRequests for Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// No requests ever: for services that are stopped through their token alone.
#[derive(Debug)]
pub(crate) struct NoSignals;

impl StopRequests for NoSignals {
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn both_signals_are_requests_to_stop() {
        let mut signals = Signals::install().unwrap();
        for number in [Number::TERM, Number::INT] {
            kill_process(getpid(), number).unwrap();
            signals.next().await;
        }
    }
}
