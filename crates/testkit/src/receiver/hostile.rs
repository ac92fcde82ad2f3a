//! Servers that misbehave in one particular way each, over real sockets.
//!
//! A way to misbehave is a [`Trick`]: a script of [`Step`]s on a connection in clear, or inside TLS.
//! [`tricks`] has all of them, each with what it does in words. No script ends by itself while the
//! other side stays, unless it says so, and floods are paced: a machine that tests run on has other
//! things to do.

mod connection;
mod frames;
mod http1;
mod http2;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Certificate, certificate::Identity};

/// How slow what is slow is: far below every deadline, so that something always comes.
pub(super) const SLOWLY: Duration = Duration::from_millis(100);

/// One way to misbehave.
#[derive(Clone, Debug)]
pub struct Trick {
    /// Its name: lower-case words with dashes.
    pub name: &'static str,
    /// What the server does.
    pub what: &'static str,
    /// How it is spoken to.
    pub cover: Cover,
    /// What it does with each connection, or inside its TLS.
    pub script: Vec<Step>,
}

/// How a hostile server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// In clear.
    Clear,
    /// By a URL that promises TLS, but the script speaks for itself.
    Bare,
    /// Inside TLS of an authority that [`Hostile::authority`] tells, offering `HTTP/1.1`.
    Http1(Certificate),
    /// The same, offering `HTTP/2`.
    Http2(Certificate),
    /// Inside TLS, of an authority that nobody is told of.
    Untold,
}

/// What a script does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads until the first bytes are there.
    Hear,
    /// Reads until these bytes have come.
    Await(&'static [u8]),
    /// Writes.
    Say(Bytes),
    /// Writes this again and again, one byte at a time, slowly, and reads meanwhile.
    Drip(Bytes),
    /// Writes this again and again, as fast as it is read, and reads meanwhile.
    Flood(Bytes),
    /// Reads, and drops what comes, until the other side closes.
    Drain,
    /// Neither reads nor writes.
    Freeze,
    /// Resets the connection. Without this, it is closed in the end.
    Reset,
}

/// A server that plays a [`Trick`]; it is gone when it is dropped.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    cover: Cover,
    authority: Option<String>,
    connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Hostile {
    /// Starts it.
    pub async fn start(trick: &Trick) -> anyhow::Result<Self> {
        let (certificate, protocols) = match trick.cover {
            Cover::Clear | Cover::Bare => (None, [].as_slice()),
            Cover::Http1(certificate) => (Some(certificate), ["http/1.1"].as_slice()),
            Cover::Http2(certificate) => (Some(certificate), ["h2"].as_slice()),
            Cover::Untold => (Some(Certificate::Valid), ["http/1.1"].as_slice()),
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a receiver")?;
        let address = listener.local_addr().context("read a receiver's address")?;
        let identity = certificate.map(|kind| Identity::make(kind, address)).transpose()?;
        let authority = identity.as_ref().map(|identity| identity.authority.clone());
        let authority = authority.filter(|_| trick.cover != Cover::Untold);
        let tls = identity.map(|identity| identity.serve(protocols, false)).transpose()?;
        let connections = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let play = (tls.map(TlsAcceptor::from), Arc::from(trick.script.as_slice()));
        tasks.spawn(accept(listener, play, Arc::clone(&connections)));
        Ok(Self { address, cover: trick.cover, authority, connections, _tasks: tasks })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of a path.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.cover == Cover::Clear { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}{path}", self.address.port())
    }

    /// Returns the certificate of its authority, in PEM, if it is to be trusted.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Returns how many connections it accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Returns every trick.
pub fn tricks() -> Vec<Trick> {
    let mut all = http1::tricks();
    all.extend(http2::tricks());
    all.extend(tls::tricks());
    all
}

/// Returns the trick of that name.
pub fn trick(name: &str) -> Option<Trick> {
    tricks().into_iter().find(|trick| trick.name == name)
}

async fn accept(
    listener: TcpListener,
    (tls, script): (Option<TlsAcceptor>, Arc<[Step]>),
    count: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    count.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(connection::play(stream, tls.clone(), Arc::clone(&script)));
                }
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
