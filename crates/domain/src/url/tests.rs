//! URLs that the world sends, and what must become of them.

use proptest::prelude::*;

use super::*;
use crate::address::AddressRule;

fn parse(text: &str) -> Result<String, UrlError> {
    EndpointUrl::parse(text, &UrlPolicy::default()).map(|url| String::from(url.as_str()))
}

/// The error without what it carries.
fn refused(text: &str) -> Option<&'static str> {
    parse(text).err().map(UrlError::as_str)
}

fn loopback_allowed() -> UrlPolicy {
    let addresses = AddressPolicy { allow: AddressRule::LOOPBACK.to_vec(), deny: Vec::new() };
    UrlPolicy { addresses, ..UrlPolicy::default() }
}

#[test]
fn every_spelling_of_a_forbidden_address_is_refused() {
    let table = [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://0/",
        "http://017700000001/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://%31%32%37.0.0.1/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:0:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::a00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[2001::80ff:fffe]/",
        "http://[fec0::1]/",
        "http://[fd00:ec2::254]/",
        "http://[ff02::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://0xA9FEA9FE/",
        "http://2852039166/",
        "http://100.100.100.200/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.0.1/",
        "http://0300.0250.0.1/",
        "http://100.64.0.1/",
        "http://198.18.0.1/",
        "http://192.88.99.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://224.0.0.1/",
    ];
    for text in table {
        assert_eq!(refused(text), Some("url_address_forbidden"), "{text}");
    }
}

#[test]
fn names_of_this_machine_are_refused() {
    let table = [
        "http://localhost/",
        "http://LOCALHOST./",
        "http://foo.localhost/",
        "http://ⓛocalhost/",
        "http://localhost.localdomain/",
        "http://ip6-localhost/",
    ];
    for text in table {
        assert_eq!(parse(text), Err(UrlError::Localhost), "{text}");
    }
    assert_eq!(refused("http://localhost.example/"), None);
}

#[test]
fn malformed_and_misleading_urls_are_refused() {
    let table = [
        ("http://[fe80::1%25eth0]/", UrlError::Host),
        ("http://[fe80::1%eth0]/", UrlError::Host),
        ("http://evil.com@127.0.0.1/", UrlError::Credentials),
        ("http://127.0.0.1@evil.com/", UrlError::Credentials),
        ("http://user:pass@example.com/", UrlError::Credentials),
        ("http://@example.com/", UrlError::Credentials),
        ("http://127.0.0.1#@evil.com/", UrlError::Fragment),
        ("http://example.com/#top", UrlError::Fragment),
        ("http://example.com/#", UrlError::Fragment),
        ("http://evil.com\\@127.0.0.1/", UrlError::Character),
        ("http:///127.0.0.1/", UrlError::Scheme),
        ("http:///example.com/", UrlError::Scheme),
        ("http:\\\\127.0.0.1\\", UrlError::Character),
        ("http:127.0.0.1", UrlError::Scheme),
        ("ftp://example.com/", UrlError::Scheme),
        ("file:///etc/passwd", UrlError::Scheme),
        ("gopher://127.0.0.1:6379/_x", UrlError::Scheme),
        ("unix:/run/x.sock", UrlError::Scheme),
        ("javascript:alert(1)", UrlError::Scheme),
        ("data:text/plain,x", UrlError::Scheme),
        ("http://a:65536/", UrlError::Host),
        ("http://example.com:80:80/", UrlError::Host),
        ("http://example.com:http/", UrlError::Host),
        ("//example.com/", UrlError::Scheme),
        ("example.com", UrlError::Scheme),
        ("", UrlError::Scheme),
        ("http://", UrlError::Scheme),
        ("http://?", UrlError::Scheme),
        ("http://example.com/\r\nX: y", UrlError::Character),
        ("http://exam\tple.com/", UrlError::Character),
        ("http://example.com/\0", UrlError::Character),
        ("http://example.com/a b", UrlError::Character),
        (" http://example.com/", UrlError::Character),
        ("http://example.com/\u{a0}", UrlError::Character),
        ("http://exa%00mple.com/", UrlError::Host),
        ("http://exa%20mple.com/", UrlError::Host),
        ("http://a..b/", UrlError::Host),
        ("http://example.com../", UrlError::Host),
        ("http://./", UrlError::Host),
        ("http://-a.com/", UrlError::Host),
        ("http://a-.com/", UrlError::Host),
        ("http://a*b.com/", UrlError::Host),
        ("http://{host}/", UrlError::Host),
        ("http://example.1/", UrlError::Host),
        ("http://999.1.1.1/", UrlError::Host),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text), Err(expected), "{text:?}");
    }
}

#[test]
fn only_the_ports_of_the_policy_are_admitted() {
    for port in [0, 22, 25, 4222, 6379, 8080, 8222] {
        assert_eq!(parse(&format!("http://example.com:{port}/")), Err(UrlError::Port(port)));
    }
    assert_eq!(parse("http://example.com:443/").unwrap(), "http://example.com:443/");
    let wide = UrlPolicy { ports: "443,8000-8999".parse().unwrap(), ..UrlPolicy::default() };
    assert!(EndpointUrl::parse("https://example.com:8080/", &wide).is_ok());
    let http = EndpointUrl::parse("http://example.com/", &wide);
    assert_eq!(http, Err(UrlError::Port(80)));
}

#[test]
fn an_address_that_the_operator_named_needs_no_other_leave() {
    let policy = loopback_allowed();
    for text in ["http://127.0.0.1:4711/", "http://[::1]:4711/", "http://localhost:4711/"] {
        assert_eq!(EndpointUrl::parse(text, &policy).unwrap().as_str(), text);
    }
    let elsewhere = EndpointUrl::parse("http://10.0.0.1/", &policy).unwrap_err();
    assert_eq!(elsewhere.as_str(), "url_address_forbidden");
    let public = EndpointUrl::parse("http://1.1.1.1:4711/", &policy);
    assert_eq!(public, Err(UrlError::Port(4711)));
}

#[test]
fn https_can_be_required() {
    let policy = UrlPolicy { schemes: Schemes::HttpsOnly, ..loopback_allowed() };
    for text in ["http://example.com/", "HTTP://example.com/", "http://127.0.0.1/"] {
        assert_eq!(EndpointUrl::parse(text, &policy), Err(UrlError::HttpsRequired), "{text}");
    }
    assert!(EndpointUrl::parse("https://example.com/", &policy).is_ok());
}

#[test]
fn length_is_limited_as_given_and_as_stored() {
    let of_length = |length: usize| {
        let start = "https://example.com/";
        format!("{start}{}", "a".repeat(length - start.len()))
    };
    assert!(parse(&of_length(2_048)).is_ok());
    assert_eq!(parse(&of_length(2_049)), Err(UrlError::TooLong));
    let grows = format!("https://example.com/{}", "é".repeat(900));
    assert_eq!(parse(&grows), Err(UrlError::TooLong));
    let host = format!("https://{}/", ["a"; 128].join("."));
    assert_eq!(parse(&host), Err(UrlError::Host));
    assert_eq!(parse(&format!("https://{}.com/", "a".repeat(64))), Err(UrlError::Host));
}

#[test]
fn what_is_admitted_is_stored_in_canonical_form() {
    let table = [
        ("HTTPS://Example.COM", "https://example.com/"),
        ("https://example.com:443/a?b=c", "https://example.com/a?b=c"),
        ("https://example.com./", "https://example.com/"),
        ("http://example.com%2eevil.com/", "http://example.com.evil.com/"),
        ("http://аррӏе.com/", "http://xn--80ak6aa92e.com/"),
        ("https://example.com/a/../b", "https://example.com/b"),
        ("https://example.com/é", "https://example.com/%C3%A9"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("https://my_host.example/", "https://my_host.example/"),
        ("http://100.63.255.254/", "http://100.63.255.254/"),
        ("http://100.128.0.1/", "http://100.128.0.1/"),
        ("http://0x01010101/", "http://1.1.1.1/"),
        ("https://[2606:4700:0:0::1111]/", "https://[2606:4700::1111]/"),
        ("http://metadata.google.internal/", "http://metadata.google.internal/"),
    ];
    for (text, expected) in table {
        assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "(https?://)?[ -~\u{a0}-\u{2fff}]{0,40}") {
        if let Ok(canonical) = parse(&text) {
            prop_assert_eq!(parse(&canonical), Ok(canonical));
        }
    }

    #[test]
    fn no_number_leads_to_a_forbidden_address(bits: u32, form in 0..3) {
        let text = match form {
            0 => format!("http://{bits}/"),
            1 => format!("http://{bits:#x}/"),
            _ => format!("http://0{bits:o}/"),
        };
        let address = SocketAddr::new(Ipv4Addr::from_bits(bits).into(), 80);
        let admitted = AddressPolicy::default().admit(address).is_ok();
        prop_assert_eq!(parse(&text).is_ok(), admitted, "{}", text);
    }
}
