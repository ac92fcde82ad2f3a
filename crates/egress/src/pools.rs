//! Keeps connections for some time, and not for ever.
//!
//! A connection that is used again and again would outlive any change of where its name leads. So
//! connections are kept in pools, and each pool is replaced when it is old: what is in flight ends
//! as it would, and the next request looks the name up again. A host and port is always of the same
//! pool, and the pools are replaced one after the other.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

/// How many pools there are.
const POOLS: u32 = 16;

type Make = dyn Fn() -> Result<reqwest::Client, reqwest::Error> + Send + Sync;

/// See the module.
pub(crate) struct Pools {
    all: Vec<Mutex<Pool>>,
    age_max: Duration,
    make: Box<Make>,
}

struct Pool {
    http: reqwest::Client,
    /// When it is replaced.
    until: Instant,
}

impl Pools {
    /// Makes the pools; `make` makes one that is empty.
    pub(crate) fn new(
        age_max: Duration,
        make: impl Fn() -> Result<reqwest::Client, reqwest::Error> + Send + Sync + 'static,
    ) -> Result<Self, reqwest::Error> {
        let now = Instant::now();
        let pool = |position: u32| {
            // The first ends early, so that they do not all end together ever after.
            let until = now + age_max / POOLS * (position + 1);
            Ok::<_, reqwest::Error>(Mutex::new(Pool { http: make()?, until }))
        };
        let all = (0..POOLS).map(pool).collect::<Result<_, _>>()?;
        Ok(Self { all, age_max, make: Box::new(make) })
    }

    /// Returns the client that has the connections to the URL's host and port.
    pub(crate) fn of(&self, url: &Url) -> Result<reqwest::Client, reqwest::Error> {
        let mut hasher = DefaultHasher::new();
        (url.host_str(), url.port_or_known_default()).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % u64::from(POOLS)).unwrap_or_default();
        let pool = self.all.get(place).expect("a remainder is less than the number of pools");
        let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now >= pool.until {
            *pool = Pool { http: (self.make)()?, until: now + self.age_max };
        }
        Ok(pool.http.clone())
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").field("age_max", &self.age_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pool_is_replaced_when_it_is_old_and_not_before() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let roots = Arc::new(rustls::RootCertStore::empty());
        let tls = crate::tls::configure(&roots, crate::Protocol::Negotiated).unwrap();
        let maker = move || {
            count.fetch_add(1, Ordering::Relaxed);
            reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls.clone()).build()
        };
        let pools = Pools::new(Duration::from_mins(1), maker).unwrap();
        let url: Url = "http://example.com/a".parse().unwrap();
        let made = || made.load(Ordering::Relaxed);
        tokio::time::advance(Duration::from_mins(1)).await;
        drop(pools.of(&url).unwrap());
        assert_eq!(made(), 17);
        tokio::time::advance(Duration::from_secs(59)).await;
        drop(pools.of(&"http://example.com:80/b".parse().unwrap()).unwrap());
        assert_eq!(made(), 17);
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(pools.of(&url).unwrap());
        assert_eq!(made(), 18);
    }
}
