//! What callers show to be let in.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_service::{Clock as _, SystemClock};
use fanfare_testkit::wait_until;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    raw,
    table::{Family, Row, Seen},
    world::World,
};

const TENANT: &str = "tokens";
const OUT: &str = "401 unauthenticated";
const FORBIDDEN: &str = "403 forbidden";

/// Heads of requests; `{key}` stands for a valid key.
const HEADS: [(&str, &str, &str); 24] = [
    ("a valid key", "authorization: Bearer {key}\r\n", "200"),
    ("no key", "", OUT),
    ("an empty header", "authorization: \r\n", OUT),
    ("no key behind Bearer", "authorization: Bearer \r\n", OUT),
    ("a key of zeros", "authorization: Bearer fk_{zeros}\r\n", OUT),
    ("a key that is one digit short", "authorization: Bearer {short}\r\n", OUT),
    ("a key that is one digit longer", "authorization: Bearer {key}0\r\n", OUT),
    ("a key whose last digit is another", "authorization: Bearer {other}\r\n", OUT),
    ("a key in upper case", "authorization: Bearer {upper}\r\n", OUT),
    ("a key without its prefix", "authorization: Bearer {bare}\r\n", OUT),
    ("a key in quotes", "authorization: Bearer \"{key}\"\r\n", OUT),
    ("a key with a space inside", "authorization: Bearer {spaced}\r\n", OUT),
    ("two keys in one header", "authorization: Bearer {key}, {key}\r\n", OUT),
    ("a key without Bearer", "authorization: {key}\r\n", OUT),
    ("a key as a user's name", "authorization: Basic {basic}\r\n", OUT),
    ("a key in another header", "x-api-key: {key}\r\n", OUT),
    ("a key in a cookie", "cookie: authorization={key}; token={key}\r\n", OUT),
    ("the hash of a key", "authorization: Bearer fk_{hash}\r\n", OUT),
    ("a key of 16 KiB", "authorization: Bearer fk_{long}\r\n", OUT),
    ("bytes that are no text", "authorization: Bearer \u{ff}\u{fe}\r\n", OUT),
    ("a portal's token that is none", "authorization: Bearer fp_AAAA\r\n", OUT),
    ("a portal's token with a bit flipped", "authorization: Bearer {flipped}\r\n", OUT),
    (
        "a token without a signature (alg none)",
        "authorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\n",
        OUT,
    ),
    ("an operator's key by another name of the header", "Authorization : Bearer {key}\r\n", "400"),
];

const QUERY: &str = "a key in the query";
const DELETED: &str = "a key that was deleted";
const EXPIRED: &str = "a key whose time is over";
const PUBLISHER_READS: &str = "a key that may publish, to read";
const READER_WRITES: &str = "a key that may read, to write";
const TENANT_OPERATES: &str = "a tenant's key, to make a tenant";
const TENANT_AUDITS: &str = "a tenant's key, for what all tenants did";
const TENANT_MAKES_OPERATOR: &str = "a tenant's key, to make an operator's key";
const TENANT_REVEALS: &str = "a tenant's key, to be shown secrets again";
const LINK_MAKES_KEY: &str = "a portal's token, to make a key";
const CROSS_ORIGIN: &str = "a browser's question whether another site may ask";

pub(crate) fn family() -> Family {
    let mut rows: Vec<_> =
        HEADS.iter().map(|(name, _, expected)| Row::new(name, expected)).collect();
    rows.push(Row::new(QUERY, OUT));
    rows.push(Row::new(DELETED, OUT));
    rows.push(Row::new(EXPIRED, OUT));
    for name in [
        PUBLISHER_READS,
        READER_WRITES,
        TENANT_OPERATES,
        TENANT_AUDITS,
        TENANT_MAKES_OPERATOR,
        TENANT_REVEALS,
        LINK_MAKES_KEY,
    ] {
        rows.push(Row::new(name, FORBIDDEN));
    }
    rows.push(Row::new(CROSS_ORIGIN, "no leave is given"));
    for row in rows.iter_mut().filter(|row| row.name.contains("digit")) {
        row.advisory = "Jenkins CVE-2022-43411";
    }
    Family {
        title: "Keys and tokens",
        how: "Shown to the API. Keys are looked up by their SHA-256, so that nothing is compared byte by byte.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, "standard-webhooks").await?;
    let link = world.api().post(&format!("/v1/tenants/{TENANT}/portal-links"), &json!({})).await?;
    let token = link["token"].as_str().context("a link has a token")?.to_owned();
    let mut seen = Seen::new();
    for (name, head, _) in HEADS {
        let head = filled(head, world.api().key(), &token)?;
        seen.insert(String::from(name), ask(world, "GET", "/v1/tenants", &head, "").await?);
    }
    let path = format!("/v1/tenants?access_token={0}&authorization={0}&key={0}", world.api().key());
    seen.insert(String::from(QUERY), ask(world, "GET", &path, "", "").await?);
    seen.extend(gone(world).await?);
    seen.extend(roles(world, &token).await?);
    let preflight = "origin: https://evil.example\r\naccess-control-request-method: POST\r\n";
    let bytes =
        format!("OPTIONS /v1/tenants HTTP/1.1\r\nhost: a\r\n{preflight}connection: close\r\n\r\n");
    let answer = raw::send(world.api(), bytes.as_bytes()).await?;
    let leave = answer.headers.iter().any(|(name, _)| name.starts_with("access-control-"));
    let told = if leave { "leave is given" } else { "no leave is given" };
    seen.insert(String::from(CROSS_ORIGIN), String::from(told));
    Ok(seen)
}

/// Fills a head with forms of a key.
fn filled(head: &str, key: &str, token: &str) -> Result<String> {
    let digits = key.trim_start_matches("fk_");
    let (short, last) = key.split_at(key.len() - 1);
    let other = format!("{short}{}", if last == "0" { "1" } else { "0" });
    let (first, second) = key.split_at(10);
    let basic = data_encoding::BASE64.encode(format!("{key}:").as_bytes());
    let mut flipped = token.to_owned();
    let end = flipped.pop().context("a token has an end")?;
    let end = flipped.pop().filter(|_| end != ' ').context("a token has two")?;
    flipped.push_str(if end == 'A' { "BA" } else { "AA" });
    // What a key is looked up by is no key.
    let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(key.as_bytes()));
    let forms = [
        ("{key}", key),
        ("{short}", short),
        ("{other}", &other),
        ("{upper}", &key.to_uppercase()),
        ("{bare}", digits),
        ("{spaced}", &format!("{first} {second}")),
        ("{basic}", &basic),
        ("{zeros}", &"0".repeat(64)),
        ("{long}", &"a".repeat(16 << 10)),
        ("{hash}", &hash),
        ("{flipped}", &flipped),
    ];
    Ok(forms.iter().fold(String::from(head), |head, (form, text)| head.replace(form, text)))
}

async fn ask(world: &World, method: &str, path: &str, head: &str, body: &str) -> Result<String> {
    let json = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\n{head}{json}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    Ok(raw::send(world.api(), text.as_bytes()).await?.told())
}

/// Makes a key of the tenant; returns its id, and a header with it.
async fn key(world: &World, new: &serde_json::Value) -> Result<(String, String)> {
    let made = world.api().post(&format!("/v1/tenants/{TENANT}/keys"), new).await?;
    let text = |name: &str| made[name].as_str().map(String::from).context("a key has it");
    Ok((text("id")?, format!("authorization: Bearer {}\r\n", text("key")?)))
}

/// Keys that were good once.
async fn gone(world: &World) -> Result<Seen> {
    let path = format!("/v1/tenants/{TENANT}/endpoints");
    let (id, head) = key(world, &json!({ "role": "admin" })).await?;
    world.api().delete(&format!("/v1/tenants/{TENANT}/keys/{id}")).await?;
    let deleted = ask(world, "GET", &path, &head, "").await?;
    let end = SystemClock.now().saturating_add(Duration::from_secs(2)).to_string();
    let (_, head) = key(world, &json!({ "role": "admin", "expires_at": end })).await?;
    let expired = wait_until("a key's time to be over", async || {
        match ask(world, "GET", &path, &head, "").await {
            Ok(told) if told == "200" => Err(told),
            Ok(told) => Ok(told),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
    Ok(Seen::from([(String::from(DELETED), deleted), (String::from(EXPIRED), expired)]))
}

/// Keys that are good, for something else.
async fn roles(world: &World, token: &str) -> Result<Seen> {
    let (_, publisher) = key(world, &json!({ "role": "publish" })).await?;
    let (_, reader) = key(world, &json!({ "role": "read" })).await?;
    let (_, admin) = key(world, &json!({ "role": "admin" })).await?;
    let link = format!("authorization: Bearer {token}\r\n");
    let endpoints = format!("/v1/tenants/{TENANT}/endpoints");
    let keys = format!("/v1/tenants/{TENANT}/keys");
    let endpoint = crate::world::new_endpoint("https://example.com/");
    let made = world.api().post(&endpoints, &endpoint).await?;
    let reveal = format!("{endpoints}/{}/reveal-secrets", made["id"].as_str().unwrap_or_default());
    let (endpoint, tenant) = (endpoint.to_string(), r#"{"id":"mine"}"#);
    let role = r#"{"role":"admin"}"#;
    let asked = [
        (PUBLISHER_READS, ask(world, "GET", &endpoints, &publisher, "").await?),
        (READER_WRITES, ask(world, "POST", &endpoints, &reader, &endpoint).await?),
        (TENANT_OPERATES, ask(world, "POST", "/v1/tenants", &admin, tenant).await?),
        (TENANT_AUDITS, ask(world, "GET", "/v1/audit", &admin, "").await?),
        (TENANT_MAKES_OPERATOR, ask(world, "POST", "/v1/keys", &admin, role).await?),
        (TENANT_REVEALS, ask(world, "POST", &reveal, &admin, "").await?),
        (LINK_MAKES_KEY, ask(world, "POST", &keys, &link, role).await?),
    ];
    Ok(asked.map(|(name, told)| (String::from(name), told)).into())
}
