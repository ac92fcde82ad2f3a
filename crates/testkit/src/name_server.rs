//! A name server that says what a test tells it to.
//!
//! It answers over UDP and TCP on one port of loopback, keeps nothing, and gives no answer a time
//! to live: each look-up is a question of its own.

mod wire;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use wire::{Outcome, Question};

/// How often a port is looked for that is free for both transports.
const PORTS_TRIED: usize = 32;
/// The largest answer over UDP, in bytes; a larger one is asked for again over TCP.
const DATAGRAM_BYTES_MAX: usize = 1_200;
/// How many aliases are followed.
const ALIASES_MAX: usize = 8;
/// The largest answer over TCP, in bytes.
const MESSAGE_BYTES_MAX: usize = 65_535;

/// What is said of a name. Names that nothing is said of do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// It has these addresses.
    At(Vec<IpAddr>),
    /// Each question about it is answered with the next; after the last comes the first.
    InTurn(Vec<Self>),
    /// The first question about it is answered with the first and so on; the last repeats.
    InOrder(Vec<Self>),
    /// It stands for another name.
    Alias(String),
    /// It does not exist.
    Missing,
    /// The name server fails.
    Failure,
    /// The name server refuses.
    Refusal,
    /// There is no answer.
    Silence,
    /// The answer is cut off in the middle.
    Broken,
    /// The answer is one to another question.
    Unasked(Vec<IpAddr>),
}

/// See the module. It is gone when it is dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Zone>,
    _tasks: JoinSet<()>,
}

/// What is said, and how often each was asked for.
#[derive(Debug, Default)]
struct Zone(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    names: BTreeMap<String, Named>,
    asked: BTreeMap<(String, u16), usize>,
}

impl NameServer {
    /// Starts it.
    pub async fn start() -> Result<Self> {
        let (datagrams, listener, address) = bind().await?;
        let zone = Arc::new(Zone::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(over_udp(datagrams, Arc::clone(&zone)));
        tasks.spawn(over_tcp(listener, Arc::clone(&zone)));
        Ok(Self { address, zone, _tasks: tasks })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what is said of a name, and of all names below it that nothing else is said of.
    pub fn say(&self, name: &str, named: Named) {
        let mut said = self.zone.lock();
        said.asked.retain(|(asked, _), _| asked != name);
        said.names.insert(String::from(name), named);
    }

    /// Returns how many questions there were about a name.
    pub fn asked(&self, name: &str) -> usize {
        let said = self.zone.lock();
        said.asked.iter().filter(|((asked, _), _)| asked == name).map(|(_, count)| count).sum()
    }
}

async fn bind() -> Result<(UdpSocket, TcpListener, SocketAddr)> {
    for _ in 0..PORTS_TRIED {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind a name server")?;
        let address = listener.local_addr().context("read a name server's address")?;
        if let Ok(datagrams) = UdpSocket::bind(address).await {
            return Ok((datagrams, listener, address));
        }
    }
    anyhow::bail!("no port is free for both UDP and TCP")
}

async fn over_udp(socket: UdpSocket, zone: Arc<Zone>) {
    let mut bytes = vec![0; 4 << 10];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else { continue };
        let message = bytes.get(..length).unwrap_or_default();
        if let Some(answer) = zone.answer(message, DATAGRAM_BYTES_MAX) {
            // Whoever asked may be gone.
            socket.send_to(&answer, from).await.ok();
        }
    }
}

async fn over_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&zone)));
                }
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers until the other side has closed.
async fn connection(mut stream: TcpStream, zone: Arc<Zone>) {
    while let Ok(length) = stream.read_u16().await {
        let mut message = vec![0; usize::from(length)];
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        let Some(answer) = zone.answer(&message, MESSAGE_BYTES_MAX) else { continue };
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

impl Zone {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer to a message; `None` if there is none.
    fn answer(&self, message: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let question = Question::read(message)?;
        let mut aliases = Vec::new();
        let mut named = self.lock().ask(&question.name, question.kind);
        while let Named::Alias(to) = named {
            if aliases.len() == ALIASES_MAX {
                named = Named::Missing;
                break;
            }
            named = self.lock().ask(&to, question.kind);
            aliases.push(to);
        }
        let outcome = match named {
            Named::At(addresses) => Outcome::Addresses(addresses),
            Named::Missing | Named::Alias(_) | Named::InTurn(_) | Named::InOrder(_) => {
                Outcome::Code(3)
            }
            Named::Failure => Outcome::Code(2),
            Named::Refusal => Outcome::Code(5),
            Named::Silence => return None,
            Named::Broken => {
                let mut answer = question.answer(&aliases, &Outcome::Addresses(Vec::new()));
                answer.truncate(answer.len() / 2);
                return Some(answer);
            }
            Named::Unasked(addresses) => {
                let other = Question { written: String::from("unasked.example"), ..question };
                return Some(other.answer(&aliases, &Outcome::Addresses(addresses)));
            }
        };
        let answer = question.answer(&aliases, &outcome);
        let fits = answer.len() <= bytes_max;
        Some(if fits { answer } else { question.answer(&[], &Outcome::Truncated) })
    }
}

impl Said {
    /// Notes that a name was asked for, and returns what is said of it.
    fn ask(&mut self, name: &str, kind: u16) -> Named {
        let Some(known) = self.known(name) else { return Named::Missing };
        let count = self.asked.entry((known.clone(), kind)).or_insert(0);
        let earlier = *count;
        *count += 1;
        let named = self.names.get(&known).cloned().unwrap_or(Named::Missing);
        match &named {
            Named::InTurn(all) => all.get(earlier % all.len().max(1)).cloned(),
            Named::InOrder(all) => all.get(earlier).or(all.last()).cloned(),
            Named::At(_)
            | Named::Alias(_)
            | Named::Missing
            | Named::Failure
            | Named::Refusal
            | Named::Silence
            | Named::Broken
            | Named::Unasked(_) => Some(named),
        }
        .unwrap_or(Named::Missing)
    }

    /// Finds the name, or the closest one above it, that something is said of.
    fn known(&self, name: &str) -> Option<String> {
        let mut rest = name;
        loop {
            if self.names.contains_key(rest) {
                return Some(String::from(rest));
            }
            (_, rest) = rest.split_once('.')?;
        }
    }
}

#[cfg(test)]
mod tests;
