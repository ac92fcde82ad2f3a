//! The child process: started, signalled, and never left behind.

use std::{fs::File, io, path::Path, process::ExitStatus, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid},
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{config::TerminalSignals, data_dir::at, server::StartError};

/// How long dropping waits for a killed process to be gone, in steps of a millisecond.
const DROP_STEPS: u32 = 2_000;

/// A running nats-server. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts a server, which holds `lock` as its standard input for as long as it lives.
    pub(crate) fn spawn(
        binary: &Path,
        config: &Path,
        stderr: &Path,
        lock: File,
        terminal: TerminalSignals,
    ) -> Result<Self, StartError> {
        let output = File::create(stderr).map_err(at(stderr))?;
        let errors = output.try_clone().map_err(at(stderr))?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(config).stdin(lock).stdout(output).stderr(errors).kill_on_drop(true);
        match terminal {
            TerminalSignals::Received => {}
            TerminalSignals::Shielded => {
                command.process_group(0);
            }
        }
        let not_spawned = |cause| StartError::NotSpawned { binary: binary.to_owned(), cause };
        let child = command.spawn().map_err(not_spawned)?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| not_spawned(io::ErrorKind::NotFound.into()))?;
        Ok(Self { child, pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Waits until the process has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks the process to end, and kills it if it has not within `patience`.
    pub(crate) async fn stop(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        match timeout(patience, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => self.kill().await,
        }
    }

    /// Kills the process and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.start_kill()?;
        self.child.wait().await
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            // Not reaped yet, so the number still is this process's.
            kill_process(self.pid, signal)?;
        }
        Ok(())
    }

    /// Stops it with SIGSTOP, and returns once it stands still: the kernel takes a moment to stop
    /// all threads of a process, and one of them could answer until then. Blocks for that moment.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        // The state is left as it is found, for whoever waits for the process's end.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        loop {
            match waitid(WaitId::Pid(self.pid), stopped) {
                Err(Errno::INTR) => {}
                // It has ended meanwhile, and answers nothing either.
                Ok(_) | Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Leaves the process running, as our own sudden death would.
    #[cfg(test)]
    pub(crate) fn leave_behind(self) {
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.start_kill().is_err() {
            return;
        }
        for _ in 0..DROP_STEPS {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
