//! How TLS is spoken: rustls with *ring*, the system's authorities and the operator's.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject as _},
};

use crate::{Protocol, Settings, sessions::Sessions};

/// Why TLS cannot be spoken as the settings want it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the settings' root certificates is not in PEM. Counts from 0.
    #[error("root certificate {position} is not in PEM")]
    NotPem {
        /// Which of the settings' texts.
        position: usize,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// One of the settings' root certificates cannot be used. Counts from 0.
    #[error("root certificate {position} cannot be used")]
    Unusable {
        /// Which of the settings' texts.
        position: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// One of the settings' texts has no certificate. Counts from 0.
    #[error("root certificate {position} is empty")]
    Empty {
        /// Which of the settings' texts.
        position: usize,
    },
    /// The provider does not know the versions of TLS that we speak.
    #[error("no version of TLS to speak")]
    Versions(#[source] rustls::Error),
}

/// Returns the configuration, and how many authorities it trusts.
pub(crate) fn configure(settings: &Settings) -> Result<(ClientConfig, usize), TlsError> {
    let roots = roots(&settings.roots)?;
    let trusted = roots.len();
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match settings.protocol {
        Protocol::Negotiated => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    config.resumption = Resumption::store(Sessions::shared());
    Ok((config, trusted))
}

/// Gathers the authorities; those of the system that cannot be read are left out.
fn roots(extra: &[String]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for (position, text) in extra.iter().enumerate() {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate =
                certificate.map_err(|source| TlsError::NotPem { position, source })?;
            roots.add(certificate).map_err(|source| TlsError::Unusable { position, source })?;
        }
        if roots.len() == before {
            return Err(TlsError::Empty { position });
        }
    }
    Ok(roots)
}
