//! Which addresses are the public Internet's, and the operator's own rules about addresses.
//!
//! Checked against the registries of special-purpose addresses, written down bit by bit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fanfare_domain::{
    AddressPolicy,
    address::{AddressRule, Cidr},
    url::Ports,
};

use crate::input::{take, text};

/// Reads an input as addresses, and as rules.
pub fn run(input: &[u8]) {
    let mut bytes = input;
    let port = u16::from_be_bytes(take(&mut bytes));
    let [four, sixteen] = [
        IpAddr::V4(Ipv4Addr::from(take::<4>(&mut &*bytes))),
        IpAddr::V6(Ipv6Addr::from(take::<16>(&mut bytes))),
    ];
    for address in [four, sixteen] {
        judged(address, port);
    }
    if let Some(text) = text(input) {
        rules(text, [four, sixteen], port);
    }
}

/// An address is admitted if and only if it is public; in IPv6 clothes it is what it was.
fn judged(address: IpAddr, port: u16) {
    let policy = AddressPolicy::default();
    let admit = |address| policy.admit(SocketAddr::new(address, port)).is_ok();
    assert_eq!(admit(address), is_public(address), "{address}");
    if let IpAddr::V4(plain) = address {
        assert_eq!(admit(IpAddr::V6(plain.to_ipv6_mapped())), admit(address), "{address} mapped");
        // Whatever else carries an IPv4 address is never admitted.
        let [high, low] = [plain.to_bits() >> 16, plain.to_bits() & 0xffff]
            .map(|half| u16::try_from(half).unwrap_or_default());
        for clothed in [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
        ] {
            assert!(!admit(IpAddr::V6(clothed)), "{clothed}");
        }
    }
}

/// Rules are read as they are shown, and deny before they allow.
fn rules(text: &str, addresses: [IpAddr; 2], port: u16) {
    for line in text.lines().take(32) {
        if let Ok(ports) = line.parse::<Ports>() {
            assert_eq!(ports.to_string().parse(), Ok(ports), "{line}");
        }
        if let Ok(block) = line.parse::<Cidr>() {
            assert_eq!(block.to_string().parse(), Ok(block), "{line}");
        }
        if let Ok(rule) = line.parse::<AddressRule>() {
            assert_eq!(rule.to_string().parse(), Ok(rule), "{line}");
        }
        let Ok(policy) = line.parse::<AddressPolicy>() else { continue };
        for address in addresses.map(|address| SocketAddr::new(address, port)) {
            let plain = address.ip().to_canonical();
            let names = |rules: &[AddressRule]| {
                rules.iter().any(|rule| {
                    rule.port.is_none_or(|only| only == port) && within(plain, &rule.cidr)
                })
            };
            let admitted = !names(&policy.deny) && (names(&policy.allow) || is_public(plain));
            assert_eq!(policy.admit(address).is_ok(), admitted, "{line}: {address}");
            if policy.names(address) {
                assert!(admitted && names(&policy.allow), "{line}: {address}");
            }
        }
    }
}

/// Tells whether an address is in a block, by the block's text.
fn within(address: IpAddr, block: &Cidr) -> bool {
    let shown = block.to_string();
    let Some((network, prefix)) = shown.split_once('/') else { return false };
    let (Ok(network), Ok(prefix)) = (network.parse::<IpAddr>(), prefix.parse::<usize>()) else {
        return false;
    };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    };
    let (network, address) = (bits(network), bits(address));
    network.len() == address.len() && network.get(..prefix) == address.get(..prefix)
}

/// Tells whether an address is of the public Internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address.octets()),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(plain) => is_public_v4(plain.octets()),
            None => is_public_v6(address.segments()),
        },
    }
}

fn is_public_v4(octets: [u8; 4]) -> bool {
    match octets {
        [0 | 10 | 127 | 224..=255, ..]
        | [100, 64..=127, ..]
        | [168, 63, 129, 16]
        | [169, 254, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0 | 2, _]
        | [192, 31, 196, _]
        | [192, 52, 193, _]
        | [192, 88, 99, _]
        | [192, 168, ..]
        | [192, 175, 48, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => false,
        [_, _, _, _] => true,
    }
}

fn is_public_v6(segments: [u16; 8]) -> bool {
    match segments {
        [0x2001, 0..=0x01ff | 0x0db8, ..]
        | [0x2002, ..]
        | [0x2620, 0x004f, 0x8000, ..]
        | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}
