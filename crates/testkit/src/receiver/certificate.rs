//! Certificates that are good, or bad in one particular way.

use std::{fmt, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, date_time_ymd,
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

/// What cannot be made here, since nobody should: signed with SHA-1, and by a key of 512 bits. Each is
/// an authority, a certificate, and its key.
const SHA1: &str = include_str!("certificate/sha1.pem");
const WEAK: &str = include_str!("certificate/weak.pem");
/// How many certificates stand between a long chain's ends.
const LONG: usize = 100;

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
    /// The same as [`Self::Valid`], but signed with SHA-1.
    Sha1,
    /// The same, but of an authority whose RSA key has 512 bits.
    WeakAuthority,
    /// The same, but at the end of a hundred others from its authority.
    LongChain,
    /// The same, but without the one between it and its authority: it says that it can be had from
    /// the server itself, which can also be asked whether it was revoked.
    Incomplete,
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
    /// Makes one for a server that listens there.
    pub(super) fn make(kind: Certificate, address: SocketAddr) -> anyhow::Result<Self> {
        match kind {
            Certificate::Sha1 => return Self::read(SHA1),
            Certificate::WeakAuthority => return Self::read(WEAK),
            Certificate::Valid
            | Certificate::Expired
            | Certificate::NotYetValid
            | Certificate::WrongHost
            | Certificate::NoNames
            | Certificate::ForClients
            | Certificate::NoAuthority
            | Certificate::SelfSigned
            | Certificate::LongChain
            | Certificate::Incomplete => {}
        }
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
        let chain = chain(kind, &key, (issuer, address))?;
        Ok(Self { chain, key, authority, authority_der, client })
    }

    /// Reads an authority, a certificate and its key.
    fn read(pem: &str) -> anyhow::Result<Self> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let all = <[CertificateDer<'_>; 2]>::try_from(all.context("read certificates")?);
        let [authority_der, certificate] = all.ok().context("there are two certificates")?;
        let (_, from) = pem.split_once("-----BEGIN CERT").context("an authority")?;
        let (authority, rest) = from.split_once("-----END CERTIFICATE-----").context("its end")?;
        let (_, key) = rest.split_once("-----BEGIN PRIVATE").context("a key")?;
        let key = KeyPair::from_pem(&format!("-----BEGIN PRIVATE{key}")).context("read a key")?;
        let authority = format!("-----BEGIN CERT{authority}-----END CERTIFICATE-----\n");
        let client = ClientIdentity::self_signed(Certificate::ForClients)?;
        Ok(Self { chain: vec![certificate], key, authority, authority_der, client })
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

/// The certificates that a server shows, its own first.
fn chain(
    kind: Certificate,
    key: &KeyPair,
    (issuer, address): (Issuer<'static, KeyPair>, SocketAddr),
) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let mut params = describe(kind)?;
    let chain = match kind {
        Certificate::SelfSigned => vec![params.self_signed(key)],
        Certificate::NoAuthority => {
            let between = KeyPair::generate().context("make a key")?;
            let mut leaf = CertificateParams::new(Vec::new()).context("describe a leaf")?;
            leaf.distinguished_name.push(DnType::CommonName, "no authority");
            let signed = leaf.signed_by(&between, &issuer);
            vec![params.signed_by(key, &Issuer::new(leaf, between)), signed]
        }
        Certificate::LongChain => {
            let (mut issuer, mut chain) = (issuer, Vec::new());
            for number in 0..LONG {
                let (signed, next) = between(&format!("between {number}"), &issuer)?;
                chain.push(Ok(signed));
                issuer = next;
            }
            chain.push(params.signed_by(key, &issuer));
            chain.reverse();
            chain
        }
        Certificate::Incomplete => {
            let (_, issuer) = between("one that is to be fetched", &issuer)?;
            params.custom_extensions.push(fetchable(address));
            vec![params.signed_by(key, &issuer)]
        }
        Certificate::Valid
        | Certificate::Expired
        | Certificate::NotYetValid
        | Certificate::WrongHost
        | Certificate::NoNames
        | Certificate::ForClients
        | Certificate::Sha1
        | Certificate::WeakAuthority => vec![params.signed_by(key, &issuer)],
    };
    let chain = chain.into_iter().map(|signed| signed.map(|signed| signed.der().clone()));
    chain.collect::<Result<_, _>>().context("sign a certificate")
}

/// Makes an authority that another one has signed.
fn between(
    name: &str,
    issuer: &Issuer<'_, KeyPair>,
) -> anyhow::Result<(rcgen::Certificate, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate().context("make a key")?;
    let mut params = CertificateParams::new(Vec::new()).context("describe an authority")?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signed = params.signed_by(&key, issuer).context("sign an authority")?;
    Ok((signed, Issuer::new(params, key)))
}

/// Says where the certificate of whoever signed can be had, and who knows what was revoked (RFC 5280,
/// section 4.2.2.1).
fn fetchable(address: SocketAddr) -> CustomExtension {
    const ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    const ISSUERS: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 0x30, 2];
    const REVOKED: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 0x30, 1];
    let at = |method: &[u8], path: &str| {
        let url = format!("http://{address}{path}");
        element(0x30, &[element(6, method), element(0x86, url.as_bytes())].concat())
    };
    let places = [at(&ISSUERS, "/issuer.der"), at(&REVOKED, "/ocsp")].concat();
    CustomExtension::from_oid_content(&ACCESS, element(0x30, &places))
}

/// An element of DER, of less than 256 bytes.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    let head = if length < 128 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [head, content.to_vec()].concat()
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
        | Certificate::SelfSigned
        | Certificate::Sha1
        | Certificate::WeakAuthority
        | Certificate::LongChain
        | Certificate::Incomplete => &["localhost", "127.0.0.1"],
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
        | Certificate::SelfSigned
        | Certificate::Sha1
        | Certificate::WeakAuthority
        | Certificate::LongChain
        | Certificate::Incomplete => {}
    }
    Ok(params)
}
