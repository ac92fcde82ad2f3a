//! URLs that a tenant gives an endpoint: when it is made, and when it is changed.

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::{
    support::{Process, Service, binary, logs},
    table::{Family, Row, Seen},
    world::{World, new_endpoint, told},
};

const TENANT: &str = "urls";
/// How many URLs are tried at once.
const AT_ONCE: usize = 8;

const ADDRESS: &str = "400 url_address_forbidden";
const LOCALHOST: &str = "400 url_localhost_forbidden";
const HOST: &str = "400 url_host_invalid";
const SCHEME: &str = "400 url_scheme_invalid";
const CHARACTER: &str = "400 url_character_invalid";
const CREDENTIALS: &str = "400 url_credentials_forbidden";
const PORT: &str = "400 url_port_forbidden";
const FRAGMENT: &str = "400 url_fragment_forbidden";

/// URLs with an address in place of a name, in all their forms.
pub(crate) const LITERALS: [&str; 62] = [
    "http://127.0.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7F.0x0.0x0.0x1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.1/",
    "http://127.0.1/",
    "http://127.0.0.1./",
    "http://127.0.0.2/",
    "http://127.255.255.254/",
    "http://0/",
    "http://0.0.0.0/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://１２７.0.0.1/",
    "http://%31%32%37.0.0.1/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::a00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001::80ff:fffe]/",
    "http://[2001:10::1]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    "http://[5f00::1]/",
    "http://[100::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://[4000::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://0xA9FEA9FE/",
    "http://2852039166/",
    "http://169.254.170.2/v2/credentials",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://0300.0250.0.1/",
    "http://100.64.0.1/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
];

const OTHERS: [(&str, &str); 64] = [
    ("http://localhost/", LOCALHOST),
    ("http://LOCALHOST./", LOCALHOST),
    ("http://foo.localhost/", LOCALHOST),
    ("http://ⓛocalhost/", LOCALHOST),
    ("http://localhost.localdomain/", LOCALHOST),
    ("http://ip6-localhost/", LOCALHOST),
    ("http://[fe80::1%25eth0]/", HOST),
    ("http://[::1/", HOST),
    ("http://[127.0.0.1]/", HOST),
    ("http://256.256.256.256/", HOST),
    ("http://1.2.3.4.5/", HOST),
    ("http://0x/", ADDRESS),
    ("http://a..b/", HOST),
    ("http://-a.com/", HOST),
    ("http://a-.com/", HOST),
    ("http://.com/", HOST),
    ("http://a b.com/", CHARACTER),
    ("http://ex%00ample.com/", HOST),
    ("http://ex%0aample.com/", HOST),
    ("http://exa<mple.com/", HOST),
    ("http://example.com:80:80/", HOST),
    ("http://a:65536/", HOST),
    ("http://example.com:-1/", HOST),
    ("http://example.com:0/", PORT),
    ("http://example.com:22/", PORT),
    ("http://example.com:25/", PORT),
    ("http://example.com:4222/", PORT),
    ("http://example.com:6379/", PORT),
    ("http://example.com:8222/", PORT),
    ("https://example.com:80443/", HOST),
    ("http://evil.com@127.0.0.1/", CREDENTIALS),
    ("http://127.0.0.1@evil.com/", CREDENTIALS),
    ("http://user:pass@example.com/", CREDENTIALS),
    ("http://:@example.com/", CREDENTIALS),
    ("http://127.0.0.1%2f@evil.com/", CREDENTIALS),
    ("http://127.0.0.1#@evil.com/", FRAGMENT),
    ("http://example.com/#fragment", FRAGMENT),
    ("http://evil.com\\@127.0.0.1/", CHARACTER),
    ("http:\\\\127.0.0.1\\", CHARACTER),
    ("http:///127.0.0.1/", SCHEME),
    ("http:127.0.0.1", SCHEME),
    ("http:/127.0.0.1/", SCHEME),
    ("ftp://example.com/", SCHEME),
    ("file:///etc/passwd", SCHEME),
    ("gopher://127.0.0.1:6379/_x", SCHEME),
    ("dict://127.0.0.1:11211/stat", SCHEME),
    ("unix:/var/run/docker.sock", SCHEME),
    ("javascript:alert(1)", SCHEME),
    ("data:text/html,x", SCHEME),
    ("ws://example.com/", SCHEME),
    ("//example.com/", SCHEME),
    ("example.com", SCHEME),
    ("", SCHEME),
    ("http://", SCHEME),
    ("http://?x", SCHEME),
    ("http://example.com/\r\nX: y", CHARACTER),
    ("http://example.com/\tx", CHARACTER),
    ("http://exam\nple.com/", CHARACTER),
    ("http://example.com/\0", CHARACTER),
    (" http://example.com/", CHARACTER),
    ("http://example.com/\u{a0}x", CHARACTER),
    ("http://example.com/\u{2028}x", CHARACTER),
    ("ht\ntp://example.com/", CHARACTER),
    ("http://\u{ad}/", HOST),
];

/// URLs that are taken, and what they are shown as.
const TAKEN: [(&str, &str); 10] = [
    ("http://100.63.255.254/", "http://100.63.255.254/"),
    ("http://100.128.0.1/", "http://100.128.0.1/"),
    ("http://[2606:4700::1111]/", "http://[2606:4700::1111]/"),
    ("http://[::ffff:1.1.1.1]/", "http://[::ffff:101:101]/"),
    ("HTTP://EXAMPLE.com./a/../b", "http://example.com/b"),
    ("http://example.com%2eevil.com/", "http://example.com.evil.com/"),
    ("http://аррӏе.com/", "http://xn--80ak6aa92e.com/"),
    ("http://ｅxample.com/", "http://example.com/"),
    ("https://example.com:8443/?a=b", "https://example.com:8443/?a=b"),
    ("http://metadata.google.internal/", "http://metadata.google.internal/"),
];

/// Where only HTTPS is admitted, this must be refused.
const PLAIN: &str = "http://example.com/plain";

/// Longer than any URL may be, by one byte.
fn long() -> String {
    format!("http://example.com/{}", "a".repeat(2_049 - 19))
}

pub(crate) fn family() -> Family {
    let literal = |url: &&str| Row::new(url, ADDRESS).of("Gitea CVE-2026-22874");
    let mut rows: Vec<_> = LITERALS.iter().map(literal).collect();
    rows.extend(OTHERS.iter().map(|(url, code)| Row::new(url, code)));
    rows.extend(TAKEN.iter().map(|(url, shown)| Row::new(url, &format!("taken as {shown}"))));
    rows.push(Row::new(&long(), "400 url_too_long"));
    rows.push(Row::named(
        "https-only",
        &format!("{PLAIN}, where HTTPS is required"),
        "400 url_https_required",
    ));
    Family {
        title: "URLs of endpoints",
        how: "Given to an API with its default rules, for a new endpoint and for one that there is: both \
              answer the same. Names are not looked up then: see below.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, "standard-webhooks").await?;
    let base = world.strict.endpoint(TENANT, &new_endpoint("https://example.com/")).await?;
    let path = format!("/v1/tenants/{TENANT}/endpoints/{}", base.id);
    let long = long();
    let urls = LITERALS.iter().copied().chain(OTHERS.iter().map(|(url, _)| *url));
    let urls = urls.chain(TAKEN.iter().map(|(url, _)| *url)).chain([long.as_str()]);
    let tried = stream::iter(urls).map(|url| {
        let path = path.clone();
        async move { Ok::<_, anyhow::Error>((String::from(url), one(world, &path, url).await?)) }
    });
    let mut seen: Seen = tried.buffer_unordered(AT_ONCE).try_collect().await?;
    seen.insert(String::from("https-only"), where_https_is_required(world).await?);
    Ok(seen)
}

/// Makes an endpoint of a URL, and changes another to it.
async fn one(world: &World, path: &str, url: &str) -> Result<String> {
    let made =
        world.strict.post(&format!("/v1/tenants/{TENANT}/endpoints"), &new_endpoint(url)).await;
    let changed = world.strict.patch(path, &json!({ "url": url })).await;
    if let (Ok(made), Ok(changed)) = (&made, &changed) {
        ensure!(made["url"] == changed["url"], "{made} but {changed}");
        return Ok(format!("taken as {}", made["url"].as_str().unwrap_or_default()));
    }
    let (made, changed) = (told(made)?, told(changed)?);
    Ok(if made == changed { made } else { format!("{made} when made, {changed} when changed") })
}

/// Asks an API that wants HTTPS everywhere.
async fn where_https_is_required(world: &World) -> Result<String> {
    let mut settings = world.installation.settings(Service::Api);
    for (key, value) in [("listen", "127.0.0.1:0"), ("endpoint_https", "required")] {
        settings.insert(String::from(key), String::from(value));
    }
    let log = world.installation.logs().join("api-https.log");
    let process = Process::start(&binary::fanfare().await?, Service::Api, &settings, &log)?;
    let mut api = world.strict.clone();
    let address = fanfare_testkit::wait_until("an API to listen", async || {
        let lines = logs::read(&log).unwrap_or_default();
        lines.iter().find_map(|line| line.field("address")).map(String::from).ok_or(())
    })
    .await;
    api.set_address(&address);
    fanfare_testkit::wait_until("an API to be ready", async || api.ready().await).await;
    let answer = told(api.endpoint(TENANT, &new_endpoint(PLAIN)).await);
    process.stop().await.context("stop an API")?;
    answer
}
