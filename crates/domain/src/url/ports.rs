//! Sets of ports.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// The ports that an endpoint's URL may have.
///
/// A request to a port of some other protocol can do harm there, and a URL that may have any port
/// makes us a port scanner; so the default is short: 443, 80 and 8443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// A text that is not a set of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "ports are numbers and ranges from 1 to 65535 with commas between, for example 443,8000-8999"
)]
pub struct MalformedPorts;

impl Ports {
    /// Tells whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(vec![443..=443, 80..=80, 8443..=8443])
    }
}

impl FromStr for Ports {
    type Err = MalformedPorts;

    fn from_str(text: &str) -> Result<Self, MalformedPorts> {
        let port = |text: &str| match text.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            Ok(_) | Err(_) => Err(MalformedPorts),
        };
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let range = port(first)?..=port(last)?;
            if range.is_empty() { Err(MalformedPorts) } else { Ok(range) }
        };
        text.split(',').map(range).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_shown() {
        for text in ["443", "80,443,8443", "443,1024-65535", "1-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        assert_eq!(Ports::default().to_string(), "443,80,8443");
        for text in ["", "0", "65536", "443,", "9-8", "-5", "any"] {
            assert_eq!(text.parse::<Ports>(), Err(MalformedPorts), "{text}");
        }
    }

    #[test]
    fn both_ends_of_a_range_are_in_it() {
        let ports: Ports = "8000-8999".parse().unwrap();
        let found = [7999, 8000, 8999, 9000].map(|port| ports.contains(port));
        assert_eq!(found, [false, true, true, false]);
    }
}
