//! A server that does not speak HTTP, or speaks it badly.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What a [`RawReceiver`] does with each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Once the first bytes are there, it writes these and closes.
    Answer(Bytes),
    /// Once the first bytes are there, it writes the first part, and the second again and again.
    Flood(Bytes, Bytes),
    /// It neither reads nor writes.
    Hang,
    /// It closes at once.
    Close,
}

/// A TCP server on loopback that follows a script; it is gone when it is dropped.
#[derive(Debug)]
pub struct RawReceiver {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl RawReceiver {
    /// Starts it.
    pub async fn start(script: Script) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a receiver")?;
        let address = listener.local_addr().context("read a receiver's address")?;
        let connections = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, script, Arc::clone(&connections)));
        Ok(Self { address, connections, _tasks: tasks })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many connections it accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, script: Script, count: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    count.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(follow(stream, script.clone()));
                }
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Ends when the client has closed, or when nothing more can be written.
async fn follow(mut stream: TcpStream, script: Script) {
    match script {
        Script::Answer(bytes) => answer(&mut stream, &bytes).await.unwrap_or_default(),
        Script::Flood(first, again) => {
            flood(&mut stream, &first, &again).await.unwrap_or_default();
        }
        Script::Hang => std::future::pending().await,
        Script::Close => {}
    }
}

async fn answer(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut read = vec![0; 16 << 10];
    if stream.read(&mut read).await? == 0 {
        return Ok(());
    }
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    // A close with something unread would be a reset, and could overtake the answer.
    while stream.read(&mut read).await? > 0 {}
    Ok(())
}

async fn flood(stream: &mut TcpStream, first: &[u8], again: &[u8]) -> io::Result<()> {
    if stream.read(&mut [0; 1 << 10]).await? == 0 {
        return Ok(());
    }
    stream.write_all(first).await?;
    loop {
        stream.write_all(again).await?;
    }
}
