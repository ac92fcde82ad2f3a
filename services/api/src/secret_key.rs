//! API keys as text: 256 bits of chance, of which only the hash is kept.

use data_encoding::HEXLOWER;
use fanfare_domain::{KeyId, Timestamp};
use sha2::{Digest as _, Sha256};

/// What the text of every key begins with, so that leaked ones are easy to search for.
const PREFIX: &str = "fk_";
/// How many hexadecimal digits follow.
const DIGITS: usize = 64;

/// Makes the text of an API key from bytes that the caller drew by chance.
pub fn generate_key(chance: [u8; 32]) -> String {
    format!("{PREFIX}{}", HEXLOWER.encode(&chance))
}

/// Tells whether the text could be a key.
pub(crate) fn is_key(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let digits = text.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == DIGITS && digits.bytes().all(digit)
}

/// Returns what is kept of a key. Keys are drawn by chance, so a slow hash would add nothing.
pub(crate) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Derives the id of a key that several processes may admit at once: they make one record.
pub(crate) fn id_of(hash: &[u8; 32]) -> KeyId {
    let digest: [u8; 32] = Sha256::digest(hash).into();
    let mut chance = [0; 10];
    chance.copy_from_slice(digest.first_chunk::<10>().expect("a SHA-256 has 32 bytes"));
    KeyId::new(Timestamp::EPOCH, chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_is_a_key() {
        let key = generate_key([0xab; 32]);
        assert!(is_key(&key), "{key}");
        assert_ne!(hash(&key), hash(&generate_key([0xac; 32])));
    }

    #[test]
    fn other_texts_are_no_keys() {
        let key = generate_key([0xab; 32]);
        let (short, long) = (key.get(..66).unwrap(), format!("{key}a"));
        for bad in ["", "fk_", short, &long, &key.to_uppercase(), &key.replace("fk_", "xx_")] {
            assert!(!is_key(bad), "{bad}");
        }
    }
}
