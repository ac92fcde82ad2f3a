//! Addresses by the table, and what the operator's rules change.

use proptest::prelude::*;

use super::*;

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 443)
}

fn why(address: &str) -> Option<Why> {
    AddressPolicy::default().admit(at(address)).err().map(|forbidden| forbidden.why)
}

fn policy(allow: &[&str], deny: &[&str]) -> AddressPolicy {
    AddressPolicy {
        allow: allow.iter().map(|rule| rule.parse().unwrap()).collect(),
        deny: deny.iter().map(|cidr| cidr.parse().unwrap()).collect(),
    }
}

#[test]
fn what_is_not_the_public_internet_is_forbidden() {
    let table = [
        ("0.0.0.0", Why::Unspecified),
        ("0.1.2.3", Why::Unspecified),
        ("10.0.0.1", Why::Private),
        ("10.255.255.255", Why::Private),
        ("100.64.0.1", Why::Shared),
        ("100.100.100.200", Why::Shared),
        ("100.127.255.255", Why::Shared),
        ("127.0.0.1", Why::Loopback),
        ("127.255.255.254", Why::Loopback),
        ("168.63.129.16", Why::Platform),
        ("169.254.169.254", Why::LinkLocal),
        ("172.16.0.1", Why::Private),
        ("172.31.255.255", Why::Private),
        ("192.0.0.192", Why::Reserved),
        ("192.0.2.1", Why::Documentation),
        ("192.31.196.1", Why::Reserved),
        ("192.52.193.1", Why::Reserved),
        ("192.88.99.1", Why::Transition),
        ("192.168.0.1", Why::Private),
        ("192.175.48.1", Why::Reserved),
        ("198.18.0.1", Why::Benchmark),
        ("198.19.255.255", Why::Benchmark),
        ("198.51.100.1", Why::Documentation),
        ("203.0.113.1", Why::Documentation),
        ("224.0.0.1", Why::Multicast),
        ("240.0.0.1", Why::Reserved),
        ("255.255.255.255", Why::Multicast),
        ("::", Why::Unspecified),
        ("::1", Why::Loopback),
        ("::127.0.0.1", Why::Reserved),
        ("::ffff:127.0.0.1", Why::Loopback),
        ("::ffff:169.254.169.254", Why::LinkLocal),
        ("::ffff:0:127.0.0.1", Why::Reserved),
        ("64:ff9b::7f00:1", Why::Transition),
        ("64:ff9b:1::a00:1", Why::Transition),
        ("100::1", Why::Reserved),
        ("1fff:ffff::1", Why::Reserved),
        ("2001::80ff:fffe", Why::Transition),
        ("2001:1ff::1", Why::Transition),
        ("2001:db8::1", Why::Documentation),
        ("2002:7f00:1::", Why::Transition),
        ("2620:4f:8000::1", Why::Reserved),
        ("3fff::1", Why::Documentation),
        ("4000::1", Why::Reserved),
        ("5f00::1", Why::Reserved),
        ("fc00::1", Why::Private),
        ("fd00:ec2::254", Why::Private),
        ("fe80::1", Why::LinkLocal),
        ("fec0::1", Why::Reserved),
        ("ff02::1", Why::Multicast),
    ];
    for (address, expected) in table {
        assert_eq!(why(address), Some(expected), "{address}");
    }
}

#[test]
fn public_addresses_are_admitted_up_to_the_very_edge() {
    let table = [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.254",
        "100.128.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.169.0.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "::ffff:1.1.1.1",
        "2000::1",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2003::1",
        "2606:4700::1111",
        "3ffe:ffff::1",
    ];
    for address in table {
        assert_eq!(why(address), None, "{address}");
    }
}

#[test]
fn an_allowed_address_does_not_admit_its_neighbour() {
    let policy = policy(&["192.168.0.120"], &[]);
    assert!(policy.admit(at("192.168.0.120")).is_ok());
    assert!(policy.admit(at("::ffff:192.168.0.120")).is_ok());
    assert!(policy.admit(at("192.168.0.121")).is_err());
    assert!(policy.admit(at("10.0.0.1")).is_err());
}

#[test]
fn an_allow_rule_with_a_port_admits_that_port_only() {
    let policy = policy(&["10.0.0.0/8:443", "[fd00::/8]:9000"], &[]);
    assert!(policy.admit(at("10.2.3.4")).is_ok());
    assert!(policy.admit("10.2.3.4:6379".parse().unwrap()).is_err());
    assert!(policy.admit("[fd00::1]:9000".parse().unwrap()).is_ok());
    assert!(policy.admit(at("fd00::1")).is_err());
}

#[test]
fn a_deny_rule_with_a_port_denies_that_port_only() {
    let policy = policy(&[], &["0.0.0.0/0:25", "[::/0]:25", "1.1.1.1:8443"]);
    let why = |address: &str| policy.admit(address.parse().unwrap()).err().map(|it| it.why);
    assert_eq!(why("8.8.8.8:25"), Some(Why::Denied));
    assert_eq!(why("[2606:4700::1111]:25"), Some(Why::Denied));
    assert_eq!(why("[::ffff:1.1.1.1]:8443"), Some(Why::Denied));
    assert_eq!(why("8.8.8.8:443"), None);
    assert_eq!(why("1.1.1.1:443"), None);
}

#[test]
fn the_deny_list_wins_over_the_allow_list_and_over_public_addresses() {
    let policy = policy(&["10.0.0.0/8"], &["10.9.0.0/16", "1.1.1.1"]);
    assert!(policy.admit(at("10.8.0.1")).is_ok());
    assert_eq!(policy.admit(at("10.9.0.1")).unwrap_err().why, Why::Denied);
    assert_eq!(policy.admit(at("::ffff:10.9.0.1")).unwrap_err().why, Why::Denied);
    assert_eq!(policy.admit(at("1.1.1.1")).unwrap_err().why, Why::Denied);
    assert!(!policy.names(at("10.9.0.1")));
    assert!(policy.names(at("10.8.0.1")));
}

#[test]
fn rules_are_read_as_they_are_shown() {
    for text in ["10.0.0.0/8", "10.1.2.3/32:9000", "fd00::/8", "[::1/128]:8080", "0.0.0.0/0"] {
        assert_eq!(text.parse::<AddressRule>().unwrap().to_string(), text);
    }
    let mapped: Cidr = "::ffff:10.0.0.0/104".parse().unwrap();
    assert_eq!(mapped, "10.0.0.0/8".parse().unwrap());
    let single: AddressRule = "[::1]:8080".parse().unwrap();
    assert_eq!(single, AddressRule { cidr: Cidr::LOOPBACK_V6, port: Some(8080) });
}

#[test]
fn a_policy_is_read_from_one_line() {
    let read: AddressPolicy = " 10.0.0.0/8, ! 10.9.0.0/16,[::1]:80 ,".parse().unwrap();
    assert_eq!(read, policy(&["10.0.0.0/8", "[::1]:80"], &["10.9.0.0/16"]));
    assert_eq!("".parse(), Ok(AddressPolicy::default()));
    assert_eq!("10.0.0.0/8,!".parse::<AddressPolicy>(), Err(CidrError::Address));
}

#[test]
fn a_rule_that_is_not_clear_is_refused() {
    let table = [
        ("", CidrError::Address),
        ("localhost", CidrError::Address),
        ("010.0.0.0/8", CidrError::Address),
        ("10.0.0.0/33", CidrError::Prefix),
        ("10.0.0.0/-1", CidrError::Prefix),
        ("10.0.0.0/", CidrError::Prefix),
        ("::/129", CidrError::Prefix),
        ("10.0.0.1/8", CidrError::Ambiguous),
        ("fd00::1/8", CidrError::Ambiguous),
        ("10.0.0.0/8:", CidrError::Port),
        ("10.0.0.0/8:65536", CidrError::Port),
        ("[::1]8080", CidrError::Port),
        ("[::1", CidrError::Address),
    ];
    for (text, expected) in table {
        assert_eq!(text.parse::<AddressRule>(), Err(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn an_ipv4_address_is_judged_alike_in_ipv6_clothes(bits: u32) {
        let plain = std::net::Ipv4Addr::from_bits(bits);
        let policy = AddressPolicy::default();
        let judge = |ip| policy.admit(SocketAddr::new(ip, 443)).map_err(|forbidden| forbidden.why);
        prop_assert_eq!(judge(plain.into()), judge(plain.to_ipv6_mapped().into()));
        prop_assert!(judge(plain.to_ipv6_compatible().into()).is_err());
    }

    #[test]
    fn a_block_contains_what_shares_its_prefix(bits: u32, prefix in 0_u8..=32, other: u32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = std::net::Ipv4Addr::from_bits(bits & mask);
        let cidr: Cidr = format!("{network}/{prefix}").parse().unwrap();
        let address = std::net::Ipv4Addr::from_bits(other);
        prop_assert_eq!(cidr.contains(address.into()), (other ^ bits) & mask == 0);
    }
}
