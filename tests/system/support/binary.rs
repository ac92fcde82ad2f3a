//! The `fanfare` binary, built once per run of the tests so that it is never a stale one.
//! `FANFARE_TEST_BINARY` names another one to test, for instance one that is to be released.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tokio::{process::Command, sync::OnceCell};

/// Returns the path of the binary, after building it.
pub(crate) async fn fanfare() -> Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_try_init(build).await.cloned()
}

async fn build() -> Result<PathBuf> {
    let variables = fanfare_service::process_env().context("read the environment")?;
    if let Some(path) = variables.get("FANFARE_TEST_BINARY") {
        return Ok(PathBuf::from(path));
    }
    let profile_dir = profile_dir()?;
    let target_dir = profile_dir.parent().context("a profile's directory is in another")?;
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--package", "fanfare", "--bin", "fanfare", "--locked", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir);
    // Cargo calls the directory of its profile `dev` after what was there before profiles were.
    match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    let output = command.kill_on_drop(true).output().await.context("run cargo build")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo build of the fanfare binary failed:\n{said}");
    let binary = profile_dir.join(format!("fanfare{}", std::env::consts::EXE_SUFFIX));
    ensure!(binary.is_file(), "cargo built no {}", binary.display());
    Ok(binary)
}

/// Returns where packages of other languages are kept: below the target directory.
pub(crate) fn packages_dir() -> Result<PathBuf> {
    let profile_dir = profile_dir()?;
    let target_dir = profile_dir.parent().context("a profile's directory is in another")?;
    Ok(target_dir.join("receivers"))
}

/// The directory that this executable's `deps` is in.
fn profile_dir() -> Result<PathBuf> {
    let executable = std::env::current_exe().context("find this executable")?;
    let deps = executable.parent().context("an executable is in a directory")?;
    Ok(deps.parent().context("`deps` is in a profile's directory")?.to_owned())
}
