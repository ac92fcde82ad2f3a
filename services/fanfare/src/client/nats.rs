//! NATS, for commands that speak it.
//!
//! A client has no business to make or change an installation: it attaches to one that is there.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::{ConnectOptions, jetstream};
use fanfare_event_log::{EventLog, Login, OpenError, Settings, Tls};

use super::connection::Nats;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Attaches to the log of the installation at `url`. Fails if there is none.
pub(crate) async fn open(url: &str, nats: &Nats) -> Result<EventLog> {
    EventLog::attach("client", &settings(url, nats)).await.map_err(|error| {
        if let OpenError::Unreachable { source, .. } = error {
            return anyhow::Error::new(source).context(hint(url));
        }
        anyhow::Error::new(error).context("open the event log")
    })
}

/// Connects to the NATS of a throw-away system itself, for what is not the event log's business.
pub(crate) async fn connect(url: &str) -> Result<jetstream::Context> {
    let options = ConnectOptions::new().name("fanfare-client").connection_timeout(CONNECT);
    let client = options.connect(url).await.with_context(|| hint(url))?;
    Ok(jetstream::new(client))
}

fn settings(url: &str, nats: &Nats) -> Settings {
    Settings {
        url: url.to_owned(),
        login: Login {
            credentials_file: nats.credentials.clone(),
            nkey_file: nats.nkey.clone(),
            user: nats.user.clone(),
            password_file: nats.password_file.clone(),
        },
        tls: Tls {
            mode: nats.tls,
            ca_file: nats.ca.clone(),
            certificate_file: nats.certificate.clone(),
            certificate_key_file: nats.key.clone(),
        },
        inbox_prefix: nats.inbox.clone(),
        prefix: nats.prefix.clone(),
        ..Settings::default()
    }
}

/// What to do if nobody answers at a URL, which is shown without user and password.
fn hint(url: &str) -> String {
    let shown = Settings { url: url.to_owned(), ..Settings::default() }.shown_url();
    format!("reach NATS at {shown} (is `fanfare up` running? --nats-url names another)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_nobody_answers_it_is_said_what_to_do_and_no_password() {
        let nats = Nats::open();
        // Nobody listens at port 1.
        let Err(error) = open("nats://me:secret@127.0.0.1:1", &nats).await else {
            panic!("there is nobody");
        };
        let told = format!("{error:#}");
        assert!(told.contains("reach NATS at nats://127.0.0.1:1 (is `fanfare up`"), "{told}");
        assert!(!told.contains("secret"), "{told}");
    }
}
