//! What the client can be told.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use fanfare_domain::AddressPolicy;
use url::Url;

/// What the client can be told. The default is right for the public Internet.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which addresses requests may go to.
    pub addresses: AddressPolicy,
    /// How long the look-up of a name, TCP and TLS may take together. A name gets four fifths of
    /// it, so that a slow name server and a slow endpoint can be told apart.
    pub timeout_connect: Duration,
    /// The longest head of an answer, in bytes of names and values.
    ///
    /// Over `HTTP/1.1` the parser's own limits come first: 100 headers, and 400 KiB in memory.
    pub head_bytes_max: u32,
    /// How many bytes of an answer's body are kept. Up to as many again are read and dropped, so
    /// that the connection can be used again; then it is closed.
    pub body_bytes_max: usize,
    /// Certificates to trust besides those of the system, each text in PEM.
    pub roots: Vec<String>,
    /// How many idle connections are kept for each host and port.
    pub idle_max_per_host: usize,
    /// How long an idle connection is kept. Many servers close theirs after 60 s, and a request
    /// that meets the close is lost: stay below.
    pub idle_timeout: Duration,
    /// How old the connections to a host and port may get before new ones are made for what is sent
    /// then, to where the name leads then.
    pub connection_age_max: Duration,
    /// The local address that connections are made from.
    pub source: Option<IpAddr>,
    /// A forward proxy (`http://…`) that connections are made through.
    ///
    /// It resolves names by itself: what is judged here is what this machine sees, so such a proxy
    /// should have rules of its own.
    pub proxy: Option<Url>,
    /// The name servers to ask; none for those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// Which versions of HTTP are spoken.
    pub protocol: Protocol,
}

/// Which versions of HTTP are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Over TLS what the endpoint prefers of `HTTP/2` and `HTTP/1.1`; in clear `HTTP/1.1`.
    #[default]
    Negotiated,
    /// `HTTP/2` only, also in clear.
    Http2,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            timeout_connect: Duration::from_secs(5),
            head_bytes_max: 64 << 10,
            body_bytes_max: 16 << 10,
            roots: Vec::new(),
            idle_max_per_host: 16,
            idle_timeout: Duration::from_secs(30),
            connection_age_max: Duration::from_mins(1),
            source: None,
            proxy: None,
            name_servers: Vec::new(),
            protocol: Protocol::default(),
        }
    }
}
