//! Certificates that are good, or bad in one particular way.

use std::{fmt, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};

/// Which certificate a receiver shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// One of its own authority, for `localhost` and `127.0.0.1`.
    Valid,
    /// The same, but its time is over.
    Expired,
    /// The same, but its time has not come.
    NotYetValid,
    /// The same, but for another name.
    WrongHost,
    /// The same, but without names, other than its subject's.
    NoNames,
    /// The same, but for clients to show.
    ForClients,
    /// The same, but signed by a certificate that is none of an authority, though from one.
    NoAuthority,
    /// One for the right names that no authority has signed.
    SelfSigned,
}

/// A certificate for a client to show, with its key; both in PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl ClientIdentity {
    /// Makes one that no authority has signed: good, or bad as a receiver's can be.
    pub fn self_signed(kind: Certificate) -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("make a key")?;
        let signed = describe(kind)?.self_signed(&key).context("sign a certificate")?;
        Ok(Self { certificate: signed.pem(), key: key.serialize_pem() })
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// A certificate with its key, and the authority that a client is to trust.
pub(super) struct Identity {
    /// The server's first.
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    /// In PEM.
    pub(super) authority: String,
    authority_der: CertificateDer<'static>,
    /// One that the same authority has signed.
    pub(super) client: ClientIdentity,
}

impl Identity {
    pub(super) fn make(kind: Certificate) -> anyhow::Result<Self> {
        let authority_key = KeyPair::generate().context("make an authority's key")?;
        let mut params = CertificateParams::new(Vec::new()).context("describe an authority")?;
        params.distinguished_name.push(DnType::CommonName, "an authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&authority_key).context("sign an authority")?;
        let (authority, authority_der) = (certificate.pem(), certificate.der().clone());
        let issuer = Issuer::new(params, authority_key);

        let client_key = KeyPair::generate().context("make a key")?;
        let client = describe(Certificate::ForClients)?.signed_by(&client_key, &issuer);
        let client = ClientIdentity {
            certificate: client.context("sign a client's certificate")?.pem(),
            key: client_key.serialize_pem(),
        };

        let key = KeyPair::generate().context("make a key")?;
        let params = describe(kind)?;
        let chain = match kind {
            Certificate::SelfSigned => vec![params.self_signed(&key)],
            Certificate::NoAuthority => {
                let between = KeyPair::generate().context("make a key")?;
                let mut leaf = CertificateParams::new(Vec::new()).context("describe a leaf")?;
                leaf.distinguished_name.push(DnType::CommonName, "no authority");
                let signed = leaf.signed_by(&between, &issuer);
                vec![params.signed_by(&key, &Issuer::new(leaf, between)), signed]
            }
            Certificate::Valid
            | Certificate::Expired
            | Certificate::NotYetValid
            | Certificate::WrongHost
            | Certificate::NoNames
            | Certificate::ForClients => vec![params.signed_by(&key, &issuer)],
        };
        let chain = chain.into_iter().map(|signed| signed.map(|signed| signed.der().clone()));
        let chain = chain.collect::<Result<_, _>>().context("sign a certificate")?;
        Ok(Self { chain, key, authority, authority_der, client })
    }

    /// Returns what a TLS server needs to show the certificate and offer the protocols. With
    /// `demands`, it talks to nobody who has no certificate of its authority.
    pub(super) fn serve(
        self,
        protocols: &[&str],
        demands: bool,
    ) -> anyhow::Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?;
        let builder = if demands {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority_der).context("trust an authority")?;
            let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(clients.build().context("verify clients")?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(self.chain, key).context("use a certificate")?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// What a certificate says.
fn describe(kind: Certificate) -> anyhow::Result<CertificateParams> {
    let names: &[&str] = match kind {
        Certificate::WrongHost => &["elsewhere.example"],
        Certificate::NoNames => &[],
        Certificate::Valid
        | Certificate::Expired
        | Certificate::NotYetValid
        | Certificate::ForClients
        | Certificate::NoAuthority
        | Certificate::SelfSigned => &["localhost", "127.0.0.1"],
    };
    let names: Vec<String> = names.iter().map(|name| String::from(*name)).collect();
    let mut params = CertificateParams::new(names).context("describe a certificate")?;
    params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
    match kind {
        Certificate::Expired => {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        Certificate::NotYetValid => params.not_before = date_time_ymd(4000, 1, 1),
        Certificate::ForClients => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
        Certificate::Valid
        | Certificate::WrongHost
        | Certificate::NoNames
        | Certificate::NoAuthority
        | Certificate::SelfSigned => {}
    }
    Ok(params)
}
