//! One process, one server, one data directory: even after somebody was killed.
//!
//! Two locks on files. `owner.lock` is held by the process that runs the server: a second one
//! is refused. `server.lock` is held by the server itself, which gets the open file as its
//! standard input: the kernel keeps that lock exactly as long as the server lives. So if we are
//! killed and the server is not, the next start finds the lock taken, knows that a server of
//! ours is still running, and stops it before it starts another on the same store.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::{config::Paths, server::StartError};

/// How often a lock is tried.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// How long a lock may be held by accident: a child of another thread inherits it until it execs.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// How many lines of a server's log an error shows.
const LAST_WORDS_LINES: usize = 3;

/// A data directory that this process has to itself.
#[derive(Debug)]
pub(crate) struct DataDir {
    paths: Paths,
    owner: File,
    _temporary: Option<TempDir>,
}

impl DataDir {
    /// Makes the directory if need be, and claims it.
    pub(crate) async fn claim(path: Option<&Path>) -> Result<Self, StartError> {
        let (dir, temporary) = if let Some(path) = path {
            (path.to_owned(), None)
        } else {
            let made = TempDir::with_prefix("fanfare-nats-").map_err(at(&std::env::temp_dir()))?;
            (made.path().to_owned(), Some(made))
        };
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let paths = Paths::in_dir(dir.canonicalize().map_err(at(&dir))?);
        let lock = paths.data.join("owner.lock");
        let mut owner = open_lock(&lock)?;
        if !try_lock(&owner, &lock, LOCK_PATIENCE).await? {
            let pid = fs::read_to_string(&lock).ok().and_then(|text| text.trim().parse().ok());
            return Err(StartError::InUse { path: paths.data, pid });
        }
        owner.set_len(0).map_err(at(&lock))?;
        writeln!(owner, "{}", std::process::id()).map_err(at(&lock))?;
        Ok(Self { paths, owner, _temporary: temporary })
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Returns the lock for the next server to hold, once no server has it.
    ///
    /// A server that a killed process of ours left behind is stopped, within `patience`.
    pub(crate) async fn vacate(&self, patience: Duration) -> Result<File, StartError> {
        let path = self.paths.data.join("server.lock");
        let lock = open_lock(&path)?;
        if try_lock(&lock, &path, Duration::ZERO).await? {
            return Ok(lock);
        }
        let pid = self.find_left_behind(&lock, &path).await?;
        let Some(pid) = pid else { return Ok(lock) };
        warn!(pid = pid.as_raw_pid(), "stopping a nats-server that a killed process left behind");
        for signal in [Signal::TERM, Signal::KILL] {
            // It may just have ended; the lock tells.
            let _sent = kill_process(pid, signal);
            if try_lock(&lock, &path, patience).await? {
                return Ok(lock);
            }
        }
        Err(StartError::LeftBehind { path: self.paths.data.clone(), pid: Some(pid.as_raw_pid()) })
    }

    /// Returns the process that holds the server's lock, or `None` once it is free.
    ///
    /// A server writes its pid soon after it has begun, so this may take a moment.
    async fn find_left_behind(&self, lock: &File, path: &Path) -> Result<Option<Pid>, StartError> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            if try_lock(lock, path, Duration::ZERO).await? {
                return Ok(None);
            }
            if let Some(pid) = self.running_server() {
                return Ok(Some(pid));
            }
            if Instant::now() >= deadline {
                return Err(StartError::LeftBehind { path: self.paths.data.clone(), pid: None });
            }
            sleep(LOCK_POLL).await;
        }
    }

    /// Returns the process in the pid file, if it is a server that was given our configuration.
    fn running_server(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.paths.pid).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let arguments = command_line(pid)?;
        arguments.contains(self.paths.config.to_string_lossy().as_ref()).then_some(pid)
    }

    /// Readies the directory for a new server: no traces of the last one but its logs.
    ///
    /// `config` holds passwords, so nobody else may read it.
    pub(crate) fn prepare(&self, config: &str) -> Result<(), StartError> {
        let paths = &self.paths;
        for log in [&paths.log, &paths.stderr] {
            if log.exists() {
                fs::rename(log, log.with_extension("previous.log")).map_err(at(log))?;
            }
        }
        absent_is_fine(fs::remove_file(&paths.pid)).map_err(at(&paths.pid))?;
        absent_is_fine(fs::remove_dir_all(&paths.ports)).map_err(at(&paths.ports))?;
        fs::create_dir_all(&paths.ports).map_err(at(&paths.ports))?;
        let mut options = tempfile::Builder::new();
        let mut file = options
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&paths.data)
            .map_err(at(&paths.config))?;
        file.write_all(config.as_bytes()).map_err(at(&paths.config))?;
        file.persist(&paths.config).map_err(|error| at(&paths.config)(error.error))?;
        Ok(())
    }

    /// Returns what of the last server's words tells why it ended, for an error to show.
    pub(crate) fn last_words(&self) -> String {
        let log = end_of(&self.paths.log);
        let stderr = end_of(&self.paths.stderr);
        let bad = |line: &&str| line.contains("[FTL]") || line.contains("[ERR]");
        let mut lines: Vec<_> = log.lines().filter(bad).chain(stderr.lines()).collect();
        if lines.is_empty() {
            lines = log.lines().collect();
        }
        let start = lines.len().saturating_sub(LAST_WORDS_LINES);
        lines.get(start..).unwrap_or_default().join("; ")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is starting may have the file too.
        let _unlocked = self.owner.unlock();
    }
}

/// Turns what the system said into an error that names the path.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path: PathBuf = path.to_owned();
    move |cause| StartError::DataDir { path, cause }
}

fn open_lock(path: &Path) -> Result<File, StartError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).open(path).map_err(at(path))
}

/// Tries to lock until `patience` is over.
async fn try_lock(file: &File, path: &Path, patience: Duration) -> Result<bool, StartError> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(cause)) => return Err(at(path)(cause)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => sleep(LOCK_POLL).await,
        }
    }
}

/// Returns the arguments of a running process.
fn command_line(pid: Pid) -> Option<String> {
    let pid = pid.as_raw_pid();
    if cfg!(target_os = "linux") {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    let said = Command::new("ps").args(["-o", "args=", "-p", &pid.to_string()]).output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).into_owned())
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn end_of(path: &Path) -> String {
    const BYTES_MAX: usize = 8192;
    let bytes = fs::read(path).unwrap_or_default();
    let start = bytes.len().saturating_sub(BYTES_MAX);
    String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
}
