//! Blocks of addresses in CIDR notation.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The bits of an IPv4-mapped address before its IPv4 part.
const MAPPED_PREFIX: u8 = 96;

/// A block of addresses: those that share the first `prefix` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Why a text is not a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// The part before the slash is not an address.
    #[error("not an IP address")]
    Address,
    /// The part behind the slash is not a number of bits that the address has.
    #[error("not a prefix length of such an address")]
    Prefix,
    /// Bits behind the prefix are set: it is not clear which block is meant.
    #[error("the address has bits set behind the prefix")]
    Ambiguous,
    /// The part behind the colon is not a port.
    #[error("not a port")]
    Port,
}

impl Cidr {
    /// `127.0.0.0/8`
    pub const LOOPBACK_V4: Self = Self::v4([127, 0, 0, 0], 8);
    /// `::1/128`
    pub const LOOPBACK_V6: Self = Self { network: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };

    /// Makes an IPv4 block of numbers that are known to be one.
    pub(super) const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Self {
        Self { network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// Makes an IPv6 block of its first 48 bits; the rest is zero.
    pub(super) const fn v6([a, b, c]: [u16; 3], prefix: u8) -> Self {
        Self { network: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), prefix }
    }

    /// Tells whether the address is in the block. An IPv4-mapped address is taken as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same_bits = match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        same_bits >= u32::from(self.prefix)
    }

    /// Tells whether the block is one of IPv6 addresses.
    pub const fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// Checks that nothing is set behind the prefix, and turns an IPv4-mapped block into IPv4.
    fn new(network: IpAddr, prefix: u8) -> Result<Self, CidrError> {
        let (bits, trailing_zeros) = match network {
            IpAddr::V4(network) => (32_u8, network.to_bits().trailing_zeros()),
            IpAddr::V6(network) => (128, network.to_bits().trailing_zeros()),
        };
        let free = u32::from(bits.checked_sub(prefix).ok_or(CidrError::Prefix)?);
        if trailing_zeros < free {
            return Err(CidrError::Ambiguous);
        }
        match (network, network.to_canonical(), prefix.checked_sub(MAPPED_PREFIX)) {
            (IpAddr::V6(_), IpAddr::V4(plain), Some(prefix)) => {
                Ok(Self { network: IpAddr::V4(plain), prefix })
            }
            (IpAddr::V6(_), IpAddr::V4(_), None) => Err(CidrError::Ambiguous),
            (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_), _) => {
                Ok(Self { network, prefix })
            }
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Reads `10.0.0.0/8`, or a single address.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                (address, Some(prefix.parse().map_err(|_| CidrError::Prefix)?))
            }
            None => (text, None),
        };
        let network: IpAddr = address.parse().map_err(|_| CidrError::Address)?;
        Self::new(network, prefix.unwrap_or(if network.is_ipv4() { 32 } else { 128 }))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}
