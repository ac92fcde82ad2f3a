//! The client through which every request to a stranger's endpoint goes.
//!
//! One call is one request: no redirect is followed, nothing is sent again, nothing is decompressed,
//! no cookie is kept and no proxy is taken from the environment. One deadline covers the look-up of
//! the name, connect, TLS, head and body. What comes of it is an [`Answer`], never an error: that an
//! endpoint does not answer is a fact to record.
//!
//! **Guarantee.** Nothing is sent to an address that the [`AddressPolicy`] does not admit. A name is
//! resolved here, and *all* its addresses are judged before one is dialled; an address in the URL is
//! judged as it stands; a connection that no call asked for is refused; and the peer's address is
//! judged again before anything of the request is sent, and when the answer is there. An address of
//! this machine is none that is admitted, unless the policy names it.
//!
//! ```text
//! send ── literal? ──▶ pool ──▶ guard (connector layer) ──▶ resolver ──▶ TCP ──▶ TLS ──▶ request
//!         judge                judge literal, or pass on     judge names
//! ```
//!
//! [`AddressPolicy`]: fanfare_domain::AddressPolicy

mod answer;
mod body;
mod client;
mod fault;
mod guard;
mod identity;
mod marks;
mod own;
mod pools;
mod resolve;
mod sessions;
mod settings;
mod tls;

pub use answer::{Answer, Failure, Head};
pub use client::{Client, ClientError, Request};
pub use guard::Wanted;
pub use identity::{Identity, Whose};
pub use settings::{Protocol, Settings};
pub use tls::TlsError;
pub use url::Url;
