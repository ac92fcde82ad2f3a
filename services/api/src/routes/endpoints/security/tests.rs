//! Authentication and TLS as a caller sends them, as they are kept and as they are shown.

use fanfare_domain::endpoint::{ClientCertificate, client_key_owner};
use fanfare_testkit::receiver::{Certificate, ClientIdentity};
use serde_json::{Value, json};

use super::{
    super::{
        tests::{Bench, field, new, patch},
        view::EndpointView,
    },
    *,
};
use crate::routes::endpoints::draft::NewEndpoint;

const TOKEN_URL: &str = "https://login.example.com/token";

fn with(authentication: Value) -> NewEndpoint {
    let authentication = Some(serde_json::from_value(authentication).unwrap());
    NewEndpoint { authentication, ..new() }
}

fn with_tls(tls: Value) -> NewEndpoint {
    NewEndpoint { tls: Some(serde_json::from_value(tls).unwrap()), ..new() }
}

fn oauth2() -> Value {
    json!({
        "type": "oauth2", "token_url": TOKEN_URL, "client_id": "us", "client_secret": "s3cret-1",
        "scopes": ["a"], "parameters": {"audience": "b"},
    })
}

fn shown(bench: &Bench, endpoint: &Endpoint) -> Value {
    let view = EndpointView::of(endpoint, &bench.profile, endpoint.created_at);
    serde_json::to_value(view).unwrap()
}

fn secret_of(bench: &Bench, endpoint: &Endpoint) -> String {
    let sealed = endpoint.security.authentication.as_ref().unwrap().secret();
    let opened = bench.keyring.open(&authentication_owner(endpoint.id), sealed).unwrap();
    String::from(opened.expose())
}

#[test]
fn a_secret_is_sealed_and_what_is_no_secret_is_shown() {
    let bench = Bench::new("standard-webhooks");
    let bearer = json!({"type": "bearer", "token": "s3cret-1"});
    let basic = json!({"type": "basic", "username": "us", "password": "s3cret-1"});
    for (sent, expected) in [
        (bearer, json!({"type": "bearer"})),
        (basic, json!({"type": "basic", "username": "us"})),
        (
            oauth2(),
            json!({
                "type": "oauth2", "token_url": TOKEN_URL, "client_id": "us", "scopes": ["a"],
                "parameters": {"audience": "b"}, "credentials_in": "header",
            }),
        ),
    ] {
        let (endpoint, _) = bench.create(with(sent)).unwrap();
        assert_eq!(secret_of(&bench, &endpoint), "s3cret-1");
        let shown = shown(&bench, &endpoint);
        assert_eq!(shown["authentication"], expected);
        assert!(!shown.to_string().contains("s3cret-1"));
        assert!(!format!("{endpoint:?}").contains("s3cret-1"));
    }
}

#[test]
fn a_change_keeps_a_secret_that_it_does_not_say() {
    let bench = Bench::new("standard-webhooks");
    let (endpoint, _) = bench.create(with(oauth2())).unwrap();
    let change = |authentication: Value| {
        bench.patch(&endpoint, &patch(json!({ "authentication": authentication })))
    };
    let mut other = oauth2();
    other.as_object_mut().unwrap().remove("client_secret");
    other["scopes"] = json!(["b", "c"]);
    other["credentials_in"] = json!("body");
    let next = change(other.clone()).unwrap();
    assert_eq!(secret_of(&bench, &next), "s3cret-1");
    assert_eq!(shown(&bench, &next)["authentication"]["scopes"], json!(["b", "c"]));
    // It is not sent to where nobody said that it is to be sent.
    other["token_url"] = json!("https://evil.example.com/token");
    let refused = change(other.clone()).unwrap_err();
    let ApiError::Value { field, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(field, "authentication.client_secret");
    other["client_secret"] = json!("s3cret-2");
    assert_eq!(secret_of(&bench, &change(other).unwrap()), "s3cret-2");
    assert!(change(json!({"type": "bearer"})).is_err(), "it is the secret of something else");
    let none = change(Value::Null).unwrap();
    assert_eq!(shown(&bench, &none)["authentication"], Value::Null);
}

#[test]
fn what_cannot_stand_in_a_request_is_refused_by_name() {
    let bench = Bench::new("standard-webhooks");
    let changed = |name: &str, value: Value| {
        let mut changed = oauth2();
        changed[name] = value;
        changed
    };
    for (expected, sent) in [
        ("token", json!({"type": "bearer"})),
        ("token", json!({"type": "bearer", "token": ""})),
        ("token", json!({"type": "bearer", "token": "a b"})),
        ("token", json!({"type": "bearer", "token": "a\r\nx: y"})),
        ("token", json!({"type": "bearer", "token": "x".repeat(2_049)})),
        ("username", json!({"type": "basic", "username": "a:b", "password": "c"})),
        ("username", json!({"type": "basic", "username": "", "password": "c"})),
        ("password", json!({"type": "basic", "username": "a", "password": "\u{e9}"})),
        ("token_url", changed("token_url", json!("http://login.example.com/"))),
        ("token_url", changed("token_url", json!("https://10.0.0.1/"))),
        ("token_url", changed("token_url", json!("https://localhost/"))),
        ("token_url", changed("token_url", json!("https://a:b@login.example.com/"))),
        ("client_id", changed("client_id", json!(""))),
        ("client_secret", changed("client_secret", json!("a\nb"))),
        ("scopes", changed("scopes", json!(["a b"]))),
        ("scopes", changed("scopes", json!(vec!["a"; 33]))),
        ("parameters", changed("parameters", json!({"grant_type": "password"}))),
        ("parameters", changed("parameters", json!({"a": ""}))),
    ] {
        let name = format!("authentication.{expected}");
        assert_eq!(field(bench.create(with(sent.clone()))), name, "{sent}");
    }
}

#[test]
fn one_header_says_who_a_request_is_from() {
    let bench = Bench::new("standard-webhooks");
    let bearer = json!({"type": "bearer", "token": "s3cret-1"});
    let headers = BTreeMap::from([(String::from("Authorization"), String::from("Bearer x"))]);
    let both = NewEndpoint { headers: headers.clone(), ..with(bearer.clone()) };
    assert_eq!(field(bench.create(both)), "authentication");
    let (endpoint, _) = bench.create(NewEndpoint { headers, ..new() }).unwrap();
    let both = patch(json!({ "authentication": bearer }));
    assert!(bench.patch(&endpoint, &both).is_err());
    let instead = json!({ "authentication": bearer, "headers": { "authorization": null } });
    let next = bench.patch(&endpoint, &patch(instead)).unwrap();
    let back = patch(json!({ "headers": { "authorization": "Bearer x" } }));
    assert!(bench.patch(&next, &back).is_err());
}

#[test]
fn certificates_are_checked_with_their_key_and_shown_without_it() {
    let bench = Bench::new("standard-webhooks");
    let [ours, other] =
        [0, 1].map(|_| ClientIdentity::self_signed(Certificate::ForClients).unwrap());
    let sent = json!({
        "ca_pem": other.certificate,
        "client_certificate_pem": ours.certificate,
        "client_key_pem": ours.key,
    });
    let (endpoint, _) = bench.create(with_tls(sent)).unwrap();
    let tls = endpoint.security.tls.clone().unwrap();
    let ClientCertificate { chain, key } = tls.client.unwrap();
    let opened = bench.keyring.open(&client_key_owner(endpoint.id), &key).unwrap();
    assert_eq!(opened.expose(), ours.key);
    let view = shown(&bench, &endpoint);
    assert!(!view.to_string().contains("PRIVATE KEY"));
    let words = |pem: &str| pem.split_whitespace().collect::<String>();
    for (member, certificate) in
        [("ca_pem", &other.certificate), ("client_certificate_pem", &ours.certificate)]
    {
        assert_eq!(words(view["tls"][member].as_str().unwrap()), words(certificate));
    }
    let certificate = &view["tls"]["client_certificate"];
    assert_eq!(certificate["subject"], "CN=127.0.0.1");
    assert_eq!(certificate["fingerprint_sha256"], json!(chain[0].fingerprint()));
    assert_eq!(view["tls"]["authorities"][0]["subject"], "CN=127.0.0.1");

    // The key stays with its certificate, and with no other one.
    let same = patch(json!({"tls": {"client_certificate_pem": ours.certificate}}));
    let next = bench.patch(&endpoint, &same).unwrap().security.tls.unwrap();
    assert_eq!((next.authorities.len(), next.client.unwrap().key), (0, key));
    let swapped = patch(json!({"tls": {"client_certificate_pem": other.certificate}}));
    assert!(bench.patch(&endpoint, &swapped).is_err());
}

#[test]
fn certificates_that_are_of_no_use_are_refused_by_name() {
    let bench = Bench::new("standard-webhooks");
    let made = |kind| ClientIdentity::self_signed(kind).unwrap();
    let (ours, other) = (made(Certificate::ForClients), made(Certificate::ForClients));
    let expired = made(Certificate::Expired);
    let pair = |certificate: &str, key: &str| json!({"client_certificate_pem": certificate, "client_key_pem": key});
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (expected, sent) in [
        ("tls", json!({})),
        ("tls.ca_pem", json!({"ca_pem": ""})),
        ("tls.ca_pem", json!({"ca_pem": broken})),
        ("tls.ca_pem", json!({"ca_pem": expired.certificate})),
        ("tls.ca_pem", json!({"ca_pem": "x".repeat(17 << 10)})),
        ("tls.ca_pem", json!({"ca_pem": ours.certificate.repeat(11)})),
        ("tls.client_key_pem", json!({"client_certificate_pem": ours.certificate})),
        ("tls.client_certificate_pem", json!({"client_key_pem": ours.key})),
        ("tls.client_certificate_pem", pair(&expired.certificate, &expired.key)),
        ("tls.client_key_pem", pair(&ours.certificate, &other.key)),
        ("tls.client_key_pem", pair(&ours.certificate, "s3cret")),
        ("tls.client_key_pem", pair(&ours.certificate, &ours.certificate)),
    ] {
        assert_eq!(field(bench.create(with_tls(sent.clone()))), expected, "{sent}");
    }
}
