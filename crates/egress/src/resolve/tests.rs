//! Look-ups that are slow, shared, or answer too much.

use std::sync::{
    Barrier,
    atomic::{AtomicUsize, Ordering},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_name_is_looked_up_once_for_all_who_ask_at_the_same_time() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static GATE: Barrier = Barrier::new(2);
    fn slow(_: &str) -> Found {
        CALLS.fetch_add(1, Ordering::Relaxed);
        GATE.wait();
        gather(["1.1.1.1".parse().unwrap()].into_iter())
    }
    let resolver = Resolver::with(PATIENCE, slow);
    let open = async { spawn_blocking(|| GATE.wait()).await.unwrap() };
    let (first, second, _) =
        tokio::join!(resolver.resolve("a.example"), resolver.resolve("a.example"), open);
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);

    let open = async { spawn_blocking(|| GATE.wait()).await.unwrap() };
    let (third, _) = tokio::join!(resolver.resolve("a.example"), open);
    assert!(third.is_ok());
    assert_eq!(CALLS.load(Ordering::Relaxed), 2, "an answer is not kept");
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_costs_time_but_one_thread() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    static GATE: Barrier = Barrier::new(2);
    fn stuck(_: &str) -> Found {
        CALLS.fetch_add(1, Ordering::Relaxed);
        GATE.wait();
        Err(LookupError::Failed)
    }
    let resolver = Resolver::with(Duration::from_millis(20), stuck);
    for _ in 0..3 {
        assert_eq!(resolver.resolve("a.example").await, Err(LookupError::TimedOut));
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    GATE.wait();
}

#[tokio::test]
async fn a_look_up_that_dies_does_not_block_its_name() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn dies_once(_: &str) -> Found {
        assert!(CALLS.fetch_add(1, Ordering::Relaxed) > 0, "dies");
        gather(["1.1.1.1".parse().unwrap()].into_iter())
    }
    let resolver = Resolver::with(PATIENCE, dies_once);
    assert_eq!(resolver.resolve("a.example").await, Err(LookupError::Failed));
    assert!(resolver.resolve("a.example").await.is_ok());
}

#[tokio::test]
async fn the_system_knows_this_machine_and_not_what_cannot_be_a_name() {
    let resolver = Resolver::new(PATIENCE);
    let found = resolver.resolve("localhost").await.unwrap();
    assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    let impossible = "a".repeat(64);
    assert_eq!(resolver.resolve(&impossible).await, Err(LookupError::Failed));
}

#[test]
fn answers_are_gathered_without_repeats_and_up_to_a_limit() {
    let many = |count: u32| (0..count).map(|n| IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
    assert_eq!(gather(many(64)).unwrap().len(), 64);
    assert_eq!(gather(many(65)), Err(LookupError::TooMany));
    assert_eq!(gather(many(64).chain(many(64))).unwrap().len(), 64);
    assert_eq!(gather(many(0)), Err(LookupError::Failed));
}
