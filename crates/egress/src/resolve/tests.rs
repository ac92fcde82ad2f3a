//! Look-ups that are slow, wrong, or answer too much.

use fanfare_testkit::{NameServer, Named};

use super::*;

const PATIENCE: Duration = Duration::from_mins(1);
/// A time that is meant to pass.
const SHORT: Duration = Duration::from_millis(300);

fn at(address: &str) -> Named {
    Named::At(vec![address.parse().unwrap()])
}

async fn asking(within: Duration) -> (NameServer, Resolver) {
    let server = NameServer::start().await.unwrap();
    let resolver = Resolver::new(&[server.address()], within).unwrap();
    (server, resolver)
}

#[tokio::test]
async fn a_name_has_the_addresses_of_both_kinds_that_its_server_says() {
    let (server, resolver) = asking(PATIENCE).await;
    let both = vec!["1.1.1.1".parse().unwrap(), "2606:4700::1111".parse().unwrap()];
    server.say("both.example", Named::At(both.clone()));
    server.say("mapped.example", at("::ffff:10.0.0.1"));
    server.say("alias.example", Named::Alias(String::from("both.example")));
    for name in ["both.example", "BOTH.example.", "alias.example", "below.both.example"] {
        assert_eq!(resolver.resolve(name).await.unwrap().as_ref(), both, "{name}");
    }
    let mapped = resolver.resolve("mapped.example").await.unwrap();
    assert_eq!(mapped.first().map(IpAddr::to_canonical), "10.0.0.1".parse().ok());
}

/// What a container in Kubernetes has: every name is tried in its neighbours' domains first.
#[tokio::test]
async fn a_name_is_not_looked_for_among_the_machines_neighbours() {
    let server = NameServer::start().await.unwrap();
    let search = vec![Name::from_ascii("cluster.example.").unwrap()];
    let config = ResolverConfig::from_parts(None, search, vec![name_server(server.address())]);
    let mut options = ResolverOpts::default();
    options.ndots = 5;
    let resolver = Resolver::by(config, options, true, PATIENCE).unwrap();
    for name in
        ["hooks.acme.test.cluster.example", "gone.test.cluster.example", "db.cluster.example"]
    {
        server.say(name, at("9.9.9.9"));
    }
    server.say("hooks.acme.test", at("1.1.1.1"));
    let first = async |name: &str| resolver.resolve(name).await.map(|found| found.first().copied());
    assert_eq!(first("hooks.acme.test").await, Ok("1.1.1.1".parse().ok()));
    assert_eq!(first("gone.test").await, Err(LookupError::Failed));
    assert_eq!(first("db").await, Ok("9.9.9.9".parse().ok()));
    assert_eq!(first("db.").await, Err(LookupError::Failed));
}

#[tokio::test]
async fn an_answer_that_may_not_be_kept_is_asked_for_anew() {
    let (server, resolver) = asking(PATIENCE).await;
    server.say("a.example", Named::InTurn(vec![at("1.1.1.1"), at("10.0.0.1")]));
    let mut found = Vec::new();
    for _ in 0..4 {
        found.extend(resolver.resolve("a.example").await.unwrap().first().map(IpAddr::to_string));
    }
    assert_eq!(found, ["1.1.1.1", "10.0.0.1", "1.1.1.1", "10.0.0.1"]);
}

#[tokio::test]
async fn a_name_without_an_address_has_none() {
    let (server, resolver) = asking(PATIENCE).await;
    let nothing = [
        ("empty", Named::At(Vec::new())),
        ("failure", Named::Failure),
        ("refusal", Named::Refusal),
        ("loop", Named::Alias(String::from("loop.example"))),
    ];
    for (name, named) in nothing {
        let name = format!("{name}.example");
        server.say(&name, named);
        assert_eq!(resolver.resolve(&name).await, Err(LookupError::Failed), "{name}");
    }
    assert_eq!(resolver.resolve("missing.example").await, Err(LookupError::Failed));
    assert_eq!(resolver.resolve(&"a".repeat(64)).await, Err(LookupError::Failed));
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_costs_time_and_holds_up_nobody() {
    let (server, resolver) = asking(SHORT).await;
    server.say("silent.example", Named::Silence);
    let silent = (0..500).map(|number| {
        let resolver = resolver.clone();
        async move { resolver.resolve(&format!("{number}.silent.example")).await }
    });
    let patient = Resolver { timeout: PATIENCE, ..resolver.clone() };
    server.say("good.example", at("1.1.1.1"));
    let (silent, good) =
        tokio::join!(futures_util::future::join_all(silent), patient.resolve("good.example"));
    assert!(silent.iter().all(|found| *found == Err(LookupError::TimedOut)));
    assert!(good.is_ok());
}

#[tokio::test]
async fn many_addresses_come_over_tcp_and_are_too_many() {
    let (server, resolver) = asking(PATIENCE).await;
    let many =
        |count: u32| Named::At((1..=count).map(|n| Ipv4Addr::from_bits(n << 8).into()).collect());
    server.say("most.example", many(64));
    server.say("more.example", many(65));
    server.say("most-of-all.example", many(1_500));
    assert_eq!(resolver.resolve("most.example").await.unwrap().len(), 64);
    assert_eq!(resolver.resolve("more.example").await, Err(LookupError::TooMany));
    assert_eq!(resolver.resolve("most-of-all.example").await, Err(LookupError::TooMany));
}

#[tokio::test]
async fn the_system_knows_this_machine_and_not_what_cannot_be_a_name() {
    let resolver = Resolver::new(&[], PATIENCE).unwrap();
    let found = resolver.resolve("localhost").await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    let impossible = "a".repeat(64);
    assert_eq!(resolver.resolve(&impossible).await, Err(LookupError::Failed));
}

#[test]
fn answers_are_gathered_without_repeats_and_up_to_a_limit() {
    let many = |count: u32| (0..count).map(|n| IpAddr::from(Ipv4Addr::from_bits(n)));
    assert_eq!(gather(many(64)).unwrap().len(), 64);
    assert_eq!(gather(many(65)), Err(LookupError::TooMany));
    assert_eq!(gather(many(64).chain(many(64))).unwrap().len(), 64);
    assert_eq!(gather(many(0)), Err(LookupError::Failed));
}
