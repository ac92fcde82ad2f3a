//! The file with the keys that seal secrets.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fanfare_domain::seal::{Keyring, SealError};
use zeroize::Zeroizing;

/// The keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file could not be read.
    #[error("read the sealing key file {}; `fanfare up` makes one, and every service needs the same", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file holds no keys.
    #[error("the sealing key file {} is malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: SealError,
    },
}

/// Loads the keys that seal and open secrets.
pub fn load_keyring(path: &Path) -> Result<Keyring, KeysError> {
    let text = fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|cause| KeysError::Unreadable { path: path.to_owned(), cause })?;
    Keyring::parse(&text).map_err(|cause| KeysError::Malformed { path: path.to_owned(), cause })
}
