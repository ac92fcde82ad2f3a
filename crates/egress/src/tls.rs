//! How TLS is spoken: rustls with *ring*, the system's authorities and the operator's.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, pem, pem::PemObject as _},
    sign::SingleCertAndKey,
};

use crate::{Identity, Protocol, sessions::Sessions};

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
    /// The key of a client certificate is not in PEM, or encrypted.
    #[error("the key of the client certificate is not in PEM")]
    KeyNotPem,
    /// A client certificate cannot be used: most likely, the key is not its own.
    #[error("the client certificate cannot be used with its key")]
    Client(#[source] rustls::Error),
    /// The provider does not know the versions of TLS that we speak.
    #[error("no version of TLS to speak")]
    Versions(#[source] rustls::Error),
}

/// Returns the configuration for endpoints that have none of their own.
pub(crate) fn configure(
    roots: &Arc<RootCertStore>,
    protocol: Protocol,
) -> Result<ClientConfig, TlsError> {
    let builder = builder()?.with_root_certificates(Arc::clone(roots));
    Ok(finish(builder.with_no_client_auth(), protocol))
}

/// Returns the configuration for one endpoint. It trusts those authorities that all trust, too.
pub(crate) fn configure_for(
    identity: &Identity,
    roots: &Arc<RootCertStore>,
    protocol: Protocol,
) -> Result<ClientConfig, TlsError> {
    let mut roots = Arc::clone(roots);
    if !identity.authorities.is_empty() {
        let own = Arc::make_mut(&mut roots);
        for (position, authority) in identity.authorities.iter().enumerate() {
            own.add(authority.clone()).map_err(|source| TlsError::Unusable { position, source })?;
        }
    }
    let builder = builder()?.with_root_certificates(roots);
    let config = match &identity.certified {
        Some(certified) => {
            let shown = SingleCertAndKey::from(Arc::clone(certified));
            builder.with_client_cert_resolver(Arc::new(shown))
        }
        None => builder.with_no_client_auth(),
    };
    Ok(finish(config, protocol))
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)
}

fn finish(mut config: ClientConfig, protocol: Protocol) -> ClientConfig {
    config.alpn_protocols = match protocol {
        Protocol::Negotiated => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    config.resumption = Resumption::store(Sessions::shared());
    config
}

/// Gathers the authorities; those of the system that cannot be read are left out.
pub(crate) fn roots(extra: &[String]) -> Result<RootCertStore, TlsError> {
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
