//! Kills processes at moments that a seed chooses, and brings them back.

use std::{fmt, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::Timestamp;
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::time::sleep;

use super::{Installation, Service};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    /// One service.
    Service(Service),
    /// nats-server.
    Nats,
}

impl Victim {
    /// Whether its death can come between an endpoint's answer and the record of it. That of
    /// nats-server cannot: the dispatcher keeps the record until the server is back.
    pub(crate) const fn explains_duplicates(self) -> bool {
        matches!(self, Self::Service(Service::Dispatcher))
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => service.fmt(f),
            Self::Nats => f.write_str("nats-server"),
        }
    }
}

/// A kill as it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// What was killed.
    pub(crate) victim: Victim,
    /// When the signal was sent.
    pub(crate) at: Timestamp,
    /// When it was started again.
    pub(crate) back: Timestamp,
}

/// A kill to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blow {
    /// What is killed: one, or two at once.
    pub(crate) victims: Vec<Victim>,
    /// After how many of a thousand of a round's requests.
    pub(crate) moment: u32,
    /// How long it stays down.
    pub(crate) down: Duration,
}

/// The seed of a run: that of `FANFARE_TEST_SEED`, or a fresh one.
pub(crate) fn seed() -> Result<u64> {
    let variables = fanfare_service::process_env().context("read the environment")?;
    match variables.get("FANFARE_TEST_SEED") {
        Some(text) => text.parse().context("FANFARE_TEST_SEED is a number"),
        None => Ok(u64::from(u32::from_be_bytes(random_bytes()))),
    }
}

/// Whether the long versions of tests are asked for.
pub(crate) fn is_long() -> Result<bool> {
    let variables = fanfare_service::process_env().context("read the environment")?;
    Ok(variables.contains_key("FANFARE_TEST_LONG"))
}

/// Plans a run: every victim `each` times and more, in an order of chance, a third of them down for
/// longer than the duplicate window, a fifth together with another.
pub(crate) fn plan(seed: u64, each: usize, window: Duration) -> Vec<Blow> {
    let mut dice = StdRng::seed_from_u64(seed);
    let services = Service::ALL.into_iter().map(Victim::Service);
    let all: Vec<Victim> = services.chain([Victim::Nats]).collect();
    let mut victims: Vec<Victim> = all.iter().flat_map(|victim| vec![*victim; each]).collect();
    victims.shuffle(&mut dice);
    let blow = |(at, victim)| {
        let short = Duration::from_millis(dice.random_range(0..300));
        let down = if at % 3 == 0 { window + short } else { short };
        let other = all.get(dice.random_range(0..all.len())).filter(|_| at % 5 == 0);
        let victims = [victim].into_iter().chain(other.copied().filter(|one| *one != victim));
        Blow { victims: victims.collect(), moment: dice.random_range(0..900), down }
    };
    victims.into_iter().enumerate().map(blow).collect()
}

/// Kills, waits, and starts again.
pub(crate) async fn strike(installation: &mut Installation, blow: &Blow) -> Result<Vec<Kill>> {
    let at = SystemClock.now();
    for victim in &blow.victims {
        match victim {
            Victim::Service(service) => installation.kill(*service).await?,
            Victim::Nats => installation.nats().kill().await.context("kill nats-server")?,
        }
    }
    // The time that something stays down is the fault itself.
    sleep(blow.down).await;
    // The server comes back first: the API is waited for, and it waits for the server.
    if blow.victims.contains(&Victim::Nats) {
        installation.nats().restart().await.context("restart nats-server")?;
    }
    for victim in &blow.victims {
        if let Victim::Service(service) = victim {
            installation.start_service(*service).await?;
        }
    }
    let back = SystemClock.now();
    Ok(blow.victims.iter().map(|victim| Kill { victim: *victim, at, back }).collect())
}
