//! Which versions of nats-server will do.

use std::fmt;

/// A version of nats-server. A pre-release is older than its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    released: bool,
}

impl Version {
    /// The oldest that will do: message schedules lost messages before it.
    pub const FLOOR: Self = Self::release(2, 14, 6);

    /// The one that we fetch and test with.
    pub const PINNED: Self = Self::release(2, 15, 1);

    const fn release(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, released: true }
    }

    /// Reads a version such as `2.15.1`, `v2.15.1` or `2.16.0-RC.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split_once('+').map_or(text, |(version, _build)| version);
        let (numbers, released) = match text.split_once('-') {
            Some((numbers, _label)) => (numbers, false),
            None => (text, true),
        };
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(Self { major, minor, patch, released })
    }

    /// Finds the version in what `nats-server --version` prints: `nats-server: v2.15.1`.
    pub fn in_output(text: &str) -> Option<Self> {
        let said = text.lines().find_map(|line| line.trim().strip_prefix("nats-server:"))?;
        Self::parse(said.split_whitespace().next()?)
    }

    /// Says whether everything that we rely on works in this version.
    pub fn is_supported(self) -> bool {
        self >= Self::FLOOR
    }
}

/// Shows `2.15.1`, and `2.16.0-pre` for any pre-release.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = if self.released { "" } else { "-pre" };
        write!(f, "{}.{}.{}{label}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_below_the_floor_are_not_supported() {
        for (output, supported) in [
            ("nats-server: v2.15.1\n", Some(true)),
            ("nats-server: v2.14.6", Some(true)),
            ("nats-server: v2.14.7-RC.1", Some(true)),
            ("nats-server: v2.15.0-preview.2+build", Some(true)),
            ("nats-server: v3.0.0", Some(true)),
            ("warning: something\nnats-server: v2.15.1", Some(true)),
            ("nats-server: v2.14.6-RC.3", Some(false)),
            ("nats-server: v2.14.5", Some(false)),
            ("nats-server: v2.9.10", Some(false)),
            ("nats-server: v1.99.99", Some(false)),
            ("nats-server: 2.15.1", Some(true)),
            ("nats-server: v2.15", None),
            ("nats-server: v2.15.1.7", None),
            ("nats-server: latest", None),
            ("nats-streaming-server version 0.25.6", None),
            ("", None),
        ] {
            let version = Version::in_output(output);
            assert_eq!(version.map(Version::is_supported), supported, "{output:?}");
        }
    }

    #[test]
    fn the_pinned_version_is_supported() {
        assert!(Version::PINNED.is_supported());
        assert_eq!(Version::PINNED.to_string(), "2.15.1");
    }
}
