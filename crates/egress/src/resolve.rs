//! Looks names up, with a limit on the time, on the number of answers and on how many at once.
//!
//! The system's resolver blocks a thread, and goes on after the one who asked has given up. So each
//! name has at most one look-up under way, which all who ask share: a name server that does not
//! answer costs one thread, not one for each attempt.

use std::{
    collections::BTreeMap,
    net::{IpAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::spawn_blocking,
    time::timeout,
};

/// How many look-ups may be under way at once, each on a thread.
pub(crate) const LOOKUPS_MAX: usize = 256;
/// The most addresses that a name may have.
const ADDRESSES_MAX: usize = 64;

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The resolver says that there is none, or failed.
    #[error("the host's name could not be resolved")]
    Failed,
    /// The resolver did not answer in time.
    #[error("the host's name was not resolved in time")]
    TimedOut,
    /// The name has more addresses than an honest one needs.
    #[error("the host's name has more than {ADDRESSES_MAX} addresses")]
    TooMany,
}

pub(crate) type Found = Result<Arc<[IpAddr]>, LookupError>;
type Landing = watch::Receiver<Option<Found>>;

/// Looks names up by the system's resolver.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    lookups: Arc<Lookups>,
    timeout: Duration,
}

#[derive(Debug)]
struct Lookups {
    under_way: Mutex<BTreeMap<String, Landing>>,
    permits: Arc<Semaphore>,
    system: fn(&str) -> Found,
}

impl Resolver {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self::with(timeout, ask_system)
    }

    pub(crate) fn with(timeout: Duration, system: fn(&str) -> Found) -> Self {
        let permits = Arc::new(Semaphore::new(LOOKUPS_MAX));
        let lookups = Lookups { under_way: Mutex::default(), permits, system };
        Self { lookups: Arc::new(lookups), timeout }
    }

    /// Returns how many names are being looked up.
    pub(crate) fn under_way(&self) -> usize {
        LOOKUPS_MAX.saturating_sub(self.lookups.permits.available_permits())
    }

    /// Returns the addresses of a name: at least one.
    pub(crate) async fn resolve(&self, name: &str) -> Found {
        timeout(self.timeout, self.lookups.find(name)).await.unwrap_or(Err(LookupError::TimedOut))
    }
}

impl Lookups {
    async fn find(self: &Arc<Self>, name: &str) -> Found {
        let under_way = self.under_way().get(name).cloned();
        let mut landing = if let Some(landing) = under_way.filter(is_alive) {
            landing
        } else {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            self.start(name, permit.map_err(|_| LookupError::Failed)?)
        };
        let found = landing.wait_for(Option::is_some).await.map_err(|_| LookupError::Failed)?;
        found.clone().unwrap_or(Err(LookupError::Failed))
    }

    /// Starts to look the name up, unless somebody else has in the meantime.
    fn start(self: &Arc<Self>, name: &str, permit: OwnedSemaphorePermit) -> Landing {
        let mut under_way = self.under_way();
        if let Some(landing) = under_way.get(name).filter(|landing| is_alive(landing)) {
            return landing.clone();
        }
        let (tell, landing) = watch::channel(None);
        under_way.insert(String::from(name), landing.clone());
        drop(under_way);

        let (lookups, name) = (Arc::clone(self), String::from(name));
        // Nobody waits for the thread itself: it cannot be stopped, and it tells by `tell`.
        drop(spawn_blocking(move || {
            let found = (lookups.system)(&name);
            lookups.under_way().remove(&name);
            tell.send_replace(Some(found));
            drop(permit);
        }));
        landing
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeMap<String, Landing>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether the look-up's thread still runs.
fn is_alive(landing: &Landing) -> bool {
    landing.has_changed().is_ok()
}

fn ask_system(name: &str) -> Found {
    let answers = (name, 0).to_socket_addrs().map_err(|_| LookupError::Failed)?;
    gather(answers.map(|answer| answer.ip()))
}

fn gather(answers: impl Iterator<Item = IpAddr>) -> Found {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in answers {
        if addresses.contains(&address) {
            continue;
        }
        if addresses.len() == ADDRESSES_MAX {
            return Err(LookupError::TooMany);
        }
        addresses.push(address);
    }
    if addresses.is_empty() { Err(LookupError::Failed) } else { Ok(addresses.into()) }
}

#[cfg(test)]
mod tests;
