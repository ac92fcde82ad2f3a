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

use fanfare_domain::EndpointId;
use rustls::{
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::time::Instant;

use crate::tls::TlsError;

/// For how many endpoints connections of their own are kept; those that were used longest ago are
/// closed first.
const OWN_MAX: usize = 256;

/// What an endpoint has of TLS that others do not. It is known by its endpoint and the revision that
/// it was made from.
pub struct Identity {
    endpoint: EndpointId,
    revision: u64,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    pub(crate) certified: Option<Arc<CertifiedKey>>,
}

impl Identity {
    /// Makes the identity of an endpoint as of a revision. Certificates are in DER, that of the
    /// client first in its chain, and its key is in PEM.
    ///
    /// # Errors
    ///
    /// If the key is none, or not that of the certificate.
    pub fn new(
        (endpoint, revision): (EndpointId, u64),
        authorities: impl IntoIterator<Item = Vec<u8>>,
        client: Option<(Vec<Vec<u8>>, &str)>,
    ) -> Result<Self, TlsError> {
        let certified = client.map(|(chain, key)| certify(chain, key)).transpose()?;
        let authorities = authorities.into_iter().map(CertificateDer::from).collect();
        Ok(Self { endpoint, revision, authorities, certified })
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
        f.debug_struct("Identity")
            .field("endpoint", &self.endpoint)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
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
        if let Some(own) = kept.by_endpoint.get_mut(&identity.endpoint)
            && own.revision == identity.revision
            && now < own.until
        {
            own.used_at = now;
            return Ok(own.http.clone());
        }
        let http = make()?;
        let own = Own {
            revision: identity.revision,
            http: http.clone(),
            until: now + self.age_max,
            used_at: now,
        };
        kept.by_endpoint.insert(identity.endpoint, own);
        if kept.by_endpoint.len() > OWN_MAX {
            let oldest = kept.by_endpoint.iter().min_by_key(|(_, own)| own.used_at);
            if let Some(oldest) = oldest.map(|(endpoint, _)| *endpoint) {
                kept.by_endpoint.remove(&oldest);
            }
        }
        Ok(http)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use fanfare_domain::Timestamp;

    use super::*;

    fn identity(endpoint: u16, revision: u64) -> Identity {
        let mut random = [0; 10];
        random[8..].copy_from_slice(&endpoint.to_be_bytes());
        let endpoint = EndpointId::new(Timestamp::EPOCH, random);
        Identity::new((endpoint, revision), [], None).unwrap()
    }

    /// Tells whether a client had to be made.
    fn makes(pools: &OwnPools<()>, endpoint: u16, revision: u64) -> bool {
        let mut made = false;
        let maker = || {
            made = true;
            Ok::<_, Infallible>(())
        };
        pools.of(&identity(endpoint, revision), maker).unwrap();
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

    #[test]
    fn a_key_that_is_none_is_refused_and_does_not_show() {
        let endpoint = EndpointId::new(Timestamp::EPOCH, [1; 10]);
        let refused = Identity::new((endpoint, 1), [], Some((vec![vec![1]], "s3cret")));
        let refused = refused.unwrap_err();
        assert!(matches!(refused, TlsError::KeyNotPem));
        assert!(!format!("{refused:?} {refused}").contains("s3cret"));
    }
}
