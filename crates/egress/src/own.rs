//! Tells this machine's own addresses from those of others.
//!
//! Our own services, and whatever else runs here, may listen on addresses that are public. Only an
//! address of this machine can be bound to: that is asked anew each time, because addresses come
//! and go. Nothing is sent. Where that cannot be found out, it counts as one.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

/// Addresses that nobody has: both are for documentation.
const NOBODYS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOBODYS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 1));

/// Tells whether an address is one of this machine's.
pub(crate) fn is_ours(address: IpAddr) -> bool {
    match can_bind(address) {
        Some(false) => false,
        // A system can be told to let programs bind to any address, and then only the way tells.
        Some(true) if can_bind(nobodys(address)) == Some(true) => leads_home(address),
        Some(true) | None => true,
    }
}

fn nobodys(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { NOBODYS_V4 } else { NOBODYS_V6 }
}

/// Tells whether something can be sent from an address; `None` if there is no telling, for example because no
/// more files may be open.
pub(crate) fn can_bind(address: IpAddr) -> Option<bool> {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Some(true),
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Some(false),
        Err(error) if has_no_family(&error) => Some(false),
        Err(_) => None,
    }
}

/// Tells whether the machine has no addresses of that kind at all.
fn has_no_family(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    cfg!(target_os = "linux") && error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Tells whether what is sent to an address would come from it.
fn leads_home(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let Ok(socket) = UdpSocket::bind((any, 0)) else { return true };
    // Connecting a datagram socket only chooses the way. Where there is none, nothing is sent either.
    let local = socket.connect((address, 9)).and_then(|()| socket.local_addr());
    local.is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_its_own_addresses() {
        assert!(is_ours(Ipv4Addr::LOCALHOST.into()));
        assert!(leads_home(Ipv4Addr::LOCALHOST.into()));
        for other in [NOBODYS_V4, NOBODYS_V6, Ipv4Addr::new(1, 1, 1, 1).into()] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
