//! URLs of endpoints: what is admitted is dialled as it was judged.
//!
//! Checked against other readers of URLs, hosts and addresses: where two of them disagree on the host,
//! a check can be walked around.

use std::net::{IpAddr, Ipv4Addr};

use fanfare_domain::{
    EndpointUrl, UrlPolicy,
    address::{AddressPolicy, AddressRule},
    url::{Schemes, UrlError},
};
use url::{Host, Url};

use crate::{addresses::is_public, input::text};

/// Reads each line of an input as a URL.
pub fn run(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let strict = UrlPolicy::default();
    let own = AddressPolicy { allow: AddressRule::LOOPBACK.to_vec(), deny: Vec::new() };
    let open = UrlPolicy { addresses: own, ..UrlPolicy::default() };
    // A line's end is part of what is refused: the whole is tried too.
    for text in std::iter::once(text).chain(text.lines().take(16)) {
        let found = EndpointUrl::parse(text, &strict);
        match &found {
            Ok(url) => {
                admitted(text, url, &strict);
                let host = url.as_url().host().expect("there is a host");
                assert!(leads_outside(&host), "{text}: {url}");
            }
            Err(refused) => {
                assert!(!refused.as_str().is_empty() && !refused.to_string().is_empty());
            }
        }
        if let Ok(url) = EndpointUrl::parse(text, &open) {
            admitted(text, &url, &open);
        } else {
            assert!(found.is_err(), "{text}: what is allowed besides forbids it");
        }
        https_only(text, &strict, &found);
    }
}

/// What is kept is what was judged, for every other reader as well.
fn admitted(text: &str, url: &EndpointUrl, policy: &UrlPolicy) {
    let shown = url.as_str();
    assert_eq!(EndpointUrl::parse(shown, policy).as_ref(), Ok(url), "{text}: judged again");
    assert!(text.len() <= EndpointUrl::LENGTH_MAX && shown.len() <= EndpointUrl::LENGTH_MAX);
    assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{text}: {shown}");
    let parsed = Url::parse(shown).expect("what is shown is a URL");
    assert_eq!(&parsed, url.as_url(), "{text}: {shown}");
    assert!(parsed.username().is_empty() && parsed.password().is_none(), "{text}: {shown}");
    assert_eq!(parsed.fragment(), None, "{text}: {shown}");
    assert!(["http", "https"].contains(&parsed.scheme()), "{text}: {shown}");
    let port = parsed.port_or_known_default().expect("there is a port");
    let sent: http::Uri = shown.parse().expect("what is admitted can be sent");
    assert_eq!(sent.host(), parsed.host_str(), "{text}: {shown}");
    assert_eq!(sent.port_u16(), parsed.port(), "{text}: {shown}");
    assert_eq!(sent.scheme_str(), Some(parsed.scheme()), "{text}: {shown}");
    match parsed.host().expect("there is a host") {
        Host::Domain(name) => {
            // What a resolver of the system would take for an address is none of our names.
            assert_eq!(classic(name), None, "{text}: {shown}");
            assert!(name.parse::<IpAddr>().is_err(), "{text}: {shown}");
        }
        Host::Ipv4(address) => {
            assert!(policy.addresses.admit((address, port).into()).is_ok(), "{text}: {shown}");
        }
        Host::Ipv6(address) => {
            assert!(policy.addresses.admit((address, port).into()).is_ok(), "{text}: {shown}");
        }
    }
}

/// Tells whether a host is none of a private network.
fn leads_outside(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name != "localhost" && !name.ends_with(".localhost"),
        Host::Ipv4(address) => is_public(IpAddr::V4(*address)),
        Host::Ipv6(address) => is_public(IpAddr::V6(*address)),
    }
}

/// Where only HTTPS is admitted, all else is judged as ever.
fn https_only(text: &str, policy: &UrlPolicy, found: &Result<EndpointUrl, UrlError>) {
    let only = UrlPolicy { schemes: Schemes::HttpsOnly, ..policy.clone() };
    match (EndpointUrl::parse(text, &only), found) {
        (Ok(url), found) => {
            assert_eq!(url.as_url().scheme(), "https", "{text}");
            assert_eq!(found.as_ref(), Ok(&url), "{text}");
        }
        (Err(_), Ok(url)) => assert_eq!(url.as_url().scheme(), "http", "{text}"),
        (Err(_), Err(_)) => {}
    }
}

/// Reads an address as `inet_aton` does: one to four numbers, decimal, octal or hexadecimal, of which
/// the last fills what is left.
fn classic(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last().filter(|(_, first)| first.len() <= 3)?;
    let mut bits = 0;
    for (at, part) in first.iter().enumerate() {
        bits |= Some(part).filter(|part| **part <= 0xff)? << (24 - 8 * at);
    }
    let room = 32 - 8 * first.len();
    let all = bits | Some(last).filter(|last| **last >> room == 0)?;
    u32::try_from(all).ok().map(Ipv4Addr::from_bits)
}

fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match (hexadecimal, text.strip_prefix('0')) {
        (Some(""), _) => Some(0),
        (Some(digits), _) => u64::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u64::from_str_radix(digits, 8).ok(),
        (None, _) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_systems_do() {
        for text in ["127.0.0.1", "0x7f.1", "0177.0.1", "2130706433", "0x7f000001"] {
            assert_eq!(classic(text), Some(Ipv4Addr::LOCALHOST), "{text}");
        }
        for text in ["example.com", "1.2.3.4.5", "256.1", "08", ""] {
            assert_eq!(classic(text), None, "{text}");
        }
    }
}
