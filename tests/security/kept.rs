//! Certificates that we show to endpoints, and all else that shows who we are: taken once, kept sealed,
//! and told to nobody.

use anyhow::{Context as _, Result, ensure};
use data_encoding::BASE64;
use fanfare_testkit::receiver::{Certificate, ClientIdentity};
use serde_json::{Value, json};

use crate::{
    support::{
        EAGER, Refused,
        search::{Needles, forms},
    },
    table::{Family, Row, Seen},
    world::{World, new_endpoint},
};

const TENANT: &str = "kept";
const URL: &str = "https://example.com/kept";
/// What stands in each endpoint's name: it must be found, or the search finds nothing.
const MARKER: &str = "marker-5e0c77d1";
const SECRET: &str = "kept-secret-2f6b9a41";

const REFUSED: &str = "400 value_invalid, and the key is not said back";
const KEPT: &str = "taken, in no message in the clear, and in no answer";

/// What is kept, by its name, and the field of it.
const KINDS: [(&str, &str); 5] = [
    ("the key of a client certificate", "tls"),
    ("a token", "bearer"),
    ("a password", "basic"),
    ("a client secret for tokens", "oauth2"),
    ("the value of a header", "headers"),
];

/// What is wrong with a certificate and its key.
const MISTAKES: [&str; 9] = [
    "the key of another certificate",
    "a key without its certificate",
    "a certificate without its key",
    "a certificate whose time is over",
    "a key in place of the certificate",
    "a certificate in place of the key",
    "a key that is encrypted",
    "eleven certificates",
    "a key of 20 KiB",
];

pub(crate) fn family() -> Family {
    let mut rows: Vec<_> = KINDS.iter().map(|(name, _)| Row::new(name, KEPT)).collect();
    rows.extend(MISTAKES.iter().map(|name| Row::new(name, REFUSED)));
    Family {
        title: "What shows endpoints who we are",
        how: "Given to the API for a new endpoint, and changed once. It is looked for in every message of every \
              stream, and in what the API answers about the endpoint, its tenant and who changed what: as it was \
              given, in hexadecimal, and in base 64 wherever it stands.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, EAGER).await?;
    let mut seen = Seen::new();
    for name in MISTAKES {
        seen.insert(String::from(name), mistaken(world, name).await?);
    }
    kept(world, &mut seen).await?;
    Ok(seen)
}

/// Gives the API a certificate and a key with which something is wrong.
async fn mistaken(world: &World, name: &str) -> Result<String> {
    let ours = ClientIdentity::self_signed(Certificate::ForClients)?;
    let other = ClientIdentity::self_signed(Certificate::ForClients)?;
    let pair = |certificate: &str, key: &str| json!({ "client_certificate_pem": certificate, "client_key_pem": key });
    let tls = match name {
        "the key of another certificate" => pair(&other.certificate, &ours.key),
        "a key without its certificate" => json!({ "client_key_pem": ours.key }),
        "a certificate without its key" => json!({ "client_certificate_pem": ours.certificate }),
        "a certificate whose time is over" => {
            let old = ClientIdentity::self_signed(Certificate::Expired)?;
            pair(&old.certificate, &old.key)
        }
        "a key in place of the certificate" => pair(&ours.key, &ours.key),
        "a certificate in place of the key" => pair(&ours.certificate, &ours.certificate),
        "a key that is encrypted" => {
            let encrypted = ours.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
            pair(&ours.certificate, &encrypted)
        }
        "eleven certificates" => pair(&ours.certificate.repeat(11), &ours.key),
        "a key of 20 KiB" => {
            pair(&ours.certificate, &format!("{}{}", ours.key, "\n".repeat(20 << 10)))
        }
        other => anyhow::bail!("{other} is no mistake that is known"),
    };
    let mut new = new_endpoint(URL);
    new["tls"] = tls;
    let refused = match world.strict.endpoint(TENANT, &new).await {
        Ok(_) => return Ok(String::from("taken")),
        Err(error) => error.downcast::<Refused>()?,
    };
    let body = refused.body.to_string();
    if key_lines(&ours.key).any(|line| body.contains(line)) {
        return Ok(body);
    }
    Ok(format!("{} {}, and the key is not said back", refused.status, refused.code()))
}

/// The lines of a key that say what it is.
fn key_lines(key: &str) -> impl Iterator<Item = &str> {
    key.lines().filter(|line| !line.is_empty() && !line.starts_with('-'))
}

/// Makes endpoints that are to show something, changes it, and looks for it.
async fn kept(world: &World, seen: &mut Seen) -> Result<()> {
    let mut planted = Vec::new();
    for (name, kind) in KINDS {
        let (mut secrets, mut id) = (Vec::new(), String::new());
        for round in ["first", "second"] {
            let (fields, secret) = given(kind, round)?;
            secrets.extend(secret);
            if id.is_empty() {
                let mut new = new_endpoint(URL);
                new["name"] = json!(MARKER);
                merge(&mut new, fields);
                id = world.strict.endpoint(TENANT, &new).await?.id;
            } else {
                let path = format!("/v1/tenants/{TENANT}/endpoints/{id}");
                world.strict.patch(&path, &fields).await?;
            }
        }
        planted.push((name, id, Needles::new(secrets)));
    }
    let messages = world.installation.server().everything().await?;
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    for message in &messages {
        let place = format!("{} {}", message.stream, message.sequence);
        texts.extend(message.texts().map(|text| (place.clone(), text.to_vec())));
    }
    let own = format!("/v1/tenants/{TENANT}");
    let mut paths: Vec<_> =
        planted.iter().map(|(_, id, _)| format!("{own}/endpoints/{id}")).collect();
    paths.extend(["endpoints", "audit"].map(|list| format!("{own}/{list}")));
    paths.extend(["/v1/audit", "/v1/tenants"].map(String::from));
    for path in paths {
        let answer = world.api().get(&path).await?.to_string();
        texts.push((format!("the answer of {path}"), answer.into_bytes()));
    }
    let marker = Needles::new(vec![(String::from("the marker"), MARKER.as_bytes().to_vec())]);
    let hits = texts.iter().filter(|(_, text)| marker.find(text).is_some()).count();
    ensure!(hits > KINDS.len(), "the search finds the endpoints {hits} times only");
    for (name, _, needles) in planted {
        let found = texts.iter().find_map(|(place, text)| {
            needles.find(text).map(|secret| format!("{secret} is in {place}"))
        });
        seen.insert(String::from(name), found.unwrap_or_else(|| String::from(KEPT)));
    }
    Ok(())
}

/// What must not be found, each with what it is.
type Sought = Vec<(String, Vec<u8>)>;

/// What is said to the API, and what of it must not be found.
fn given(kind: &str, round: &str) -> Result<(Value, Sought)> {
    let secret = format!("{SECRET}-{kind}-{round}");
    let fields = match kind {
        "tls" => {
            let ours = ClientIdentity::self_signed(Certificate::ForClients)?;
            let der = BASE64.decode(key_lines(&ours.key).collect::<String>().as_bytes())?;
            let mut needles = forms("the key", &der);
            let first = key_lines(&ours.key).next().context("a key has lines")?;
            needles.push((String::from("a line of the key"), first.as_bytes().to_vec()));
            let tls = json!({
                "client_certificate_pem": ours.certificate, "client_key_pem": ours.key,
            });
            return Ok((json!({ "tls": tls }), needles));
        }
        "bearer" => json!({ "authentication": { "type": "bearer", "token": secret } }),
        "basic" => json!({
            "authentication": { "type": "basic", "username": "us", "password": secret },
        }),
        "oauth2" => json!({
            "authentication": {
                "type": "oauth2", "token_url": "https://example.com/token", "client_id": "us",
                "client_secret": secret,
            },
        }),
        "headers" => json!({ "headers": { "x-key": secret } }),
        other => anyhow::bail!("{other} is nothing that is known"),
    };
    Ok((fields, forms("it", secret.as_bytes())))
}

fn merge(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        into.extend(fields);
    }
}
