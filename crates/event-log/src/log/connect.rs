//! Connecting.

use std::{error::Error, io, sync::Arc, time::Duration};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr, rustls};
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::{OpenError, Settings, access, log::Link};

/// How often the connection is tried out while nothing comes: the third time without an answer
/// it counts as lost.
const PING: Duration = Duration::from_secs(2);
/// How long connecting to one address may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How many commands may be queued between us and the socket.
const QUEUE: usize = 16 * 1024;
/// How many messages one subscription may hold; more are dropped by the client.
const SUBSCRIPTION: usize = 64 * 1024;
/// How long to wait between attempts to connect for the first time.
const PAUSE: Duration = Duration::from_millis(200);

/// How often it is said that nobody answers.
const REMINDER: Duration = Duration::from_secs(5);

/// Connects, and goes on trying until the deadline while nobody answers, which it warns of at once.
pub(crate) async fn connect(
    name: &str,
    settings: &Settings,
    link: &Arc<Link>,
    deadline: Instant,
) -> Result<Client, OpenError> {
    let addresses = addresses(settings)?;
    let mut warned_at: Option<Instant> = None;
    loop {
        let options = options(name, settings, link, &addresses)?;
        let error = match options.connect(&addresses).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let (url, now) = (settings.shown_url(), Instant::now());
        if is_denial(error.kind()) {
            let who = settings.login.to_string();
            return Err(OpenError::Denied { url, who, kind: error.kind() });
        }
        if is_about_tls(&error) {
            return Err(OpenError::Tls { url, source: error });
        }
        if !may_pass(error.kind()) || now >= deadline {
            return Err(OpenError::Unreachable { url, source: error });
        }
        if warned_at.is_none_or(|at| now.duration_since(at) >= REMINDER) {
            let left = deadline.duration_since(now).as_secs();
            warn!(%error, url, "NATS cannot be reached: trying for {left} s more");
            warned_at = Some(now);
        }
        sleep(PAUSE).await;
    }
}

fn addresses(settings: &Settings) -> Result<Vec<ServerAddr>, OpenError> {
    let parsed = settings.url.split(',').map(|url| url.trim().parse());
    parsed
        .collect::<Result<_, _>>()
        .map_err(|source| OpenError::MalformedUrl { url: settings.shown_url(), source })
}

fn options(
    name: &str,
    settings: &Settings,
    link: &Arc<Link>,
    addresses: &[ServerAddr],
) -> Result<ConnectOptions, OpenError> {
    let link = Arc::clone(link);
    let options = access::begin(&settings.login, &settings.tls, addresses)?
        .name(format!("{}-{name}", settings.prefix))
        .custom_inbox_prefix(settings.inbox(name))
        .ping_interval(PING)
        .connection_timeout(CONNECT)
        .client_capacity(QUEUE)
        .subscription_capacity(SUBSCRIPTION)
        .max_reconnects(None)
        .reconnect_delay_callback(delay)
        .event_callback(move |event| {
            link.note(&event);
            std::future::ready(())
        });
    Ok(options)
}

/// How long to wait before the given attempt. Short, so that a server is found again as soon as
/// it is back; servers have few of us.
fn delay(attempt: usize) -> Duration {
    match attempt {
        0 | 1 => Duration::ZERO,
        2 => Duration::from_millis(50),
        3 => Duration::from_millis(100),
        _ => Duration::from_millis(250),
    }
}

fn is_denial(kind: ConnectErrorKind) -> bool {
    matches!(kind, ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation)
}

fn may_pass(kind: ConnectErrorKind) -> bool {
    match kind {
        ConnectErrorKind::Dns | ConnectErrorKind::TimedOut | ConnectErrorKind::Io => true,
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Authentication
        | ConnectErrorKind::AuthorizationViolation
        | ConnectErrorKind::Tls
        | ConnectErrorKind::MaxReconnects => false,
    }
}

/// Tells whether the two sides do not trust each other: waiting does not cure that.
fn is_about_tls(error: &ConnectError) -> bool {
    if error.kind() == ConnectErrorKind::Tls {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        // An I/O error says as its source what the source of its cause is, and not the cause.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if error.is::<rustls::Error>() || inner.is_some() {
            return true;
        }
        cause = error.source();
    }
    false
}
