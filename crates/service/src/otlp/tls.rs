//! Whom a collector has to be, and who we are to it, where it is spoken to over TLS.
//!
//! The standard variables name files in PEM. What they hold is read once, at the start, and tried: a
//! file that is of no use fails there, and not with each batch.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use zeroize::Zeroizing;

use super::ExportError;

/// The most bytes of a file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Variables that name files; each first of a signal's own, then of all.
#[derive(Clone, Copy)]
pub(crate) struct Variables {
    /// Certificates of those who may vouch for the collector.
    pub(crate) authorities: [&'static str; 2],
    /// Our own certificate, with those above it.
    pub(crate) certificate: [&'static str; 2],
    /// Its key.
    pub(crate) key: [&'static str; 2],
}

/// Who is who. The default is whom the machine trusts, and nobody.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// Who may vouch for the collector, in PEM; those whom the machine trusts if there are none.
    authorities: Option<Vec<u8>>,
    /// Our certificate and its key, in PEM.
    identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// Says nothing of what it holds.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files that the variables name.
    ///
    /// # Errors
    ///
    /// If one cannot be read or holds something else, or of a certificate and its key one is missing.
    pub(crate) fn read(
        variables: &Variables,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ExportError> {
        let named = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, given(&variable, name)?)))
        };
        let authorities = match named(variables.authorities) {
            None => None,
            Some((variable, path)) => {
                let pem = contents(variable, &path)?.to_vec();
                certificates(&pem).ok_or(ExportError::NotPem { variable })?;
                Some(pem)
            }
        };
        let identity = match (named(variables.certificate), named(variables.key)) {
            (None, None) => None,
            (Some((variable, certificate)), Some((key_variable, key))) => {
                let certificate = contents(variable, &certificate)?.to_vec();
                let key = contents(key_variable, &key)?;
                paired(&certificate, &key).ok_or(ExportError::NotPem { variable })?;
                Some((certificate, key))
            }
            (Some((variable, _)), None) | (None, Some((variable, _))) => {
                return Err(ExportError::HalfAnIdentity { variable });
            }
        };
        Ok(Self { authorities, identity })
    }

    /// Tells an HTTP client.
    pub(crate) fn over_http(&self, mut client: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
        if let Some(authorities) = self.authorities.as_deref().and_then(certificates) {
            client = client.tls_certs_only(authorities);
        }
        if let Some((certificate, key)) = &self.identity
            && let Some(identity) = paired(certificate, key)
        {
            client = client.identity(identity);
        }
        client
    }

    /// Returns what gRPC goes by.
    pub(crate) fn over_grpc(&self) -> ClientTlsConfig {
        // It trusts nobody by itself: without this, no collector's certificate would do.
        let mut config = match &self.authorities {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(certificate, key.as_slice()));
        }
        config
    }
}

/// A variable's value, if it is not empty.
fn given(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).filter(|text| !text.trim().is_empty())
}

fn contents(variable: &'static str, path: &str) -> Result<Zeroizing<Vec<u8>>, ExportError> {
    let read = |path: &str| -> io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::new());
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let unreadable =
        |cause| ExportError::FileUnreadable { variable, path: PathBuf::from(path), cause };
    read(path).map_err(unreadable)
}

/// Takes certificates; `None` if there are none.
fn certificates(pem: &[u8]) -> Option<Vec<reqwest::Certificate>> {
    let found = reqwest::Certificate::from_pem_bundle(pem).ok()?;
    Some(found).filter(|found| !found.is_empty())
}

/// Takes a certificate and its key; `None` if it is not that.
fn paired(certificate: &[u8], key: &[u8]) -> Option<reqwest::Identity> {
    let together = Zeroizing::new([certificate, b"\n", key].concat());
    reqwest::Identity::from_pem(&together).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const VARIABLES: Variables = Variables {
        authorities: ["OWN_AUTHORITIES", "AUTHORITIES"],
        certificate: ["OWN_CERTIFICATE", "CERTIFICATE"],
        key: ["OWN_KEY", "KEY"],
    };

    /// Files that are named, and what must come of them.
    type Bad<'a> = (&'a [(&'a str, &'a Path)], fn(&ExportError) -> bool);

    fn read(named: &[(&str, &Path)]) -> Result<Tls, ExportError> {
        crate::install_crypto_provider();
        Tls::read(&VARIABLES, |name| {
            let found = named.iter().find(|(other, _)| *other == name);
            found.map(|(_, path)| path.display().to_string())
        })
    }

    #[test]
    fn files_are_tried_when_they_are_read() {
        let made = rcgen::generate_simple_self_signed([String::from("collector.invalid")]).unwrap();
        let (text, secret) = (made.cert.pem(), made.signing_key.serialize_pem());
        let directory = std::env::temp_dir().join(format!("fanfare-tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [certificate, key, other] = [("crt", &*text), ("key", &*secret), ("other", "nothing")]
            .map(|(name, text)| {
                let path = directory.join(name);
                std::fs::write(&path, text).unwrap();
                path
            });
        let none = read(&[]).unwrap();
        assert!(none.authorities.is_none() && none.identity.is_none());
        // A signal's own goes before that of all.
        let both = read(&[
            ("AUTHORITIES", &*other),
            ("OWN_AUTHORITIES", &*certificate),
            ("CERTIFICATE", &*certificate),
            ("KEY", &*key),
        ]);
        let both = both.unwrap();
        assert_eq!(both.authorities.as_deref(), Some(text.as_bytes()));
        assert!(both.identity.is_some() && !format!("{both:?}").contains("PRIVATE"));
        assert!(both.over_http(reqwest::Client::builder()).build().is_ok());
        let missing = directory.join("missing");
        let bad: [Bad<'_>; 5] = [
            (&[("AUTHORITIES", &other)], is_not_pem),
            (&[("CERTIFICATE", &certificate), ("KEY", &other)], is_not_pem),
            (&[("CERTIFICATE", &certificate)], is_half),
            (&[("OWN_KEY", &key)], is_half),
            (&[("AUTHORITIES", &missing)], is_unreadable),
        ];
        for (named, is_as_wanted) in bad {
            let error = read(named).unwrap_err();
            assert!(is_as_wanted(&error), "{named:?}: {error}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    fn is_not_pem(error: &ExportError) -> bool {
        matches!(error, ExportError::NotPem { .. })
    }

    fn is_half(error: &ExportError) -> bool {
        matches!(error, ExportError::HalfAnIdentity { .. })
    }

    fn is_unreadable(error: &ExportError) -> bool {
        matches!(error, ExportError::FileUnreadable { .. })
    }
}
