//! Which addresses a request to a stranger's endpoint may go to.
//!
//! An endpoint's URL is chosen by a tenant, the network around us is the operator's. So an address
//! is admitted only if it is on the public Internet, or if the operator named it: IPv4 by a list of
//! what is not public, IPv6 by default-deny outside `2000::/3`. An IPv4 address in IPv6 clothes is
//! judged as what it is.

mod cidr;
mod ranges;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

pub use cidr::{Cidr, CidrError};

/// What the operator adds to, and takes from, the built-in rules.
///
/// The order is: `deny`, then `allow`, then the built-in ranges. The default admits every public
/// address and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Addresses admitted although the built-in ranges forbid them.
    pub allow: Vec<AddressRule>,
    /// Addresses never admitted, whatever `allow` says.
    pub deny: Vec<AddressRule>,
}

/// Addresses, on every port or on one: `10.1.0.0/16`, `10.1.2.3:9000`, `[fd00::/8]:9000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRule {
    /// The addresses that it is about.
    pub cidr: Cidr,
    /// The only port that it is about; `None` for every port.
    pub port: Option<u16>,
}

/// An address is not admitted.
///
/// Its text does not repeat the address: it is shown to the endpoint's owner, who has no business
/// to learn what a name resolves to inside our network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not allowed: {why}")]
pub struct Forbidden {
    /// The address, in its canonical form.
    pub address: IpAddr,
    /// The rule that forbids it.
    pub why: Why,
}

/// Why an address is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The operator's own list names it.
    Denied,
    /// It is an address of this machine's own, public or not.
    Own,
    /// It means "this host" or "this network".
    Unspecified,
    /// It is this machine.
    Loopback,
    /// It is of a private network (RFC 1918, RFC 4193).
    Private,
    /// It is shared address space of a carrier (RFC 6598).
    Shared,
    /// It is only reachable on the same link; cloud metadata services live here.
    LinkLocal,
    /// It looks public but is a cloud platform's own service.
    Platform,
    /// It carries an IPv4 address, or is reserved for a transition mechanism.
    Transition,
    /// It is for documentation.
    Documentation,
    /// It is for benchmarks of network devices.
    Benchmark,
    /// It is a multicast or broadcast address.
    Multicast,
    /// It is reserved, or not handed out for use on the public Internet.
    Reserved,
}

impl Why {
    /// Returns the words for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied by the operator",
            Self::Own => "of this machine",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private network",
            Self::Shared => "shared address space",
            Self::LinkLocal => "link-local",
            Self::Platform => "cloud platform service",
            Self::Transition => "transition mechanism",
            Self::Documentation => "documentation",
            Self::Benchmark => "benchmarking",
            Self::Multicast => "multicast",
            Self::Reserved => "reserved",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl AddressPolicy {
    /// Admits the address, or says what forbids it.
    pub fn admit(&self, address: SocketAddr) -> Result<(), Forbidden> {
        let ip = address.ip().to_canonical();
        if covers(&self.deny, address) {
            return Err(Forbidden { address: ip, why: Why::Denied });
        }
        match ranges::forbidden(ip) {
            Some(why) if !covers(&self.allow, address) => Err(Forbidden { address: ip, why }),
            Some(_) | None => Ok(()),
        }
    }

    /// Tells whether a rule of `allow` names the address with this port, and `deny` does not.
    pub fn names(&self, address: SocketAddr) -> bool {
        covers(&self.allow, address) && !covers(&self.deny, address)
    }
}

/// Tells whether a rule names the address with this port.
fn covers(rules: &[AddressRule], address: SocketAddr) -> bool {
    rules.iter().any(|rule| {
        rule.cidr.contains(address.ip()) && rule.port.is_none_or(|port| port == address.port())
    })
}

impl FromStr for AddressPolicy {
    type Err = CidrError;

    /// Reads rules with commas between them, those to deny with an exclamation mark:
    /// `10.1.0.0/16, 127.0.0.1:9000, !10.1.9.0/24`.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let mut policy = Self::default();
        for rule in text.split(',').map(str::trim).filter(|rule| !rule.is_empty()) {
            match rule.strip_prefix('!') {
                Some(rule) => policy.deny.push(rule.trim_start().parse()?),
                None => policy.allow.push(rule.parse()?),
            }
        }
        Ok(policy)
    }
}

impl AddressRule {
    /// Allows this machine's own addresses, on every port: for trying things out, and for tests.
    pub const LOOPBACK: [Self; 2] = [
        Self { cidr: Cidr::LOOPBACK_V4, port: None },
        Self { cidr: Cidr::LOOPBACK_V6, port: None },
    ];
}

impl FromStr for AddressRule {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let port = |port: &str| port.parse().map_err(|_| CidrError::Port);
        if let Some(rest) = text.strip_prefix('[') {
            let (cidr, tail) = rest.split_once(']').ok_or(CidrError::Address)?;
            let port = match tail.strip_prefix(':') {
                Some(text) => Some(port(text)?),
                None if tail.is_empty() => None,
                None => return Err(CidrError::Port),
            };
            return Ok(Self { cidr: cidr.parse()?, port });
        }
        match text.split_once(':') {
            Some((cidr, text)) if !text.contains(':') => {
                Ok(Self { cidr: cidr.parse()?, port: Some(port(text)?) })
            }
            Some(_) | None => Ok(Self { cidr: text.parse()?, port: None }),
        }
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.cidr.is_ipv6() => write!(f, "[{}]:{port}", self.cidr),
            Some(port) => write!(f, "{}:{port}", self.cidr),
            None => self.cidr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
