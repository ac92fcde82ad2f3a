//! The directory of `fanfare up`: the log's files and the keys that `up` makes.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use data_encoding::HEXLOWER;
use fanfare_service::random_bytes;

use crate::up::Running;

/// The directory and what is in it.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Names a directory; makes nothing.
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the directory and its keys, where they are missing.
    ///
    /// # Errors
    ///
    /// If the sealing key is gone while what it sealed is there: a new one would open none of it.
    pub(crate) fn prepare(&self) -> Result<()> {
        let (key, log) = (self.sealing_key(), self.nats());
        ensure!(
            key.exists() || is_empty(&log),
            "{} is missing, and {} holds an installation whose secrets are sealed with it. Put the \
             file back; if it is lost for good, so are the secrets: remove {} and begin anew",
            key.display(),
            log.display(),
            self.root.display()
        );
        fs::create_dir_all(&self.root)
            .with_context(|| format!("make the data directory {}", self.root.display()))?;
        let sealing = format!(
            "# Seals endpoint secrets. Keep it: without it no secret opens again.\n{}\n",
            HEXLOWER.encode(&random_bytes::<32>())
        );
        keep(&self.sealing_key(), &sealing)?;
        keep(&self.operator_key(), &format!("{}\n", fanfare_api::generate_key(random_bytes())))
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where nats-server keeps its files.
    pub(crate) fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    /// The delivery log, as the URL of a database.
    pub(crate) fn delivery_log_url(&self) -> String {
        format!("sqlite:{}", self.root.join("delivery-log.sqlite").display())
    }

    /// The key that seals secrets.
    pub(crate) fn sealing_key(&self) -> PathBuf {
        self.root.join("sealing.key")
    }

    /// The operator's API key.
    pub(crate) fn operator_key(&self) -> PathBuf {
        self.root.join("operator.key")
    }

    /// What the `up` that runs on this directory told of itself; `None` if none did.
    pub(crate) fn running(&self) -> Option<Running> {
        serde_json::from_slice(&fs::read(self.running_file()).ok()?).ok()
    }

    /// Tells other commands where everything is.
    pub(crate) fn write_running(&self, running: &Running) -> Result<()> {
        let path = self.running_file();
        self.forget_running();
        // The URL of NATS may have a password in it.
        keep(&path, &serde_json::to_string_pretty(running)?)
    }

    /// Takes that back.
    pub(crate) fn forget_running(&self) {
        // A file that is left behind is replaced by the next start.
        let _gone = fs::remove_file(self.running_file());
    }

    fn running_file(&self) -> PathBuf {
        self.root.join("up.json")
    }
}

/// Tells whether nothing is in a directory, or it is not there.
fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// Writes a file that only its owner may read, unless it is there.
fn keep(path: &Path, text: &str) -> Result<()> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match opened {
        Ok(mut file) => {
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            written.with_context(|| format!("write {}", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_sealing_key_is_not_replaced_while_there_is_something_sealed() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::new(root.path());
        data.prepare().unwrap();
        let key = fs::read_to_string(data.sealing_key()).unwrap();
        fs::create_dir(data.nats()).unwrap();
        data.prepare().unwrap();
        assert_eq!(fs::read_to_string(data.sealing_key()).unwrap(), key, "it is kept");
        fs::remove_file(data.sealing_key()).unwrap();
        data.prepare().unwrap();
        assert!(data.sealing_key().exists(), "nothing was sealed with the lost one");
        fs::create_dir(data.nats().join("jetstream")).unwrap();
        data.prepare().unwrap();
        fs::remove_file(data.sealing_key()).unwrap();
        let refused = data.prepare().unwrap_err().to_string();
        assert!(refused.contains("sealing.key is missing"), "{refused}");
        assert!(!data.sealing_key().exists());
        fs::write(data.sealing_key(), key).unwrap();
        data.prepare().unwrap();
    }
}
