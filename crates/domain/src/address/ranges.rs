//! The built-in list of what is not the public Internet.
//!
//! From the registries of special-purpose addresses (RFC 6890 and its successors), and from the
//! services that cloud platforms put at addresses which look public.

use std::net::IpAddr;

use super::{Cidr, Why};

/// What is forbidden of IPv4.
const IPV4: [(Cidr, Why); 20] = [
    (Cidr::v4([0, 0, 0, 0], 8), Why::Unspecified),
    (Cidr::v4([10, 0, 0, 0], 8), Why::Private),
    (Cidr::v4([100, 64, 0, 0], 10), Why::Shared),
    (Cidr::LOOPBACK_V4, Why::Loopback),
    (Cidr::v4([168, 63, 129, 16], 32), Why::Platform),
    (Cidr::v4([169, 254, 0, 0], 16), Why::LinkLocal),
    (Cidr::v4([172, 16, 0, 0], 12), Why::Private),
    (Cidr::v4([192, 0, 0, 0], 24), Why::Reserved),
    (Cidr::v4([192, 0, 2, 0], 24), Why::Documentation),
    (Cidr::v4([192, 31, 196, 0], 24), Why::Reserved),
    (Cidr::v4([192, 52, 193, 0], 24), Why::Reserved),
    (Cidr::v4([192, 88, 99, 0], 24), Why::Transition),
    (Cidr::v4([192, 168, 0, 0], 16), Why::Private),
    (Cidr::v4([192, 175, 48, 0], 24), Why::Reserved),
    (Cidr::v4([198, 18, 0, 0], 15), Why::Benchmark),
    (Cidr::v4([198, 51, 100, 0], 24), Why::Documentation),
    (Cidr::v4([203, 0, 113, 0], 24), Why::Documentation),
    (Cidr::v4([224, 0, 0, 0], 4), Why::Multicast),
    (Cidr::v4([255, 255, 255, 255], 32), Why::Multicast),
    (Cidr::v4([240, 0, 0, 0], 4), Why::Reserved),
];

/// The only part of IPv6 that is handed out for the public Internet.
const IPV6_GLOBAL: Cidr = Cidr::v6([0x2000, 0, 0], 3);

/// What is forbidden inside [`IPV6_GLOBAL`].
const IPV6: [(Cidr, Why); 5] = [
    (Cidr::v6([0x2001, 0, 0], 23), Why::Transition),
    (Cidr::v6([0x2001, 0x0db8, 0], 32), Why::Documentation),
    (Cidr::v6([0x2002, 0, 0], 16), Why::Transition),
    (Cidr::v6([0x2620, 0x004f, 0x8000], 48), Why::Reserved),
    (Cidr::v6([0x3fff, 0, 0], 20), Why::Documentation),
];

/// Better names for parts of what is outside [`IPV6_GLOBAL`].
const IPV6_OUTSIDE: [(Cidr, Why); 5] = [
    (Cidr::LOOPBACK_V6, Why::Loopback),
    (Cidr::v6([0x0064, 0xff9b, 0], 32), Why::Transition),
    (Cidr::v6([0xfc00, 0, 0], 7), Why::Private),
    (Cidr::v6([0xfe80, 0, 0], 10), Why::LinkLocal),
    (Cidr::v6([0xff00, 0, 0], 8), Why::Multicast),
];

/// Returns why the address is not of the public Internet, or `None` if it is.
pub(super) fn forbidden(address: IpAddr) -> Option<Why> {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => find(&IPV4, address),
        address @ IpAddr::V6(_) if IPV6_GLOBAL.contains(address) => find(&IPV6, address),
        IpAddr::V6(address) if address.is_unspecified() => Some(Why::Unspecified),
        address @ IpAddr::V6(_) => Some(find(&IPV6_OUTSIDE, address).unwrap_or(Why::Reserved)),
    }
}

fn find(table: &[(Cidr, Why)], address: IpAddr) -> Option<Why> {
    table.iter().find(|(cidr, _)| cidr.contains(address)).map(|(_, why)| *why)
}
