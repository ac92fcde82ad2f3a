//! Files, of which the secret ones are for nobody but their owner.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// For whom.
const ANYBODY: u32 = 0o644;
const OWNER: u32 = 0o600;

/// Makes a directory, and those that it is in.
pub(super) fn directory(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.with_context(|| format!("make the directory {}", path.display()))
}

/// Writes a file that holds no secret.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    put(path, text, ANYBODY)
}

/// Writes a file that holds one.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<()> {
    put(path, text, OWNER)
}

/// Copies a file; as a secret one if it is that.
pub(super) fn copy(from: &Path, to: &Path, secret: bool) -> Result<()> {
    put(to, &read(from)?, if secret { OWNER } else { ANYBODY })
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Writes a file beside its place, and puts it there whole.
fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let beside = path.with_added_extension("new");
    let written = || -> std::io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        // One that was left there may be for others.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    };
    written().with_context(|| format!("write {}", path.display()))
}
