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
    #[error(
        "cannot read the sealing key file {} ({cause}): every service of an installation needs the \
         same one, setting sealing_key_file; `fanfare up` makes it, or for a new installation \
         `openssl rand -hex 32 > {}`",
        path.display(),
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_file_is_named_with_how_to_make_one() {
        let missing = load_keyring(Path::new("/nowhere/sealing.key")).unwrap_err().to_string();
        let cause = "cannot read the sealing key file /nowhere/sealing.key (No such file";
        assert!(missing.starts_with(cause), "{missing}");
        assert!(missing.contains("`openssl rand -hex 32 > /nowhere/sealing.key`"), "{missing}");
    }
}
