//! Names, and what a name server says of them when a connection is to be made.

use std::time::Duration;

use anyhow::{Result, bail};
use fanfare_domain::{EndpointId, Outcome, fact::AttemptMade};
use fanfare_testkit::{
    Named,
    receiver::{Behaviour, Reply},
};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    support::EAGER,
    table::{Family, Row, Seen},
    world::{INSIDE, OUTSIDE, World, new_endpoint},
};

const TENANT: &str = "names";
/// Events for the name whose address alternates.
const ALTERNATIONS: usize = 1_000;
/// How many are published in one request.
const BATCH: usize = 250;
/// How long a connection that is busy may outlive the address that it was made to.
const PATIENCE: Duration = Duration::from_mins(1);

const FORBIDDEN: &str = "address_forbidden";
const UNKNOWN: &str = "dns_failed";

/// Names of a word each, and what is said of them.
fn simple() -> Vec<(&'static str, &'static str, Named, &'static str)> {
    let at = |addresses: &[&str]| {
        Named::At(addresses.iter().filter_map(|address| address.parse().ok()).collect())
    };
    let (outside, inside) = (OUTSIDE.to_string(), INSIDE.to_string());
    let many = |count: u32| {
        let first = u32::from(std::net::Ipv4Addr::new(1, 0, 0, 1));
        Named::At((0..count).map(|n| std::net::Ipv4Addr::from_bits(first + n).into()).collect())
    };
    vec![
        ("good", "an address that is allowed", at(&[&outside]), "accepted 200"),
        ("private", "10.0.0.1", at(&["10.0.0.1"]), FORBIDDEN),
        ("inside", "127.0.0.2, where something listens", at(&[&inside]), FORBIDDEN),
        ("unspecified", "0.0.0.0", at(&["0.0.0.0"]), FORBIDDEN),
        ("metadata", "169.254.169.254", at(&["169.254.169.254"]), FORBIDDEN),
        ("shared", "100.100.100.200", at(&["100.100.100.200"]), FORBIDDEN),
        ("platform", "168.63.129.16", at(&["168.63.129.16"]), FORBIDDEN),
        ("broadcast", "255.255.255.255", at(&["255.255.255.255"]), FORBIDDEN),
        ("mixed", "an allowed address, and one inside", at(&[&outside, &inside]), FORBIDDEN),
        ("mixed-again", "one inside, and an allowed address", at(&[&inside, &outside]), FORBIDDEN),
        ("mixed-types", "an allowed A, and the AAAA ::1", at(&[&outside, "::1"]), FORBIDDEN),
        ("mapped", "::ffff:169.254.169.254", at(&["::ffff:169.254.169.254"]), FORBIDDEN),
        ("mapped-inside", "::ffff:127.0.0.2", at(&["::ffff:127.0.0.2"]), FORBIDDEN),
        ("compatible", "::127.0.0.2", at(&["::127.0.0.2"]), FORBIDDEN),
        ("nat64", "64:ff9b::a9fe:a9fe", at(&["64:ff9b::a9fe:a9fe"]), FORBIDDEN),
        ("nat64-local", "64:ff9b:1::a00:1", at(&["64:ff9b:1::a00:1"]), FORBIDDEN),
        ("six-to-four", "2002:7f00:1::", at(&["2002:7f00:1::"]), FORBIDDEN),
        ("teredo", "2001::80ff:fffe", at(&["2001::80ff:fffe"]), FORBIDDEN),
        ("unique-local", "fd00:ec2::254", at(&["fd00:ec2::254"]), FORBIDDEN),
        ("link-local", "fe80::1", at(&["fe80::1"]), FORBIDDEN),
        ("site-local", "fec0::1", at(&["fec0::1"]), FORBIDDEN),
        ("multicast", "ff02::1", at(&["ff02::1"]), FORBIDDEN),
        (
            "alias",
            "another name of another name inside",
            Named::Alias(String::from("between.example")),
            FORBIDDEN,
        ),
        ("169.254.169.254.nip", "what its first labels say", at(&["169.254.169.254"]), FORBIDDEN),
        ("nothing", "no address at all", at(&[]), UNKNOWN),
        ("missing", "that there is no such name", Named::Missing, UNKNOWN),
        ("failure", "that it failed", Named::Failure, UNKNOWN),
        ("refusal", "that it does not want to", Named::Refusal, UNKNOWN),
        ("broken", "half an answer", Named::Broken, "dns_failed or timed_out"),
        (
            "unasked",
            "an answer to another question, with an address inside",
            Named::Unasked(vec![INSIDE]),
            "address_forbidden or dns_failed or timed_out",
        ),
        ("silence", "nothing", Named::Silence, "dns_failed or timed_out"),
        ("sixty-five", "65 addresses", many(65), UNKNOWN),
        ("two-thousand", "2,000 addresses, over TCP", many(2_000), UNKNOWN),
        ("ten-thousand", "10,000 addresses, more than fit in a message", many(10_000), UNKNOWN),
        ("loop", "that it stands for itself", Named::Alias(String::from("loop.example")), UNKNOWN),
    ]
}

const REBOUND: &str = "an allowed address first, one inside for the next connection";
const FAILED_FIRST: &str = "that it failed first, then an address inside";
const MISSING_FIRST: &str = "that there is no such name first, then an address inside";
const ALTERNATING: &str = "an allowed address and one inside in turn, for 1,000 deliveries";
const MOVED: &str = "an allowed address, then one inside while a connection is kept busy";

pub(crate) fn family() -> Family {
    let row = |(name, says, _, expected): (&str, &str, Named, &str)| {
        let row = Row::named(name, says, expected);
        match name {
            "mixed" | "mixed-again" => row.of("Gitea CVE-2026-101029"),
            "169.254.169.254.nip" => row.of("ech0 GHSA-r2x7-427f-rq69"),
            _ => row,
        }
    };
    let mut rows: Vec<_> = simple().into_iter().map(row).collect();
    rows.push(Row::new(REBOUND, "accepted 200, then address_forbidden"));
    // The resolver may ask again by itself, and then sees what is inside at once.
    let either = "dns_failed, then address_forbidden or address_forbidden, then address_forbidden";
    rows.push(Row::new(FAILED_FIRST, either).of("GitLab #63959"));
    rows.push(Row::new(MISSING_FIRST, either).of("GitLab #63959"));
    let alternating = "accepted or address_forbidden, and nobody inside was spoken to";
    let alternating = alternating.replace(" or ", " and ");
    rows.push(Row::new(ALTERNATING, &alternating).of("Gitea CVE-2026-101029"));
    rows.push(Row::new(MOVED, "in the end address_forbidden, and nobody inside was spoken to"));
    Family {
        title: "Names, and what the name server says of them",
        how: "Endpoints at names that nobody can judge when they are made. Each is looked up when a connection is \
              made; one address that is not allowed is enough; what was looked up is what is dialled; and when \
              nothing is known nothing is dialled.",
        rows,
    }
}

pub(crate) async fn play(world: &World) -> Result<Seen> {
    world.api().tenant(TENANT, EAGER).await?;
    let closing = Reply::new(200).header("connection", "close");
    world.receiver.answer_at("/closing", Behaviour::Reply(closing));
    world.names.say("between.example", Named::Alias(String::from("end.example")));
    world.names.say("end.example", Named::At(vec![INSIDE]));
    let mut endpoints = Vec::new();
    for (name, _, named, _) in simple() {
        world.names.say(&format!("{name}.example"), named);
        let id = subscribe(world, &format!("{name}.example"), "/once", "simple").await?;
        endpoints.push((name, id));
    }
    publish(world, "simple", 1).await?;
    let first = endpoints.into_iter().map(|(name, id)| async move {
        let attempts = world.attempts(id, 1).await;
        Ok::<_, anyhow::Error>((String::from(name), attempts.first().map(told).unwrap_or_default()))
    });
    let at = |address| Named::At(vec![address]);
    let later = [
        (REBOUND, "rebound", at(OUTSIDE)),
        (FAILED_FIRST, "failed", Named::Failure),
        (MISSING_FIRST, "was-missing", Named::Missing),
    ];
    let later = later.map(|(row, name, first)| async move {
        let named = Named::InOrder(vec![first, at(INSIDE)]);
        Ok::<_, anyhow::Error>((String::from(row), twice(world, name, named).await?))
    });
    let (first, later, alternating, moved) = tokio::try_join!(
        try_join_all(first),
        try_join_all(later),
        alternate(world),
        move_away(world),
    )?;
    let mut seen: Seen = first.into_iter().chain(later).collect();
    let inside = world.sink.connections();
    let nobody = if inside == 0 { String::from("nobody") } else { inside.to_string() };
    for (row, told) in [(ALTERNATING, alternating), (MOVED, moved)] {
        seen.insert(String::from(row), format!("{told}, and {nobody} inside was spoken to"));
    }
    Ok(seen)
}

async fn subscribe(world: &World, name: &str, path: &str, event_type: &str) -> Result<EndpointId> {
    let mut new = new_endpoint(&format!("http://{name}:{}{path}", world.receiver.address().port()));
    new["event_types"] = json!([event_type]);
    Ok(world.api().endpoint(TENANT, &new).await?.id.parse()?)
}

async fn publish(world: &World, event_type: &str, count: usize) -> Result<()> {
    let event = json!({ "type": event_type, "data": {} });
    let events: Vec<Value> = vec![event; count];
    for some in events.chunks(BATCH) {
        let batch = json!({ "events": some });
        let path = format!("/v1/tenants/{TENANT}/events/batch");
        let answer = world.api().post(&path, &batch).await?;
        if answer["accepted"].as_u64() != Some(u64::try_from(some.len())?) {
            bail!("not all were accepted: {answer}");
        }
    }
    Ok(())
}

/// Has two events sent to a name, one after the other, each on a connection of its own.
async fn twice(world: &World, name: &str, named: Named) -> Result<String> {
    let host = format!("{name}.example");
    world.names.say(&host, named);
    let id = subscribe(world, &host, "/closing", name).await?;
    for count in 1..=2 {
        publish(world, name, 1).await?;
        world.attempts(id, count).await;
    }
    let attempts: Vec<_> = world.attempts(id, 2).await.iter().map(told).collect();
    Ok(attempts.join(", then "))
}

async fn alternate(world: &World) -> Result<String> {
    let at = |address| Named::At(vec![address]);
    world.names.say("alternating.example", Named::InTurn(vec![at(OUTSIDE), at(INSIDE)]));
    let id = subscribe(world, "alternating.example", "/closing", "alternating").await?;
    publish(world, "alternating", ALTERNATIONS).await?;
    let mut kinds: Vec<_> = world.attempts(id, ALTERNATIONS).await.iter().map(told).collect();
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds.join(" and ").replace("accepted 200", "accepted"))
}

/// Keeps a connection busy while its name moves.
async fn move_away(world: &World) -> Result<String> {
    world.names.say("moved.example", Named::At(vec![OUTSIDE]));
    let id = subscribe(world, "moved.example", "/moved", "moved").await?;
    publish(world, "moved", 1).await?;
    world.attempts(id, 1).await;
    world.names.say("moved.example", Named::At(vec![INSIDE]));
    let begun = Instant::now();
    for count in 2.. {
        publish(world, "moved", 1).await?;
        let attempts = world.attempts(id, count).await;
        match attempts.last().map(told).as_deref() {
            Some(FORBIDDEN) => return Ok(String::from("in the end address_forbidden")),
            Some("accepted 200") if begun.elapsed() < PATIENCE => {}
            other => return Ok(format!("{other:?} after {:?}", begun.elapsed())),
        }
    }
    bail!("there is no end of numbers")
}

/// Says what came of an attempt, in two words.
pub(crate) fn told(made: &AttemptMade) -> String {
    match &made.outcome {
        Outcome::Accepted { status } => format!("accepted {status}"),
        Outcome::Refused { status, .. } => format!("refused {status}"),
        Outcome::Failed(fault) => String::from(fault.as_str()),
    }
}
