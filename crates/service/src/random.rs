//! The only thrower of dice.

use rand::RngExt as _;

/// Returns `N` bytes from the operating system's generator, fit for keys and ids.
#[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    rand::rng().random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_throws_differ() {
        assert_ne!(random_bytes::<16>(), random_bytes::<16>());
    }
}
