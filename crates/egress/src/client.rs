//! Sends requests.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use fanfare_domain::{Fault, trace::span::Moments};
use http::{HeaderMap, Method};
use reqwest::{Proxy, redirect, retry};
use rustls::RootCertStore;
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::{
    Answer, Failure, Head, Identity, Protocol, Settings,
    body::LastMoment,
    fault,
    guard::{DIAL, Guard, Refusal, Route, WANTED, Wanted},
    identity::OwnPools,
    marks::{MARKS, Marks},
    own,
    pools::Pools,
    resolve::{LOOKUPS_MAX, Resolver},
    tls::{self, TlsError},
};

/// The longest deadline; a longer one is cut.
const DEADLINE_MAX: Duration = Duration::from_hours(24);
/// How much of an `HTTP/2` body may be under way to us before we have taken it, in bytes.
const HTTP2_STREAM_WINDOW: u32 = 64 << 10;
/// The same for all bodies of a connection.
const HTTP2_CONNECTION_WINDOW: u32 = 1 << 20;
/// How often a busy `HTTP/2` connection is asked whether it is alive, and how long it may think.
const HTTP2_PING: Duration = Duration::from_secs(10);

/// Sends requests to endpoints. Cheap to clone; the clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pools: Arc<Pools>,
    own: Arc<OwnPools>,
    maker: Arc<Maker>,
    guard: Guard,
    limits: Limits,
}

/// Makes clients of the library's, which have no connections yet.
#[derive(Debug)]
struct Maker {
    settings: Settings,
    guard: Guard,
    proxy: Option<Proxy>,
    /// The authorities that are trusted for all.
    roots: Arc<RootCertStore>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    timeout_connect: Duration,
    head_bytes_max: usize,
    body_bytes_max: usize,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked for: POST, mostly.
    pub method: Method,
    /// Where to. Not checked against the URL policy, only against the address policy.
    pub url: Url,
    /// All headers but `Host` and `Content-Length`; `Accept: */*` is added if there is no `Accept`.
    pub headers: HeaderMap,
    /// The body, which is not copied.
    pub body: Bytes,
    /// How long it may take until the answer's body has ended; 24 hours at most.
    pub deadline: Duration,
    /// What its endpoint has of TLS that others do not.
    pub identity: Option<Arc<Identity>>,
}

/// Why there can be no client with such settings.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS cannot be spoken as the settings want it.
    #[error("set up TLS")]
    Tls(#[from] TlsError),
    /// No name server can be asked.
    #[error("set up the look-up of names")]
    Names(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The proxy's URL is not one of a proxy.
    #[error("use the proxy")]
    Proxy(#[source] reqwest::Error),
    /// The address to send from is none of this machine.
    #[error("{address} is no address of this machine that requests could be sent from")]
    Source {
        /// The address.
        address: IpAddr,
    },
    /// The HTTP client refuses the settings.
    #[error("build the HTTP client")]
    Build(#[source] reqwest::Error),
}

/// Why a request has no answer.
enum Unanswered {
    Failed(Failure),
    Withdrawn,
}

impl Client {
    /// Makes a client. It reads the system's root certificates, which takes some milliseconds.
    pub fn new(settings: &Settings) -> Result<Self, ClientError> {
        if let Some(address) = settings.source.filter(|source| own::can_bind(*source) != Some(true))
        {
            return Err(ClientError::Source { address });
        }
        let roots = Arc::new(tls::roots(&settings.roots)?);
        let tls = tls::configure(&roots, settings.protocol)?;
        let within = settings.timeout_connect * 4 / 5;
        let resolver = Resolver::new(&settings.name_servers, within)
            .map_err(|why| ClientError::Names(why.into()))?;
        let guard = Guard {
            resolver,
            addresses: Arc::new(settings.addresses.clone()),
            route: if settings.proxy.is_some() { Route::Proxy } else { Route::Direct },
        };
        let proxy = match &settings.proxy {
            Some(proxy) => Some(Proxy::all(proxy.clone()).map_err(ClientError::Proxy)?),
            None => None,
        };
        let maker = Maker { settings: settings.clone(), guard: guard.clone(), proxy, roots };
        let maker = Arc::new(maker);
        let common = Arc::clone(&maker);
        let pools = Pools::new(settings.connection_age_max, move || common.make(tls.clone()));
        let pools = pools.map_err(ClientError::Build)?;
        let own = Arc::new(OwnPools::new(settings.connection_age_max));
        let limits = Limits {
            timeout_connect: settings.timeout_connect,
            head_bytes_max: settings.head_bytes_max as usize,
            body_bytes_max: settings.body_bytes_max,
        };
        Ok(Self { pools: Arc::new(pools), own, maker, guard, limits })
    }

    /// How many names may be looked up at once; further ones wait.
    pub const LOOKUPS_MAX: usize = LOOKUPS_MAX;

    /// Returns what tells how many names are being looked up. It keeps no connection.
    pub fn lookups(&self) -> impl Fn() -> usize + Send + Sync + 'static + use<> {
        let resolver = self.guard.resolver.clone();
        move || resolver.under_way()
    }

    /// Returns how many certificate authorities are trusted. Without any, no HTTPS endpoint is.
    pub fn roots_trusted(&self) -> usize {
        self.maker.roots.len()
    }

    /// Sends one request, and returns what came of it at the latest when its deadline is over.
    ///
    /// Not cancel safe: a request that is dropped may have been received.
    pub async fn send(&self, request: Request) -> Answer {
        let always: Wanted = Arc::new(|| true);
        let withdrawn = || Answer::failed(fault::refused(&Refusal::Withdrawn));
        self.send_while(request, always).await.unwrap_or_else(withdrawn)
    }

    /// Sends one request unless it is no longer wanted when its connection is made, which can take
    /// as long as the connect time-out, or when its first byte is to be sent; returns `None` if it
    /// was not sent for that reason.
    ///
    /// Not cancel safe: a request that is dropped may have been received.
    pub async fn send_while(&self, request: Request, wanted: Wanted) -> Option<Answer> {
        let started = Instant::now();
        let (deadline, marks) = (started + request.deadline.min(DEADLINE_MAX), Marks::new(started));
        let (mut answer, first_byte, is_read) =
            match self.exchange(request, deadline, (wanted, &marks)).await {
                Ok(response) => {
                    let first_byte = started.elapsed();
                    let (answer, is_read) = self.finish(response, deadline).await;
                    (answer, Some(first_byte), is_read)
                }
                Err(Unanswered::Failed(failure)) => (Answer::failed(failure), None, false),
                Err(Unanswered::Withdrawn) => return None,
            };
        answer.duration = started.elapsed();
        let body = is_read.then_some(answer.duration);
        answer.moments = marks.moments(first_byte, body);
        Some(answer)
    }

    /// Sends the request and waits for the head of the answer.
    async fn exchange(
        &self,
        request: Request,
        deadline: Instant,
        (wanted, marks): (Wanted, &Marks),
    ) -> Result<reqwest::Response, Unanswered> {
        let failed = Unanswered::Failed;
        let declared = self.guard.declare(&request.url);
        let dial = declared.map_err(|refusal| failed(fault::refused(&refusal)))?;
        let http = self.http(&request).map_err(failed)?;
        let mut outgoing = reqwest::Request::new(request.method, request.url);
        *outgoing.headers_mut() = request.headers;
        let body = LastMoment::new(request.body, Arc::clone(&wanted), marks.clone());
        *outgoing.body_mut() = Some(reqwest::Body::wrap(body));
        let exchange = WANTED.scope(wanted, DIAL.scope(dial, http.execute(outgoing)));
        let exchange = MARKS.scope(marks.clone(), exchange);
        match timeout_at(deadline, exchange).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) | Err(_) if marks.is_withdrawn() => Err(Unanswered::Withdrawn),
            Ok(Err(error)) if fault::is_withdrawn(&error) => Err(Unanswered::Withdrawn),
            Ok(Err(error)) => Err(failed(fault::classify(&error, self.limits.timeout_connect))),
            Err(_) => Err(failed(Failure::new(Fault::TimedOut, "no answer within the deadline"))),
        }
    }

    /// Returns the client of the library's that has the connections for a request.
    fn http(&self, request: &Request) -> Result<reqwest::Client, Failure> {
        match &request.identity {
            Some(identity) => self.own.of(identity, || {
                let (roots, protocol) = (&self.maker.roots, self.maker.settings.protocol);
                let tls = tls::configure_for(identity, roots, protocol).map_err(|_| {
                    let what = "an authority of the endpoint's own cannot be used";
                    Failure::new(Fault::RequestInvalid, what)
                })?;
                self.maker.make(tls).map_err(|_built_before| not_made())
            }),
            None => self.pools.of(&request.url).map_err(|_built_before| not_made()),
        }
    }

    /// Takes the head, and as much of the body as is kept; tells whether the body was read to its end.
    async fn finish(&self, mut response: reqwest::Response, deadline: Instant) -> (Answer, bool) {
        let remote = response.remote_addr();
        if let Some(Err(refusal)) = remote.map(|peer| self.guard.answered_by(peer)) {
            return (Answer::failed(fault::refused(&refusal)), false);
        }
        let head = Head {
            status: response.status().as_u16(),
            version: response.version(),
            headers: std::mem::take(response.headers_mut()),
        };
        if weight(&head.headers) > self.limits.head_bytes_max {
            let failure = Failure::new(Fault::ProtocolError, "the answer's head is too large");
            return (Answer { remote, ..Answer::failed(failure) }, false);
        }
        let mut body = BytesMut::new();
        let reading = read(&mut response, &mut body, self.limits.body_bytes_max);
        let dropped = timeout_at(deadline, reading).await.ok().flatten();
        let answer = Answer {
            result: Ok(head),
            body: body.freeze(),
            truncated: dropped != Some(0),
            duration: Duration::ZERO,
            remote,
            moments: Moments::default(),
        };
        (answer, dropped.is_some())
    }
}

impl Maker {
    fn make(&self, tls: rustls::ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
        let Self { settings, guard, proxy, roots: _ } = self;
        let mut builder = one_request_is_one_request()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(guard.clone()))
            .connector_layer(guard.clone())
            .connect_timeout(settings.timeout_connect)
            .pool_max_idle_per_host(settings.idle_max_per_host)
            .pool_idle_timeout(settings.idle_timeout)
            .local_address(settings.source)
            .tcp_nodelay(true)
            .http2_max_header_list_size(settings.head_bytes_max)
            .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .http2_keep_alive_interval(HTTP2_PING)
            .http2_keep_alive_timeout(HTTP2_PING);
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy.clone());
        }
        if settings.protocol == Protocol::Http2 {
            builder = builder.http2_prior_knowledge();
        }
        builder.build()
    }
}

fn not_made() -> Failure {
    Failure::new(Fault::ConnectFailed, "no connection could be made")
}

/// Turns off what would make more, or something else, of a request.
fn one_request_is_one_request() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
}

/// Reads a body into `kept`, and tells how many of its bytes were dropped; `None` if it was not read to
/// its end.
///
/// Up to `bytes_max` bytes are kept; as many again are dropped, and then it gives up.
///
/// Cancel safe: what was read is in `kept`.
async fn read(
    response: &mut reqwest::Response,
    kept: &mut BytesMut,
    bytes_max: usize,
) -> Option<usize> {
    let mut dropped = 0;
    loop {
        match response.chunk().await {
            Ok(Some(mut chunk)) => {
                let room = bytes_max - kept.len();
                kept.extend_from_slice(&chunk.split_to(room.min(chunk.len())));
                dropped += chunk.len();
                if dropped > bytes_max {
                    return None;
                }
            }
            Ok(None) => return Some(dropped),
            Err(_) => return None,
        }
    }
}

/// Returns the bytes of the names and values.
fn weight(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}
