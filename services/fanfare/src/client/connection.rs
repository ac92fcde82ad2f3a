//! Where the API and NATS are: what the command line says, else what a running `fanfare up` left
//! in its data directory, else the defaults.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use fanfare_event_log::TlsMode;
use reqwest::Url;

use super::api::Api;
use crate::{cli::Connection, data_dir::DataDir};

/// Where the API is, if nothing says.
const API: &str = "http://127.0.0.1:8080";

/// Where NATS is, if nothing says.
const NATS: &str = "nats://127.0.0.1:4222";

/// Where NATS is, for commands that speak it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of NATS")]
pub(crate) struct Nats {
    /// Where NATS is [default: that of the running `fanfare up`, else `nats://127.0.0.1:4222`].
    #[arg(
        id = "nats_url",
        long = "nats-url",
        env = "FANFARE_NATS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) url: Option<String>,
    /// A file with NATS credentials (JWT and nkey).
    #[arg(
        id = "nats_credentials",
        long = "nats-credentials",
        env = "FANFARE_NATS_CREDENTIALS",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) credentials: Option<PathBuf>,
    /// A file with the seed of an nkey.
    #[arg(
        id = "nats_nkey",
        long = "nats-nkey",
        env = "FANFARE_NATS_NKEY",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) nkey: Option<PathBuf>,
    /// The name of a NATS user, whose password is in the file --nats-password-file.
    #[arg(
        id = "nats_user",
        long = "nats-user",
        env = "FANFARE_NATS_USER",
        hide_env_values = true,
        requires = "nats_password_file",
        value_name = "NAME"
    )]
    pub(crate) user: Option<String>,
    /// A file with that user's password.
    #[arg(
        id = "nats_password_file",
        long = "nats-password-file",
        env = "FANFARE_NATS_PASSWORD_FILE",
        hide_env_values = true,
        requires = "nats_user",
        value_name = "FILE"
    )]
    pub(crate) password_file: Option<PathBuf>,
    /// The authorities of the servers' certificates (PEM) [default: those of this machine].
    #[arg(
        id = "nats_ca",
        long = "nats-ca",
        env = "FANFARE_NATS_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate to show to the servers (PEM), with its key in --nats-certificate-key.
    #[arg(
        id = "nats_certificate",
        long = "nats-certificate",
        env = "FANFARE_NATS_CERTIFICATE",
        hide_env_values = true,
        requires = "nats_certificate_key",
        value_name = "FILE"
    )]
    pub(crate) certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(
        id = "nats_certificate_key",
        long = "nats-certificate-key",
        env = "FANFARE_NATS_CERTIFICATE_KEY",
        hide_env_values = true,
        requires = "nats_certificate",
        value_name = "FILE"
    )]
    pub(crate) key: Option<PathBuf>,
    /// Whether the connection is protected: auto, if the URL or the server says so; required; or
    /// first, before the server says a word.
    #[arg(
        id = "nats_tls",
        long = "nats-tls",
        env = "FANFARE_NATS_TLS",
        hide_env_values = true,
        default_value = "auto",
        value_name = "WHEN"
    )]
    pub(crate) tls: TlsMode,
    /// What the subjects begin with on which answers are received.
    #[arg(
        id = "nats_inbox",
        long = "nats-inbox",
        env = "FANFARE_NATS_INBOX",
        hide_env_values = true,
        value_name = "SUBJECT"
    )]
    pub(crate) inbox: Option<String>,
    /// What the installation's subjects begin with.
    #[arg(
        id = "nats_prefix",
        long = "nats-prefix",
        env = "FANFARE_PREFIX",
        hide_env_values = true,
        default_value = "fanfare",
        value_name = "PREFIX"
    )]
    pub(crate) prefix: String,
}

impl Nats {
    /// A NATS that asks nobody who they are.
    pub(crate) fn open() -> Self {
        Self {
            url: None,
            credentials: None,
            nkey: None,
            user: None,
            password_file: None,
            ca: None,
            certificate: None,
            key: None,
            tls: TlsMode::Auto,
            inbox: None,
            prefix: String::from("fanfare"),
        }
    }
}

impl Connection {
    /// Finds the API and the key to it. Nothing is sent.
    pub(crate) fn open_api(&self) -> Result<Api> {
        let data = DataDir::new(&self.data);
        let running = data.running().map(|running| running.api);
        let base = match (&self.api, &running) {
            (Some(named), _) => named.as_str(),
            (None, Some(running)) => running,
            (None, None) => API,
        };
        let key = match &self.key {
            Some(key) => key.clone(),
            None if running.as_deref() == Some(base) || is_this_machine(base) => {
                operator_key(&data)?
            }
            None => {
                bail!("{base} is another machine: give the API key with --key or FANFARE_API_KEY")
            }
        };
        Api::new(base, &key)
    }

    /// Finds NATS.
    pub(crate) fn nats_url(&self, nats: &Nats) -> String {
        let running = || DataDir::new(&self.data).running().map(|running| running.nats);
        nats.url.clone().or_else(running).unwrap_or_else(|| String::from(NATS))
    }
}

/// The operator's key in a data directory. It is not sent to other machines.
fn operator_key(data: &DataDir) -> Result<String> {
    let path = data.operator_key();
    let text = std::fs::read_to_string(&path).map_err(|cause| {
        anyhow!(
            "no API key: cannot read {} ({cause}): start `fanfare up`, name its data directory \
             with --data, or give a key with --key or FANFARE_API_KEY",
            path.display()
        )
    })?;
    Ok(text.trim().to_owned())
}

fn is_this_machine(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_key_stays_on_this_machine() {
        for (url, own) in [
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:8080/", true),
            ("http://10.0.0.1:8080", false),
            ("https://127.0.0.1.example.com", false),
            ("nonsense", false),
        ] {
            assert_eq!(is_this_machine(url), own, "{url}");
        }
        let connection = Connection {
            api: Some(String::from("https://fanfare.example.com")),
            key: None,
            data: PathBuf::from("nowhere"),
        };
        assert!(connection.open_api().is_err());
    }
}
