//! Judges the address of every connection before it is made.
//!
//! The HTTP client hides from its hooks where a connection goes: the resolver sees a name without
//! its port, and is never asked about an address; the connector layer sees nothing. So the call that
//! wants a connection says where it goes, in a task-local [`Dial`], and the layer takes that along
//! with the connection. A connection without a [`Dial`] is refused: none can escape.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use fanfare_domain::address::{AddressPolicy, Forbidden, Why};
use hyper_util::client::legacy::connect::{Connection, HttpInfo};
use tower::{BoxError, Layer, Service, ServiceExt as _};
use url::{Host, Url};

use crate::{
    marks::MARKS,
    own,
    resolve::{LookupError, Resolver},
};

tokio::task_local! {
    /// Where the connection goes that is being made.
    pub(crate) static DIAL: Dial;
    /// Whether the request is still wanted: asked again when its connection is made.
    pub(crate) static WANTED: Wanted;
}

/// Tells whether a request is still wanted.
pub type Wanted = Arc<dyn Fn() -> bool + Send + Sync>;

/// Where a connection goes.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    target: Target,
    port: u16,
}

#[derive(Clone, Debug)]
enum Target {
    /// To a name, which the resolver judges.
    Name,
    /// To an address.
    Address(IpAddr),
    /// To a name, through the proxy; the layer judges what the name is to us.
    NameByProxy(String),
    /// To the proxy itself, which is the operator's choice.
    Proxy,
}

/// Why a connection is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The address in the URL is not admitted.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// One of the addresses of the URL's name is not admitted. What is special about it is for
    /// nobody to learn who only knows the name.
    #[error("the host's name leads to an address that is not allowed")]
    NameForbidden,
    /// There is no address.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// No call has said where the connection goes.
    #[error("a connection that no request asked for")]
    Undeclared,
    /// The request is no longer wanted.
    #[error("the request was withdrawn before it was sent")]
    Withdrawn,
    /// The URL has no host or no port.
    #[error("the URL has no host and port")]
    NoHost,
}

/// Which addresses may be dialled, and how.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) resolver: Resolver,
    pub(crate) addresses: Arc<AddressPolicy>,
    pub(crate) route: Route,
}

/// Whether connections go through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Direct,
    Proxy,
}

impl Guard {
    /// Judges the URL's host if it is an address, and returns where a connection would go.
    pub(crate) fn declare(&self, url: &Url) -> Result<Dial, Refusal> {
        let port = url.port_or_known_default().ok_or(Refusal::NoHost)?;
        let target = match url.host().ok_or(Refusal::NoHost)? {
            Host::Ipv4(address) => Target::Address(address.into()),
            Host::Ipv6(address) => Target::Address(address.into()),
            Host::Domain(name) => match self.route {
                Route::Direct => Target::Name,
                Route::Proxy => Target::NameByProxy(String::from(name)),
            },
        };
        if let Target::Address(address) = target {
            self.judge(SocketAddr::new(address, port))?;
        }
        Ok(Dial { target, port })
    }

    /// Judges the address of a peer that has answered, by the rules alone: that it is none of this
    /// machine's was asked when the connection was made, which is a minute ago at most.
    pub(crate) fn answered_by(&self, peer: SocketAddr) -> Result<(), Refusal> {
        match self.route {
            Route::Direct => Ok(self.addresses.admit(peer)?),
            Route::Proxy => Ok(()),
        }
    }

    /// Judges the address of a peer, once there is a connection.
    pub(crate) fn recheck(&self, peer: SocketAddr) -> Result<(), Refusal> {
        match self.route {
            Route::Direct => Ok(self.judge(peer)?),
            Route::Proxy => Ok(()),
        }
    }

    /// Judges a connection that is about to be made, and returns what the resolver is to know.
    async fn admit(&self, dial: Dial) -> Result<Dial, Refusal> {
        match &dial.target {
            Target::Name | Target::Proxy => {}
            Target::Address(address) => {
                self.judge(SocketAddr::new(*address, dial.port))?;
            }
            Target::NameByProxy(name) => {
                let found = self.resolver.resolve(name).await?;
                self.judge_all(&found, dial.port)?;
            }
        }
        Ok(match self.route {
            Route::Direct => dial,
            Route::Proxy => Dial { target: Target::Proxy, port: dial.port },
        })
    }

    /// Judges an address. One of this machine has to be allowed by name, public or not.
    fn judge(&self, address: SocketAddr) -> Result<(), Forbidden> {
        self.addresses.admit(address)?;
        let ip = address.ip().to_canonical();
        if !self.addresses.names(address) && own::is_ours(ip) {
            return Err(Forbidden { address: ip, why: Why::Own });
        }
        Ok(())
    }

    /// Judges all addresses of a name: one that is forbidden forbids the name.
    fn judge_all(&self, found: &[IpAddr], port: u16) -> Result<(), Refusal> {
        let mut addresses = found.iter().map(|address| SocketAddr::new(*address, port));
        addresses
            .try_for_each(|address| self.judge(address))
            .map_err(|_forbidden| Refusal::NameForbidden)
    }
}

impl reqwest::dns::Resolve for Guard {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let declared = DIAL.try_with(Clone::clone);
        let marks = MARKS.try_with(Clone::clone).ok();
        let guard = self.clone();
        Box::pin(async move {
            let Dial { target, port } = declared.map_err(|_| Refusal::Undeclared)?;
            let found = guard.resolver.resolve(name.as_str()).await.map_err(Refusal::from)?;
            if let Some(marks) = marks {
                marks.resolved();
            }
            match target {
                Target::Proxy => {}
                Target::Name => {
                    guard.judge_all(&found, port)?;
                }
                Target::Address(_) | Target::NameByProxy(_) => Err(Refusal::Undeclared)?,
            }
            // Port 0 stands for the port of the URL.
            let addresses = (0..found.len())
                .filter_map(move |position| found.get(position).copied())
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as reqwest::dns::Addrs)
        })
    }
}

/// Puts the guard around a connector.
impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, connector: S) -> Guarded<S> {
        Guarded(Arc::new((connector, self.clone())))
    }
}

/// A connector that asks the guard first.
///
/// The HTTP client clones its connector several times for each request, and uses it for few: what
/// is inside is cloned when a connection is made.
#[derive(Debug)]
pub(crate) struct Guarded<S>(Arc<(S, Guard)>);

impl<S> Clone for Guarded<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, R> Service<R> for Guarded<S>
where
    S: Service<R, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Response: Connection,
    S::Future: Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let declared = DIAL.try_with(Clone::clone);
        let wanted = WANTED.try_with(Clone::clone).ok();
        let marks = MARKS.try_with(Clone::clone).ok();
        let (connector, guard) = &*self.0;
        let (connecting, guard) = (connector.clone().oneshot(request), guard.clone());
        Box::pin(async move {
            let dial = guard.admit(declared.map_err(|_| Refusal::Undeclared)?).await?;
            // The connection may outlive the call that asked for it: the pool then finishes it.
            let connecting = DIAL.scope(dial, connecting);
            let connection = match &marks {
                Some(marks) => MARKS.scope(marks.clone(), connecting).await?,
                None => connecting.await?,
            };
            if let Some(peer) = peer(&connection) {
                guard.recheck(peer)?;
            }
            if let Some(marks) = marks {
                marks.connected();
            }
            // Name, TCP and TLS can take seconds, and a request may only begin while it is wanted.
            if wanted.is_some_and(|is_wanted| !is_wanted()) {
                return Err(Refusal::Withdrawn.into());
            }
            Ok(connection)
        })
    }
}

/// Returns who is at the other end of a connection.
fn peer(connection: &impl Connection) -> Option<SocketAddr> {
    let mut extras = http::Extensions::new();
    connection.connected().get_extras(&mut extras);
    extras.get::<HttpInfo>().map(HttpInfo::remote_addr)
}

#[cfg(test)]
mod tests;
