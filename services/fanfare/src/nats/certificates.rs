//! Certificates: those that somebody has made, or, for a trial, some of an authority of our own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use fanfare_domain::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    server::ParsedCertificate,
};

use super::files;

/// The names of the files beside whoever uses them.
pub(super) const AUTHORITY: &str = "ca.pem";
pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "certificate.key";
/// Where the authority is kept, and its key.
const AUTHORITIES: &str = "ca";
const AUTHORITY_KEY: &str = "ca.key";
/// For how many years an authority is good, and what it signs.
const AUTHORITY_YEARS: i32 = 10;
const YEARS: i32 = 1;

/// Who signs.
pub(super) enum Source {
    /// An authority of our own.
    Own {
        /// It.
        issuer: Box<Issuer<'static, KeyPair>>,
        /// Its certificate, in PEM.
        authority: String,
        /// The month in which it signs.
        today: Month,
    },
    /// Nobody: all is there, in this directory.
    Given(PathBuf),
}

/// A month: its year, and its number.
type Month = (i32, u8);

/// For whom a certificate is.
pub(super) enum For<'a> {
    /// A server, which is reached under these names; others reach it under the first.
    Server(&'a [String]),
    /// A user.
    User,
}

impl Source {
    /// Opens what is given, or the authority in the directory, which is made where there is none.
    pub(super) fn open(directory: &Path, given: Option<&Path>, now: Timestamp) -> Result<Self> {
        if let Some(given) = given {
            let authority = given.join(AUTHORITY);
            ensure!(authority.is_file(), "there is no {}", authority.display());
            return Ok(Self::Given(given.to_owned()));
        }
        let directory = directory.join(AUTHORITIES);
        files::directory(&directory)?;
        let (certificate, key) = (directory.join(AUTHORITY), directory.join(AUTHORITY_KEY));
        let today = month(now).context("find the month")?;
        let params = authority(today)?;
        if key.exists() {
            let pair = KeyPair::from_pem(&files::read(&key)?).context("read an authority's key")?;
            let authority = files::read(&certificate)?;
            let issuer = Box::new(Issuer::new(params, pair));
            return Ok(Self::Own { issuer, authority, today });
        }
        let pair = KeyPair::generate().context("make an authority's key")?;
        let signed = params.self_signed(&pair).context("sign an authority")?;
        files::write_secret(&key, &pair.serialize_pem())?;
        files::write(&certificate, &signed.pem())?;
        let issuer = Box::new(Issuer::new(params, pair));
        Ok(Self::Own { issuer, authority: signed.pem(), today })
    }

    /// Puts a certificate, its key and the authority into the directory of who uses them. One of our
    /// own that is there stays, unless it is for other names; one that is given is taken each time,
    /// and has to be for the place where a server is reached.
    pub(super) fn put(&self, name: &str, whose: &For<'_>, directory: &Path) -> Result<()> {
        let places = [AUTHORITY, CERTIFICATE, KEY].map(|file| directory.join(file));
        let [at_authority, at_certificate, at_key] = &places;
        match self {
            Self::Given(given) => {
                let certificate = given.join(format!("{name}.pem"));
                if let For::Server(names) = whose
                    && let Some(host) = names.first()
                {
                    ensure!(
                        is_for(&certificate, host)?,
                        "{} is not for {host}, where others reach {name}",
                        certificate.display()
                    );
                }
                files::copy(&given.join(AUTHORITY), at_authority, false)?;
                files::copy(&certificate, at_certificate, false)?;
                files::copy(&given.join(format!("{name}.key")), at_key, true)
            }
            Self::Own { issuer, authority, today } => {
                files::write(at_authority, authority)?;
                if at_key.exists() && at_certificate.exists() && whose.is_met(at_certificate)? {
                    return Ok(());
                }
                let key = KeyPair::generate().context("make a key")?;
                let signed = params(name, whose, *today)?.signed_by(&key, issuer);
                let signed = signed.context("sign a certificate")?;
                files::write_secret(at_key, &key.serialize_pem())?;
                files::write(at_certificate, &signed.pem())
            }
        }
    }
}

impl For<'_> {
    /// Tells whether the certificate in a file is for all the names.
    fn is_met(&self, certificate: &Path) -> Result<bool> {
        let Self::Server(names) = self else { return Ok(true) };
        for name in *names {
            if !is_for(certificate, name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Tells whether clients take the certificate in a file for that of a host.
fn is_for(certificate: &Path, host: &str) -> Result<bool> {
    let pem = files::read(certificate)?;
    let malformed = || format!("{} is no certificate", certificate.display());
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).with_context(malformed)?;
    let parsed = ParsedCertificate::try_from(&der).with_context(malformed)?;
    // What is no name in TLS is asked for by nobody.
    let Ok(name) = ServerName::try_from(host) else { return Ok(true) };
    Ok(verify_server_name(&parsed, &name).is_ok())
}

/// An authority. But for its days it is always the same: what signs is its key.
fn authority(today: Month) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("describe an authority")?;
    params.distinguished_name.push(DnType::CommonName, "NATS of Fanfare, made for a trial");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    spans(&mut params, today, AUTHORITY_YEARS);
    Ok(params)
}

fn params(name: &str, whose: &For<'_>, today: Month) -> Result<CertificateParams> {
    let names = match whose {
        For::Server(names) => names.to_vec(),
        For::User => Vec::new(),
    };
    let mut params = CertificateParams::new(names).context("describe a certificate")?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Servers are clients of each other.
    params.extended_key_usages = match whose {
        For::Server(_) => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        For::User => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    spans(&mut params, today, YEARS);
    Ok(params)
}

/// Lets a certificate begin before this month, so that clocks may differ.
fn spans(params: &mut CertificateParams, (year, month): Month, years: i32) {
    params.not_before = match month {
        1 => date_time_ymd(year - 1, 12, 1),
        month => date_time_ymd(year, month - 1, 1),
    };
    params.not_after = match month {
        12 => date_time_ymd(year + years + 1, 1, 28),
        month => date_time_ymd(year + years, month + 1, 28),
    };
}

fn month(now: Timestamp) -> Option<Month> {
    let text = now.to_string();
    let mut parts = text.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_read_from_a_time() {
        assert_eq!(month(Timestamp::from_millis(1_700_000_000_000)), Some((2023, 11)));
    }

    #[test]
    fn a_server_that_has_moved_gets_another_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let (home, given) = (directory.path().join("home"), directory.path().join("given"));
        files::directory(&home).unwrap();
        files::directory(&given).unwrap();
        let now = Timestamp::from_millis(1_700_000_000_000);
        let source = Source::open(directory.path(), None, now).unwrap();
        let put = |source: &Source, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| String::from(*name)).collect();
            source.put("n", &For::Server(&names), &home)?;
            files::read(&home.join(KEY))
        };
        let is_for = |host| is_for(&home.join(CERTIFICATE), host).unwrap();
        let first = put(&source, &["10.0.0.1", "n", "localhost"]).unwrap();
        assert!(is_for("10.0.0.1") && is_for("localhost") && !is_for("nats.example.com"));
        assert_eq!(put(&source, &["10.0.0.1", "n", "localhost"]).unwrap(), first);
        let second = put(&source, &["nats.example.com", "n", "localhost"]).unwrap();
        assert!(second != first, "it is for another name");
        assert!(is_for("nats.example.com") && !is_for("10.0.0.1"));

        // What somebody else has made is not made again, but refused.
        for (from, to) in [(CERTIFICATE, "n.pem"), (KEY, "n.key"), (AUTHORITY, AUTHORITY)] {
            files::copy(&home.join(from), &given.join(to), false).unwrap();
        }
        let theirs = Source::open(directory.path(), Some(&given), now).unwrap();
        assert_eq!(put(&theirs, &["nats.example.com", "n"]).unwrap(), second);
        let refused = put(&theirs, &["10.0.0.1", "n"]).unwrap_err().to_string();
        assert!(refused.ends_with("n.pem is not for 10.0.0.1, where others reach n"), "{refused}");
    }

    #[test]
    fn an_authority_is_kept_and_signs_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = directory.path().join(name);
            files::directory(&path).unwrap();
            path
        };
        let now = Timestamp::from_millis(1_700_000_000_000);
        let source = Source::open(directory.path(), None, now).unwrap();
        source.put("one", &For::User, &at("one")).unwrap();
        let authority = files::read(&at("one").join(AUTHORITY)).unwrap();
        let key = files::read(&at("one").join(KEY)).unwrap();
        let source = Source::open(directory.path(), None, now).unwrap();
        source.put("one", &For::User, &at("one")).unwrap();
        assert_eq!(files::read(&at("one").join(KEY)).unwrap(), key);
        source.put("n", &For::Server(&[String::from("127.0.0.1")]), &at("two")).unwrap();
        assert_eq!(files::read(&at("two").join(AUTHORITY)).unwrap(), authority);
        let given = Source::open(directory.path(), Some(&at("none")), now);
        assert!(given.is_err(), "nothing is there");
    }
}
