//! A server that runs for as long as somebody holds it.

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::{
    Binary, Version,
    config::{Credentials, PAYLOAD_BYTES_MAX, ServerOptions, render},
    data_dir::DataDir,
    process::Process,
    ready::{self, Ready, Stage},
};

/// How often a starting server is looked at.
const READY_POLL: Duration = Duration::from_millis(10);

/// How long to wait before a port that is taken is tried again.
const PORT_POLL: Duration = Duration::from_millis(200);

/// How long a port may be taken.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

/// How a server says that a port is taken; before it there is the address.
const PORT_TAKEN: &str = ": bind: address already in use";

/// A nats-server on loopback with JetStream. Dropping it kills it.
///
/// Clients that name no user get the account `FANFARE`; the user `system` has the server's own
/// account and a password that is drawn at each start, or the secret of its cluster.
pub struct Server {
    // The process goes before the directory that it writes to.
    process: Option<Process>,
    binary: PathBuf,
    options: ServerOptions,
    ready: Ready,
    system_password: String,
    dir: DataDir,
}

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Messages were to be larger than a server can take.
    #[error("messages of {bytes} bytes are too large: the most is {PAYLOAD_BYTES_MAX}")]
    PayloadTooLarge {
        /// The size that was asked for.
        bytes: u32,
    },
    /// The data directory cannot be used.
    #[error("use {}", path.display())]
    DataDir {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Another process runs a server on this data directory.
    #[error("{} is in use by {}", path.display(), owner(*pid))]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// That process, if it left its number.
        pid: Option<u32>,
    },
    /// A server that a killed process of ours left behind is still running and cannot be stopped.
    #[error("a nats-server is still running on {}, and could not be stopped ({})",
        path.display(), owner(pid.map(i32::unsigned_abs)))]
    LeftBehind {
        /// The data directory.
        path: PathBuf,
        /// The server, if it could be found.
        pid: Option<i32>,
    },
    /// The operating system gave no random bytes for a password.
    #[error("draw a password")]
    NoPassword(#[source] getrandom::Error),
    /// The binary could not be executed.
    #[error("start {}", binary.display())]
    NotSpawned {
        /// The binary.
        binary: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The server ended before it was ready.
    #[error("nats-server gave up with {status}: {said}")]
    GaveUp {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        said: String,
    },
    /// A port that the server was to have is taken, and stayed so.
    #[error(
        "port {port} on 127.0.0.1 is taken by another program: end that program, or choose \
         another port"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The server was not ready in time, and was killed.
    #[error("nats-server was not ready within {waited:?}: {stage}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// How far it had come.
        stage: Stage,
    },
    /// The process could not be watched or stopped.
    #[error(transparent)]
    Process(#[from] StopError),
}

/// The process could not be signalled or waited for.
#[derive(Debug, thiserror::Error)]
#[error("control nats-server")]
pub struct StopError(#[from] io::Error);

/// A server ended although nobody asked it to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("nats-server ended with {status}: {said}")]
pub struct Exited {
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its log.
    pub said: String,
}

/// A server is not healthy, or does not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("nats-server is not healthy: {said}")]
pub struct Unhealthy {
    /// What it said, if anything.
    pub said: String,
}

impl Server {
    /// Starts a server and waits until it can be used.
    ///
    /// The data directory is claimed for as long as the value lives, also while the server is
    /// stopped. A server that a killed process left running there is stopped first.
    pub async fn start(binary: &Binary, options: ServerOptions) -> Result<Self, StartError> {
        if options.payload_bytes_max > PAYLOAD_BYTES_MAX {
            return Err(StartError::PayloadTooLarge { bytes: options.payload_bytes_max });
        }
        let dir = DataDir::claim(options.data_dir.as_deref()).await?;
        let binary = binary.path().to_owned();
        let launched = launch(&binary, &options, &dir).await?;
        let (process, ready, system_password) = launched;
        let process = Some(process);
        Ok(Self { process, binary, options, ready, system_password, dir })
    }

    /// Asks the server to end, kills it if it does not, and waits until it is gone.
    ///
    /// Does nothing if it is not running.
    pub async fn stop(&mut self) -> Result<(), StopError> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop(self.options.stop_timeout).await?;
            info!(%status, "nats-server stopped");
        }
        Ok(())
    }

    /// Kills the server with SIGKILL and waits until it is gone: for tests of what survives that.
    pub async fn kill(&mut self) -> Result<(), StopError> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Stops the server if it is running, and starts it on the same data and the same ports.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.stop().await?;
        let (process, ready, system_password) =
            launch(&self.binary, &self.fixed(), &self.dir).await?;
        self.process = Some(process);
        self.ready = ready;
        self.system_password = system_password;
        Ok(())
    }

    /// Freezes the server with SIGSTOP: its connections stay open, and nothing answers from the
    /// moment on at which this returns.
    pub fn suspend(&mut self) -> Result<(), StopError> {
        match &mut self.process {
            Some(process) => Ok(process.suspend()?),
            None => Ok(()),
        }
    }

    /// Lets a suspended server go on.
    pub fn resume(&mut self) -> Result<(), StopError> {
        self.signal(Signal::CONT)
    }

    /// Waits until the server ends without having been asked to. Cancel safe.
    ///
    /// Never returns while the server is not running because it was stopped or killed.
    pub async fn exited(&mut self) -> Exited {
        let Some(process) = &mut self.process else { return std::future::pending().await };
        match process.wait().await {
            Ok(status) => Exited { status, said: self.dir.last_words() },
            Err(cause) => {
                warn!(%cause, "nats-server cannot be watched");
                std::future::pending().await
            }
        }
    }

    /// Returns the URL for clients; it carries no user.
    pub fn client_url(&self) -> String {
        format!("nats://{}", self.ready.client)
    }

    /// Returns the URL for the server's own account: it carries a password, so do not log it.
    ///
    /// The password changes with every restart, except in a cluster.
    pub fn system_url(&self) -> String {
        format!("nats://system:{}@{}", self.system_password, self.ready.client)
    }

    /// Returns the URL of the monitoring port.
    pub fn monitor_url(&self) -> String {
        format!("http://{}", self.ready.monitor)
    }

    /// Returns where clients connect.
    pub fn client_address(&self) -> SocketAddr {
        self.ready.client
    }

    /// Returns the version that the server says it has.
    pub fn version(&self) -> Version {
        self.ready.version
    }

    /// Returns the server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Returns the data directory; the store is `jetstream` in it, the log `nats-server.log`.
    pub fn data_dir(&self) -> &Path {
        &self.dir.paths().data
    }

    /// Asks the server whether all is well: itself, its cluster, and all that it keeps of streams
    /// and consumers, with what it has to catch up with.
    pub async fn healthy(&self) -> Result<(), Unhealthy> {
        ready::health(self.ready.monitor).await.map_err(|said| Unhealthy { said })
    }

    /// Returns the options with the ports that the server has, for the next start.
    fn fixed(&self) -> ServerOptions {
        ServerOptions {
            port: Some(self.ready.client.port()),
            monitor_port: Some(self.ready.monitor.port()),
            ..self.options.clone()
        }
    }

    fn signal(&mut self, signal: Signal) -> Result<(), StopError> {
        match &mut self.process {
            Some(process) => Ok(process.signal(signal)?),
            None => Ok(()),
        }
    }
}

/// Shows no password.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        shown.field("url", &self.client_url()).field("pid", &self.pid());
        shown.field("data_dir", &self.data_dir()).finish_non_exhaustive()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotListening => "it does not listen yet",
            Self::NotGreeting => "it does not greet clients",
            Self::NoJetStream => "JetStream is not up",
        })
    }
}

/// Starts a server, again and again for a while if its port is taken, until it is ready.
///
/// A port that a stopped server had can be taken for a moment: by chance, or by a client of ours
/// whose attempt to reconnect was given the very port that it tried to reach.
async fn launch(
    binary: &Path,
    options: &ServerOptions,
    dir: &DataDir,
) -> Result<(Process, Ready, String), StartError> {
    let deadline = Instant::now() + options.ready_timeout.min(PORT_PATIENCE);
    let mut waiting = false;
    loop {
        let attempt = launch_once(binary, options, dir).await;
        let Err(StartError::GaveUp { said, .. }) = &attempt else { return attempt };
        let Some(port) = taken_port(said) else { return attempt };
        if Instant::now() + PORT_POLL >= deadline {
            return Err(StartError::PortTaken { port });
        }
        if !waiting {
            warn!(port, "the port of nats-server is taken, waiting for it");
            waiting = true;
        }
        sleep(PORT_POLL).await;
    }
}

/// Returns the port that a server found taken, if that is why it gave up.
fn taken_port(said: &str) -> Option<u16> {
    let (before, _) = said.split_once(PORT_TAKEN)?;
    before.rsplit(':').next()?.parse().ok()
}

async fn launch_once(
    binary: &Path,
    options: &ServerOptions,
    dir: &DataDir,
) -> Result<(Process, Ready, String), StartError> {
    let lock = dir.vacate(options.stop_timeout).await?;
    let system = match &options.cluster {
        Some(cluster) => cluster.secret.clone(),
        None => password()?,
    };
    let users = Credentials { application: password()?, system };
    dir.prepare(&render(options, dir.paths(), &users))?;
    let paths = dir.paths();
    let mut process =
        Process::spawn(binary, &paths.config, &paths.stderr, lock, options.terminal_signals)?;
    let ready = wait_until_ready(&mut process, options.ready_timeout, dir).await?;
    info!(version = %ready.version, address = %ready.client, "nats-server is ready");
    Ok((process, ready, users.system))
}

async fn wait_until_ready(
    process: &mut Process,
    patience: Duration,
    dir: &DataDir,
) -> Result<Ready, StartError> {
    let (pid, mut stage) = (process.pid(), Stage::NotListening);
    let ready = async {
        loop {
            match ready::look(&dir.paths().ports, pid).await {
                Ok(ready) => return ready,
                Err(seen) => stage = seen,
            }
            sleep(READY_POLL).await;
        }
    };
    let watched = async {
        tokio::select! {
            biased;
            ended = process.wait() => {
                let status = ended.map_err(StopError)?;
                Err(StartError::GaveUp { status, said: dir.last_words() })
            }
            ready = ready => Ok(ready),
        }
    };
    let result = timeout(patience, watched).await;
    result.unwrap_or(Err(StartError::NotReady { waited: patience, stage }))
}

/// Draws a password of 192 bits.
fn password() -> Result<String, StartError> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(StartError::NoPassword)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| String::from("another process"), |pid| format!("process {pid}"))
}
