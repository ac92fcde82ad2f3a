//! Questions and answers, byte by byte.

use super::*;

/// A question as a resolver writes it.
fn ask(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.extend([0, 0, kind, 0, 1]);
    message
}

fn zone(named: Named) -> Zone {
    let zone = Zone::default();
    zone.lock().names.insert(String::from("a.example"), named);
    zone
}

fn answer(zone: &Zone, name: &str, kind: u8) -> Vec<u8> {
    zone.answer(&ask(name, kind), DATAGRAM_BYTES_MAX).unwrap()
}

#[test]
fn an_address_is_said_as_it_was_asked_for() {
    let zone = zone(Named::At(vec!["10.1.2.3".parse().unwrap(), "fd00::9".parse().unwrap()]));
    let said = answer(&zone, "A.example", 1);
    assert!(said.starts_with(&[0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1]));
    assert!(said.ends_with(&[0, 4, 10, 1, 2, 3]));
    assert!(said.get(12..).unwrap().starts_with(b"\x01A\x07example\0"));
    assert!(answer(&zone, "below.a.example", 28).ends_with(&[0, 0, 0, 9]));
    let nowhere = answer(&zone, "b.example", 1);
    assert_eq!(nowhere.get(3), Some(&0x83));
}

#[test]
fn answers_take_turns_for_each_type() {
    let at = |address: &str| Named::At(vec![address.parse().unwrap()]);
    let zone = zone(Named::InTurn(vec![at("1.1.1.1"), at("10.0.0.1")]));
    let ends: Vec<_> =
        (0..4).map(|_| answer(&zone, "a.example", 1).ends_with(&[1, 1, 1, 1])).collect();
    assert_eq!(ends, [true, false, true, false]);
}

#[test]
fn what_is_too_long_for_a_datagram_is_asked_for_again() {
    let many = (0..2_000_u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(n))).collect();
    let zone = zone(Named::At(many));
    let short = answer(&zone, "a.example", 1);
    assert_eq!((short.len(), short.get(2)), (27, Some(&0x83)));
    let long = zone.answer(&ask("a.example", 1), MESSAGE_BYTES_MAX).unwrap();
    assert!(long.len() > 32_000, "{}", long.len());
}
