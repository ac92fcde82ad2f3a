//! The users' nkeys: each seed in a file of its user's, and only its public key anywhere else.

use std::path::Path;

use anyhow::{Context as _, Result};
use fanfare_service::random_bytes;
use nkeys::{KeyPair, KeyPairType};

use super::files;

/// Reads the public key of the seed in a file, which is made where there is none. Tells whether it
/// was made.
pub(super) fn public_key(path: &Path) -> Result<(String, bool)> {
    if path.exists() {
        let text = files::read(path)?;
        let pair = KeyPair::from_seed(text.trim());
        let pair = pair.ok().with_context(|| format!("{} holds no seed", path.display()))?;
        return Ok((pair.public_key(), false));
    }
    let pair = KeyPair::new_from_raw(KeyPairType::User, random_bytes());
    let pair = pair.ok().context("make an nkey")?;
    let seed = pair.seed().ok().context("write an nkey")?;
    files::write_secret(path, &format!("{seed}\n"))?;
    Ok((pair.public_key(), true))
}
