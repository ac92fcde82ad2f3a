//! As whom the servers are met, and how the connection is protected.
//!
//! Secrets stand in files and nowhere else. They are read anew for each connection, so that one that
//! was replaced counts from the next connection on, without a restart.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};
use fanfare_domain::settings::Source;
use nkeys::KeyPair;

use crate::user::log_in;

/// What stands above the token of a credentials file, and above its seed.
const TOKEN_BEGINS: &str = "BEGIN NATS USER JWT";
const SEED_BEGINS: &str = "BEGIN USER NKEY SEED";

/// As whom to log in. Without any of it, as whom the URL names, or as nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// A file with NATS credentials: a token (JWT) and the seed of its nkey.
    pub credentials_file: Option<PathBuf>,
    /// A file with the seed of an nkey.
    pub nkey_file: Option<PathBuf>,
    /// The name of a user, whose password is in `password_file`.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
}

/// How the connection is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whether, and when.
    pub mode: TlsMode,
    /// The authorities that the servers' certificates have to be from (PEM); those of the system if `None`.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to the servers (PEM), and its key.
    pub certificate_file: Option<PathBuf>,
    /// The key of `certificate_file` (PEM).
    pub certificate_key_file: Option<PathBuf>,
}

/// Whether a connection is protected by TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// If the URL says so (`tls://`), or the server.
    #[default]
    Auto,
    /// In any case.
    Required,
    /// In any case, before the server says its first word (`handshake_first` there).
    First,
}

/// Text that names no such mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not auto, required or first")]
pub struct UnknownTlsMode;

/// What is to be shown to the servers cannot be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("cannot read {}, which is to let us in at NATS", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

impl Login {
    /// Takes the settings whose names begin with `prefix`.
    pub(crate) fn read(source: &mut Source, prefix: &str) -> Self {
        let login = Self {
            credentials_file: source.take_optional(&format!("{prefix}credentials_file")),
            nkey_file: source.take_optional(&format!("{prefix}nkey_file")),
            user: source.take_optional(&format!("{prefix}user")),
            password_file: source.take_optional(&format!("{prefix}password_file")),
        };
        let ways = [
            login.credentials_file.is_some(),
            login.nkey_file.is_some(),
            login.user.is_some() || login.password_file.is_some(),
        ];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            let what = "give one: credentials_file, nkey_file, or user and password_file";
            source.note(&format!("{prefix}credentials_file"), what);
        }
        match (&login.user, &login.password_file) {
            (Some(_), None) => source.note(&format!("{prefix}password_file"), "user needs it"),
            (None, Some(_)) => source.note(&format!("{prefix}user"), "password_file needs it"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        login
    }

    /// Whether anything is said.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// What is shown to a server that gives this nonce.
    fn proof(&self, nonce: &[u8]) -> Result<Auth, AccessError> {
        let mut auth = Auth::new();
        if let Some(path) = &self.credentials_file {
            let what = "a NATS credentials file";
            let malformed = || AccessError::Malformed { path: path.clone(), what };
            let text = text(path)?;
            let token = below(&text, TOKEN_BEGINS).ok_or_else(malformed)?;
            let seed = below(&text, SEED_BEGINS).ok_or_else(malformed)?;
            auth.jwt = Some(token.to_owned());
            auth.signature = Some(signed(seed, nonce).ok_or_else(malformed)?.1);
        } else if let Some(path) = &self.nkey_file {
            let text = text(path)?;
            let seed = text.lines().map(str::trim).find(|line| line.starts_with('S'));
            let signed = seed.and_then(|seed| signed(seed, nonce));
            let what = "the seed of an nkey (it begins with SU)";
            let malformed = || AccessError::Malformed { path: path.clone(), what };
            let (public, signature) = signed.ok_or_else(malformed)?;
            auth.nkey = Some(public);
            auth.signature = Some(signature);
        } else if let Some(path) = &self.password_file {
            auth.username.clone_from(&self.user);
            auth.password = Some(text(path)?.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(auth)
    }

    /// Checks that all that is named can be read.
    pub fn check(&self) -> Result<(), AccessError> {
        self.proof(b"").map(drop)
    }
}

/// Says who it is, without any secret.
impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.credentials_file, &self.nkey_file, &self.user) {
            (Some(path), _, _) => write!(f, "the user of credentials_file {}", path.display()),
            (None, Some(path), _) => write!(f, "the user of nkey_file {}", path.display()),
            (None, None, Some(user)) => write!(f, "user {user} with the password of password_file"),
            (None, None, None) => f.write_str("the user that the URL names, if any"),
        }
    }
}

impl Tls {
    /// Takes the settings.
    pub(crate) fn read(source: &mut Source) -> Self {
        let tls = Self {
            mode: source.take("tls", TlsMode::default()),
            ca_file: source.take_optional("ca_file"),
            certificate_file: source.take_optional("certificate_file"),
            certificate_key_file: source.take_optional("certificate_key_file"),
        };
        match (&tls.certificate_file, &tls.certificate_key_file) {
            (Some(_), None) => source.note("certificate_key_file", "certificate_file needs it"),
            (None, Some(_)) => source.note("certificate_file", "certificate_key_file needs it"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        tls
    }

    /// Checks that all that is named can be read, and looks like PEM.
    pub fn check(&self) -> Result<(), AccessError> {
        let files = [&self.ca_file, &self.certificate_file, &self.certificate_key_file];
        for path in files.into_iter().flatten() {
            if !text(path)?.contains("-----BEGIN ") {
                let (path, what) = (path.clone(), "a file in PEM");
                return Err(AccessError::Malformed { path, what });
            }
        }
        Ok(())
    }

    fn protect(&self, options: ConnectOptions) -> ConnectOptions {
        let mut options = match self.mode {
            TlsMode::Auto => options,
            TlsMode::Required => options.require_tls(true),
            TlsMode::First => options.require_tls(true).tls_first(),
        };
        if let Some(path) = &self.ca_file {
            options = options.add_root_certificates(path.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.certificate_file, &self.certificate_key_file)
        {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        options
    }
}

/// Begins to connect: who we are, and how the connection is protected.
pub(crate) fn begin(
    login: &Login,
    tls: &Tls,
    addresses: &[ServerAddr],
) -> Result<ConnectOptions, AccessError> {
    login.check()?;
    tls.check()?;
    let options = if login.is_given() {
        let login = login.clone();
        ConnectOptions::with_auth_callback(move |nonce| {
            std::future::ready(login.proof(&nonce).map_err(AuthError::new))
        })
    } else {
        log_in(ConnectOptions::new(), addresses)
    };
    Ok(tls.protect(options))
}

fn text(path: &Path) -> Result<String, AccessError> {
    let unreadable = |source| AccessError::Unreadable { path: path.to_owned(), source };
    fs::read_to_string(path).map_err(unreadable)
}

/// The first line below one that holds `heading`.
fn below<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.contains(heading)).skip(1);
    lines.find(|line| !line.is_empty())
}

/// The public key, and the signature.
fn signed(seed: &str, nonce: &[u8]) -> Option<(String, Vec<u8>)> {
    let pair = KeyPair::from_seed(seed).ok()?;
    Some((pair.public_key(), pair.sign(nonce).ok()?))
}

impl TlsMode {
    /// Returns the name, as it stands in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::First => "first",
        }
    }
}

impl FromStr for TlsMode {
    type Err = UnknownTlsMode;

    fn from_str(text: &str) -> Result<Self, UnknownTlsMode> {
        let all = [Self::Auto, Self::Required, Self::First];
        all.into_iter().find(|mode| mode.as_str() == text).ok_or(UnknownTlsMode)
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPairType;

    use super::*;

    fn pair() -> KeyPair {
        KeyPair::new_from_raw(KeyPairType::User, [7; 32]).unwrap()
    }

    #[test]
    fn a_nonce_is_signed_with_the_seed_that_is_in_the_file_at_that_moment() {
        let directory = std::env::temp_dir().join(format!("fanfare-login-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (nkey, credentials) = (directory.join("user.nk"), directory.join("user.creds"));
        let by_nkey = Login { nkey_file: Some(nkey.clone()), ..Login::default() };
        assert!(matches!(by_nkey.proof(b"n"), Err(AccessError::Unreadable { .. })));
        fs::write(&nkey, "no seed").unwrap();
        let refused = by_nkey.check().unwrap_err();
        assert!(matches!(refused, AccessError::Malformed { .. }));
        assert!(!refused.to_string().contains("no seed"));
        let seed = pair().seed().unwrap();
        fs::write(&nkey, format!("{seed}\n")).unwrap();
        let auth = by_nkey.proof(b"n").unwrap();
        assert_eq!(auth.nkey, Some(pair().public_key()));
        pair().verify(b"n", &auth.signature.unwrap()).unwrap();

        let text = format!(
            "-----BEGIN NATS USER JWT-----\ney.J.w\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        fs::write(&credentials, text).unwrap();
        let by_token = Login { credentials_file: Some(credentials), ..Login::default() };
        let auth = by_token.proof(b"n").unwrap();
        assert_eq!((auth.jwt.as_deref(), auth.nkey), (Some("ey.J.w"), None));
        pair().verify(b"n", &auth.signature.unwrap()).unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn one_way_to_log_in_is_enough() {
        let read = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let source = Source::new(pairs.collect(), "");
            source.load::<crate::Settings>().map_err(|mistakes| {
                mistakes.keys().into_iter().map(String::from).collect::<Vec<_>>()
            })
        };
        assert!(read(&[("nkey_file", "a")]).is_ok());
        assert!(read(&[("user", "me"), ("password_file", "a")]).is_ok());
        let both = read(&[("nkey_file", "a"), ("credentials_file", "b")]);
        assert_eq!(both.unwrap_err(), ["credentials_file"]);
        assert_eq!(read(&[("system_user", "me")]).unwrap_err(), ["system_password_file"]);
        assert_eq!(read(&[("certificate_file", "a")]).unwrap_err(), ["certificate_key_file"]);
        assert_eq!(read(&[("tls", "maybe")]).unwrap_err(), ["tls"]);
    }
}
