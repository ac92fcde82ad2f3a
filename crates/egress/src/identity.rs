//! What an endpoint has of TLS that others do not: authorities of its own, and a certificate that we
//! show to it.
//!
//! Its connections are its own: what was let in by one endpoint's certificate is never used for
//! another one, nor are its TLS sessions.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::{EndpointId, TenantId};
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::time::Instant;

use crate::tls::TlsError;

/// For how many endpoints connections of their own are kept. Of the tenant that has the most, those
/// that were used longest ago are closed first: nobody pushes out others who have fewer.
const OWN_MAX: usize = 256;

/// What an endpoint has of TLS that others do not. It is known by its endpoint and the revision that
/// it was made from.
pub struct Identity {
    whose: Whose,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) certified: Option<Arc<CertifiedKey>>,
}

/// Whose an identity is.
#[derive(Clone, Debug)]
pub struct Whose {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's endpoint.
    pub endpoint: EndpointId,
    /// The revision of the endpoint that it is made from.
    pub revision: u64,
}

impl Identity {
    /// Makes the identity of an endpoint as of a revision. Certificates are in DER, that of the
    /// client first in its chain, and its key is in PEM.
    ///
    /// # Errors
    ///
    /// If the key is none, or not that of the certificate.
    pub fn new(
        whose: Whose,
        authorities: impl IntoIterator<Item = Vec<u8>>,
        client: Option<(Vec<Vec<u8>>, &str)>,
    ) -> Result<Self, TlsError> {
        let certified = client.map(|(chain, key)| certify(chain, key)).transpose()?;
        let authorities = authorities.into_iter().map(CertificateDer::from).collect();
        Ok(Self { whose, authorities, certified })
    }
}

fn certify(chain: Vec<Vec<u8>>, key: &str) -> Result<Arc<CertifiedKey>, TlsError> {
    // What is wrong with it may quote it.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsError::KeyNotPem)?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    certified.map(Arc::new).map_err(TlsError::Client)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("whose", &self.whose).finish_non_exhaustive()
    }
}

/// The connections of endpoints that have their own.
#[derive(Debug)]
pub(crate) struct OwnPools<C = reqwest::Client> {
    age_max: Duration,
    kept: Mutex<Kept<C>>,
}

#[derive(Debug)]
struct Kept<C> {
    by_endpoint: BTreeMap<EndpointId, Own<C>>,
    /// When idle ones are looked for.
    sweep_at: Instant,
}

#[derive(Debug)]
struct Own<C> {
    tenant: TenantId,
    revision: u64,
    http: C,
    /// When it is replaced.
    until: Instant,
    used_at: Instant,
}

impl<C: Clone> OwnPools<C> {
    /// Keeps nothing yet; clients are replaced at that age, and closed when not used for as long.
    pub(crate) fn new(age_max: Duration) -> Self {
        let kept = Kept { by_endpoint: BTreeMap::new(), sweep_at: Instant::now() + age_max };
        Self { age_max, kept: Mutex::new(kept) }
    }

    /// Returns the client that has the endpoint's connections; `make` makes one that has none.
    pub(crate) fn of<E>(
        &self,
        identity: &Identity,
        make: impl FnOnce() -> Result<C, E>,
    ) -> Result<C, E> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now >= kept.sweep_at {
            kept.by_endpoint.retain(|_, own| own.used_at + self.age_max > now);
            kept.sweep_at = now + self.age_max;
        }
        let Whose { tenant, endpoint, revision } = &identity.whose;
        if let Some(own) = kept.by_endpoint.get_mut(endpoint)
            && own.revision == *revision
            && now < own.until
        {
            own.used_at = now;
            return Ok(own.http.clone());
        }
        let http = make()?;
        let own = Own {
            tenant: tenant.clone(),
            revision: *revision,
            http: http.clone(),
            until: now + self.age_max,
            used_at: now,
        };
        kept.by_endpoint.insert(*endpoint, own);
        if kept.by_endpoint.len() > OWN_MAX {
            kept.close_one();
        }
        Ok(http)
    }
}

impl<C> Kept<C> {
    /// Closes what a tenant that has the most used longest ago.
    fn close_one(&mut self) {
        let mut counts: BTreeMap<&TenantId, usize> = BTreeMap::new();
        for own in self.by_endpoint.values() {
            *counts.entry(&own.tenant).or_default() += 1;
        }
        let most = counts.values().max();
        let has_most = |own: &Own<C>| counts.get(&own.tenant) == most;
        let of_the_most = self.by_endpoint.iter().filter(|(_, own)| has_most(own));
        let oldest = of_the_most.min_by_key(|(_, own)| own.used_at);
        if let Some(oldest) = oldest.map(|(endpoint, _)| *endpoint) {
            self.by_endpoint.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use fanfare_domain::Timestamp;

    use super::*;

    fn whose(tenant: &str, endpoint: u16, revision: u64) -> Whose {
        let mut random = [0; 10];
        random[8..].copy_from_slice(&endpoint.to_be_bytes());
        let endpoint = EndpointId::new(Timestamp::EPOCH, random);
        Whose { tenant: tenant.parse().unwrap(), endpoint, revision }
    }

    fn makes(pools: &OwnPools<()>, endpoint: u16, revision: u64) -> bool {
        makes_for(pools, whose("acme", endpoint, revision))
    }

    /// Tells whether a client had to be made.
    fn makes_for(pools: &OwnPools<()>, whose: Whose) -> bool {
        let mut made = false;
        let maker = || {
            made = true;
            Ok::<_, Infallible>(())
        };
        pools.of(&Identity::new(whose, [], None).unwrap(), maker).unwrap();
        made
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_of_one_endpoint_and_one_revision_and_do_not_grow_old() {
        let pools = OwnPools::new(Duration::from_mins(1));
        assert!(makes(&pools, 1, 7) && makes(&pools, 2, 7));
        assert!(!makes(&pools, 1, 7) && !makes(&pools, 2, 7));
        assert!(makes(&pools, 1, 8), "it was changed");
        assert!(!makes(&pools, 1, 8));
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(makes(&pools, 1, 8), "it is old");
        assert_eq!(pools.kept.lock().unwrap().by_endpoint.len(), 1, "the other one is idle");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_only_so_many() {
        let pools = OwnPools::new(Duration::from_hours(1));
        for endpoint in 0..=u16::try_from(OWN_MAX).unwrap() {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(makes(&pools, endpoint, 1));
        }
        assert_eq!(pools.kept.lock().unwrap().by_endpoint.len(), OWN_MAX);
        assert!(makes(&pools, 0, 1), "it was used longest ago");
        assert!(!makes(&pools, 2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_with_many_pushes_out_its_own_and_nobody_elses() {
        let pools = OwnPools::new(Duration::from_hours(1));
        // What others have was used longest ago.
        for (tenant, endpoint) in [("one", 10_000), ("two", 20_000), ("two", 20_001)] {
            assert!(makes_for(&pools, whose(tenant, endpoint, 1)));
        }
        for endpoint in 0..2_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(makes_for(&pools, whose("flood", endpoint, 1)));
        }
        assert_eq!(pools.kept.lock().unwrap().by_endpoint.len(), OWN_MAX);
        for (tenant, endpoint) in [("one", 10_000), ("two", 20_000), ("two", 20_001)] {
            assert!(!makes_for(&pools, whose(tenant, endpoint, 1)), "{tenant}");
        }
        assert!(!makes_for(&pools, whose("flood", 1_999, 1)));
        assert!(makes_for(&pools, whose("flood", 0, 1)));
        // Who comes later than the flood finds room too, and keeps it.
        assert!(makes_for(&pools, whose("late", 30_000, 1)));
        for endpoint in 2_000..4_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(makes_for(&pools, whose("flood", endpoint, 1)));
        }
        assert!(!makes_for(&pools, whose("late", 30_000, 1)));
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_does_not_show() {
        let refused = Identity::new(whose("acme", 1, 1), [], Some((vec![vec![1]], "s3cret")));
        let refused = refused.unwrap_err();
        assert!(matches!(refused, TlsError::KeyNotPem));
        assert!(!format!("{refused:?} {refused}").contains("s3cret"));
    }
}
