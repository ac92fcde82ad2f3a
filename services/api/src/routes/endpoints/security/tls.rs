//! How TLS is spoken with an endpoint: authorities of its own, and a certificate that we show to it.

use bytes::Bytes;
use fanfare_domain::{
    EndpointId, Timestamp,
    endpoint::{Certificate, ClientCertificate, Tls, client_key_owner},
    seal::Clear,
};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{super::draft::Maker, secret};
use crate::error::ApiError;

/// The longest text in PEM, in bytes.
const PEM_BYTES_MAX: usize = 16 << 10;
/// The most certificates of a text.
const CERTIFICATES_MAX: usize = 10;
/// How much of a subject is kept, in characters.
const SUBJECT_MAX: usize = 256;

const CA: &str = "tls.ca_pem";
const CERTIFICATE: &str = "tls.client_certificate_pem";
const KEY: &str = "tls.client_key_pem";

/// How TLS is spoken with an endpoint.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "they are named as callers write them")]
pub(crate) struct NewTls {
    /// Certificates of authorities to trust besides those that are trusted for all: up to 10 in PEM,
    /// 16 KiB together.
    ca_pem: Option<String>,
    /// The certificate that requests show (mutual TLS), and those that lead from it to an authority:
    /// up to 10 in PEM, 16 KiB together.
    client_certificate_pem: Option<String>,
    /// Its key in PEM (PKCS #8, PKCS #1 or SEC 1), not encrypted. It may be left out in a change that
    /// leaves the certificate as it is: then it stays.
    #[serde(default, deserialize_with = "secret")]
    #[schema(value_type = Option<String>, write_only)]
    client_key_pem: Option<Clear>,
}

/// How TLS is spoken with an endpoint, without the key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tls)]
pub(crate) struct TlsView {
    /// Certificates of authorities to trust besides those that are trusted for all, in PEM; `null` if
    /// there are none.
    #[schema(required)]
    ca_pem: Option<String>,
    /// The certificate that requests show, and those that lead from it to an authority, in PEM;
    /// `null` if there is none.
    #[schema(required)]
    client_certificate_pem: Option<String>,
    /// The authorities.
    authorities: Vec<CertificateView>,
    /// The certificate that requests show; `null` if there is none.
    #[schema(required)]
    client_certificate: Option<CertificateView>,
}

/// What people want to know of a certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Certificate)]
pub(crate) struct CertificateView {
    /// Whose it is.
    #[schema(example = "CN=fanfare.example.com")]
    subject: String,
    /// Its SHA-256, in hexadecimal.
    fingerprint_sha256: String,
    /// When its time is over.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl NewTls {
    /// Checks what a caller sent, and seals the key. One that is left out stays as it is `before`.
    pub(in super::super) fn admit(
        &self,
        maker: Maker<'_>,
        endpoint: EndpointId,
        before: Option<&Tls>,
        chance: &impl Fn() -> [u8; 56],
    ) -> Result<Tls, ApiError> {
        let authorities = self.ca_pem.as_deref().map(|pem| certificates(CA, pem, maker.now));
        let authorities = authorities.transpose()?.unwrap_or_default();
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots
                .add(CertificateDer::from(authority.der.to_vec()))
                .map_err(|_| ApiError::value(CA, "a certificate in it cannot be used"))?;
        }
        let client = match (&self.client_certificate_pem, &self.client_key_pem) {
            (Some(pem), key) => {
                let chain = certificates(CERTIFICATE, pem, maker.now)?;
                let kept = before.and_then(|tls| tls.client.as_ref());
                let kept = kept.filter(|client| client.chain.first() == chain.first());
                let key = match (key, kept) {
                    (Some(key), _) => {
                        check_pair(&chain, key)?;
                        maker.seal(&client_key_owner(endpoint), key, chance)
                    }
                    (None, Some(kept)) => kept.key.clone(),
                    (None, None) => return Err(ApiError::value(KEY, "it is missing")),
                };
                Some(ClientCertificate { chain, key })
            }
            (None, Some(_)) => {
                return Err(ApiError::value(CERTIFICATE, "it is missing, and there is a key"));
            }
            (None, None) => None,
        };
        if authorities.is_empty() && client.is_none() {
            return Err(ApiError::value("tls", "it says nothing: null takes it away"));
        }
        Ok(Tls { authorities, client })
    }
}

/// Reads certificates. One whose time is over is refused: nobody would accept it.
fn certificates(field: &str, pem: &str, now: Timestamp) -> Result<Vec<Certificate>, ApiError> {
    if pem.len() > PEM_BYTES_MAX {
        return Err(ApiError::value(field, format_args!("it has more than {PEM_BYTES_MAX} bytes")));
    }
    let ders = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let ders = ders.map_err(|_| ApiError::value(field, "it is not in PEM"))?;
    if !(1..=CERTIFICATES_MAX).contains(&ders.len()) {
        let why =
            format!("it has {} certificates, and can have 1 to {CERTIFICATES_MAX}", ders.len());
        return Err(ApiError::value(field, why));
    }
    ders.iter().map(|der| certificate(field, der, now)).collect()
}

fn certificate(
    field: &str,
    der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Certificate, ApiError> {
    let malformed = || ApiError::value(field, "a certificate in it is malformed");
    let (rest, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| malformed())?;
    if !rest.is_empty() {
        return Err(malformed());
    }
    let subject: String = parsed.subject().to_string().chars().take(SUBJECT_MAX).collect();
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
    let expires_at = Timestamp::from_millis(seconds.saturating_mul(1_000));
    if expires_at <= now {
        let why = format!("the certificate of {subject} has expired, on {expires_at}");
        return Err(ApiError::value(field, why));
    }
    Ok(Certificate { der: Bytes::copy_from_slice(der), subject, expires_at })
}

/// Checks that a key is one, and that of the certificate. What is wrong with it is not repeated: that
/// may quote it.
fn check_pair(chain: &[Certificate], key: &Clear) -> Result<(), ApiError> {
    let refused = |why| ApiError::value(KEY, why);
    if key.expose().len() > PEM_BYTES_MAX {
        return Err(refused("it is too long"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| refused("it is no key in PEM, or is encrypted"))?;
    let chain = chain.iter().map(|it| CertificateDer::from(it.der.to_vec())).collect();
    match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(refused("it is not that of the certificate"))
        }
        Err(_) => Err(refused("it is a key of a kind that cannot be used")),
    }
}

impl TlsView {
    pub(in super::super) fn of(tls: &Tls) -> Self {
        let pem = |all: &[Certificate]| all.iter().map(Certificate::pem).collect::<String>();
        let authorities = Some(&*tls.authorities).filter(|all| !all.is_empty());
        let chain = tls.client.as_ref().map(|client| &*client.chain);
        Self {
            ca_pem: authorities.map(pem),
            client_certificate_pem: chain.map(pem),
            authorities: tls.authorities.iter().map(CertificateView::of).collect(),
            client_certificate: chain.and_then(<[_]>::first).map(CertificateView::of),
        }
    }
}

impl CertificateView {
    fn of(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject.clone(),
            fingerprint_sha256: certificate.fingerprint(),
            expires_at: certificate.expires_at.to_string(),
        }
    }
}
