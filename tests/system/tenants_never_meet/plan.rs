//! What a tenant asks for next, by the dice: for something of its own, or for something of the other's.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fanfare_service::{Clock as _, SystemClock};
use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use super::{side::Side, wire::Ask};

/// The description of the API, which every operation is in.
const OPERATIONS: &str = include_str!("../../../deploy/openapi.json");
/// How many endpoints a tenant makes, and how many keys: each event goes to all of its endpoints.
const ENDPOINTS_MAX: usize = 6;
const KEYS_MAX: usize = 40;
/// Keys of requests that both tenants use.
const SHARED_KEYS: usize = 6;
/// How far replays go back: each delivers again what was since.
const REPLAYED: Duration = Duration::from_secs(2);

/// A request, and what must come of it.
pub(super) struct Plan {
    pub(super) ask: Ask,
    /// The same about what there is not, with what was put in the place of what: the answer must be
    /// the same.
    pub(super) twin: Option<(Ask, Vec<(String, String)>)>,
}

/// Every operation on a tenant.
pub(super) struct Operations(Vec<(Method, String)>);

impl Operations {
    pub(super) fn read() -> Result<Self> {
        let description: Value = serde_json::from_str(OPERATIONS).context("the description")?;
        let mut all = Vec::new();
        for (path, methods) in description["paths"].as_object().context("it has paths")? {
            for (method, operation) in methods.as_object().context("a path has methods")? {
                // What everybody may see, key or not, is the same for all.
                let is_public =
                    operation["security"].as_array().is_some_and(|all| all.contains(&json!({})));
                if let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes())
                    && path.contains("{tenant}")
                    && !is_public
                {
                    all.push((method, path.clone()));
                }
            }
        }
        ensure!(all.len() > 40, "{} operations are not all", all.len());
        Ok(Self(all))
    }

    fn any(&self, dice: &mut StdRng) -> (Method, String) {
        let number = dice.random_range(0..self.0.len());
        self.0.get(number).cloned().unwrap_or_default()
    }
}

/// What `me` asks for next, while there is somebody else.
pub(super) fn next(
    dice: &mut StdRng,
    operations: &Operations,
    (me, other): (&Side, &Side),
    urls: &dyn Fn(&str) -> String,
) -> Plan {
    let any = operations.any(dice);
    match dice.random_range(0..100) {
        0..20 => publish(dice, me),
        20..55 => own(dice, any, (me, other), urls),
        55..75 => foreign_path(dice, any, (me, other), urls),
        75..90 => foreign_value(dice, (me, other)),
        90..95 => foreign_cursor(dice, (me, other)),
        _ => foreign_version(dice, (me, other)),
    }
}

/// An event, under a key that the other uses too.
pub(super) fn publish(dice: &mut StdRng, me: &Side) -> Plan {
    let number = dice.random_range(0..1_000_000);
    let event = json!({
        "type": event_type(dice, me),
        "data": { "number": number, "note": me.marker },
        "attributes": { "note": me.marker },
    });
    let is_batch = dice.random_bool(0.2);
    let (end, body) =
        if is_batch { ("events/batch", json!({ "events": [event] })) } else { ("events", event) };
    let mut ask = Ask::new(Method::POST, at(me, end), me.any_key(dice));
    // The third may not publish; one that was published before under a key is another event.
    if ask.key.starts_with("fp_") {
        ask.key = String::from(me.admin());
    }
    ask.headers = shared_key(dice);
    ask.body = Some(body.to_string());
    Plan { ask, twin: None }
}

/// Any operation on its own things; the names of things hold what is its own.
fn own(
    dice: &mut StdRng,
    (method, path): (Method, String),
    (me, other): (&Side, &Side),
    urls: &dyn Fn(&str) -> String,
) -> Plan {
    let full = (path.ends_with("/endpoints") && me.count("endpoint") >= ENDPOINTS_MAX)
        || (path.ends_with("/keys") && me.count("key") >= KEYS_MAX);
    let method = if full { Method::GET } else { method };
    let mut ask = Ask::new(method, filled(&path, me, me, dice).0, me.any_key(dice));
    if ask.method == Method::POST {
        ask.headers = shared_key(dice);
    }
    if ask.method == Method::POST || ask.method == Method::PATCH {
        ask.body = Some(body(&path, dice, me, urls).to_string());
    }
    if ask.method == Method::GET && dice.random_bool(0.3) {
        // What the other is searched for by is among nothing of its own.
        let typed = if dice.random_bool(0.5) { &other.marker } else { &me.marker };
        ask.path = format!("{}?search={typed}", ask.path);
    }
    Plan { ask, twin: None }
}

/// Any operation on something of the other's: within the other tenant, or within its own.
fn foreign_path(
    dice: &mut StdRng,
    (method, path): (Method, String),
    (me, other): (&Side, &Side),
    urls: &dyn Fn(&str) -> String,
) -> Plan {
    let names_one = path.matches('{').count() > 1;
    let within_other = !names_one || dice.random_bool(0.4);
    let place = if within_other { other } else { me };
    let (filled, mut pairs) = filled(&path, place, other, dice);
    if within_other {
        pairs.push((other.tenant.clone(), format!("t-mk{}", digits(dice, 16))));
    }
    let mut ask = Ask::new(method, filled, me.any_key(dice));
    if ask.method == Method::POST || ask.method == Method::PATCH {
        ask.body = Some(body(&path, dice, me, urls).to_string());
    }
    let twin = ask.with(&pairs);
    Plan { ask, twin: Some((twin, pairs)) }
}

/// An operation on its own things that names something of the other's.
fn foreign_value(dice: &mut StdRng, (me, other): (&Side, &Side)) -> Plan {
    let choices = [
        ("deliveries?endpoint=", "endpoint"),
        ("deliveries?event=", "event"),
        ("deliveries?search=", "delivery"),
        ("deliveries?type=", "event_type"),
        ("dead-letters?endpoint=", "endpoint"),
        ("dead-letters?search=", "event"),
        ("events?search=", "event"),
        ("events?type=", "event_type"),
        ("audit?id=", "endpoint"),
        ("audit?kind=key&id=", "key"),
        ("audit?who=", "key"),
        ("live?endpoint=", "endpoint"),
        ("dead-letters/redrive", "delivery"),
        ("dead-letters/redrive", "endpoint"),
    ];
    let number = dice.random_range(0..choices.len());
    let (end, kind) = choices.get(number).copied().unwrap_or_default();
    let (id, made_up) = foreign(kind, other, dice);
    let pairs = vec![(id.clone(), made_up)];
    let mut ask = Ask::new(Method::GET, at(me, &format!("{end}{id}")), me.any_key(dice));
    if end.ends_with("redrive") {
        ask = Ask::new(Method::POST, at(me, end), me.admin());
        let wanted = match kind {
            "delivery" => json!({ "deliveries": [id] }),
            _ => json!({ "endpoint_id": id }),
        };
        ask.body = Some(wanted.to_string());
    }
    let twin = ask.with(&pairs);
    Plan { ask, twin: Some((twin, pairs)) }
}

/// The next page of its own list, behind where the other was.
fn foreign_cursor(dice: &mut StdRng, (me, other): (&Side, &Side)) -> Plan {
    let lists = ["endpoints", "events", "deliveries", "dead-letters", "audit", "keys", "replays"];
    let list = lists.get(dice.random_range(0..lists.len())).copied().unwrap_or_default();
    let cursor = other.cursors.get(dice.random_range(0..other.cursors.len().max(1)));
    let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
    let ask = Ask::new(Method::GET, at(me, &format!("{list}?limit=2{cursor}")), me.admin());
    Plan { ask, twin: None }
}

/// A change of its own endpoint, from a version of the other's.
fn foreign_version(dice: &mut StdRng, (me, other): (&Side, &Side)) -> Plan {
    let id = me.one("endpoint", dice).unwrap_or_default();
    let path = at(me, &format!("endpoints/{id}"));
    let mut ask = Ask::new(Method::PATCH, path, me.admin());
    if let Some(tag) = other.etags.get(dice.random_range(0..other.etags.len().max(1))) {
        ask.headers.push(("if-match", tag.clone()));
    }
    ask.body = Some(json!({ "description": me.marker }).to_string());
    Plan { ask, twin: None }
}

fn at(side: &Side, end: &str) -> String {
    format!("/v1/tenants/{}/{end}", side.tenant)
}

/// Fills a path in with a tenant and ids of somebody's; returns what would be an id that there is not in
/// the place of each of these.
fn filled(
    path: &str,
    tenant: &Side,
    of: &Side,
    dice: &mut StdRng,
) -> (String, Vec<(String, String)>) {
    let mut filled = path.replace("{tenant}", &tenant.tenant).replace("{attempt}", "1");
    let mut pairs = Vec::new();
    for kind in ["endpoint", "event", "delivery", "key", "replay", "event_type"] {
        let name = format!("{{{kind}}}");
        if filled.contains(&name) {
            let (id, made_up) = foreign(kind, of, dice);
            filled = filled.replace(&name, &id);
            pairs.push((id, made_up));
        }
    }
    (filled, pairs)
}

/// An id of somebody's, and one of the same time that there is not.
fn foreign(kind: &str, of: &Side, dice: &mut StdRng) -> (String, String) {
    let Some(id) = of.one(kind, dice) else {
        let none = format!("none.{}", digits(dice, 20));
        return (none.clone(), none);
    };
    // The end of an id is of chance; its last symbol is not a whole one.
    let cut = id.len().saturating_sub(9);
    let (begin, last) = (id.get(..cut).unwrap_or_default(), id.get(cut + 8..).unwrap_or_default());
    let made_up = format!("{begin}{}{last}", digits(dice, 8));
    (id, made_up)
}

fn digits(dice: &mut StdRng, count: usize) -> String {
    (0..count).map(|_| char::from(b'0' + dice.random_range(0..10_u8))).collect()
}

fn shared_key(dice: &mut StdRng) -> Vec<(&'static str, String)> {
    if dice.random_bool(0.5) {
        return Vec::new();
    }
    vec![("idempotency-key", format!("shared-{}", dice.random_range(0..SHARED_KEYS)))]
}

fn event_type(dice: &mut StdRng, me: &Side) -> String {
    match dice.random_range(0..3) {
        0 => String::from("order.paid"),
        1 => format!("own.{}.a", me.marker),
        _ => format!("own.{}.b", me.marker),
    }
}

/// A new endpoint; a third of them fail always.
pub(super) fn endpoint(me: &Side, number: u32, urls: &dyn Fn(&str) -> String) -> Value {
    json!({
        "url": urls(&format!("/{}/{number}", me.marker)),
        "event_types": [">"],
        "name": me.marker,
        "description": format!("of {}", me.marker),
        "metadata": { "note": me.marker },
        "headers": { "x-note": format!("header-{}", me.marker) },
        "retry": { "delays": { "list": ["100ms"] }, "retry_on": "anything", "retry_after": [429] },
        "timeout_ms": 5_000,
    })
}

/// A body that an operation takes, with something of its own in it.
fn body(path: &str, dice: &mut StdRng, me: &Side, urls: &dyn Fn(&str) -> String) -> Value {
    let (number, marker) = (dice.random_range(0..100_u32), &me.marker);
    let event = json!({ "type": "order.paid", "data": { "note": marker, "number": number } });
    let since = SystemClock.now().saturating_sub(REPLAYED).to_string();
    match path.rsplit('/').next().unwrap_or_default() {
        "endpoints" => endpoint(me, number, urls),
        "{endpoint}" => json!({ "name": format!("{marker} {number}") }),
        "events" => event,
        "batch" => json!({ "events": [event] }),
        "event-types" => {
            json!({ "type": format!("own.{marker}.n{number}"), "description": marker })
        }
        "{event_type}" => json!({ "description": format!("{marker} {number}") }),
        "keys" => json!({ "role": "read", "name": marker }),
        "portal-links" => json!({ "role": "read", "user": marker }),
        "replays" | "replay" if !path.contains("{delivery}") => json!({ "since": since }),
        "test" if path.contains("filter") && path.contains("{endpoint}") => event,
        "test" if path.contains("filter") => json!({ "event": event }),
        "test" => json!({ "event_type": "order.paid" }),
        "redrive" => json!({ "endpoint_id": me.one("endpoint", dice) }),
        "expunge" => json!({ "confirm": me.tenant }),
        _ => json!({}),
    }
}
