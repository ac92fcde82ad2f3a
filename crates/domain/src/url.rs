//! The URLs that a tenant may give an endpoint.
//!
//! A URL is parsed once, and what is stored, shown and dialled is that parse: two parsers that
//! disagree on a host are how a check is walked around. What the parser would silently repair
//! (control characters, backslashes, missing slashes) is refused before it is asked.

mod ports;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ::url::{Host, Url};

use crate::address::{AddressPolicy, Forbidden};

pub use ports::{MalformedPorts, Ports};

/// What the operator admits as an endpoint's URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlPolicy {
    /// Which schemes.
    pub schemes: Schemes,
    /// Which ports; an address that `addresses` allows by name needs no entry here.
    pub ports: Ports,
    /// Which addresses, where the URL has one in place of a name.
    pub addresses: AddressPolicy,
}

/// The schemes that an endpoint's URL may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schemes {
    /// `https` and `http`.
    #[default]
    HttpsAndHttp,
    /// `https` alone.
    HttpsOnly,
}

/// A URL that was admitted, in the canonical form of the URL standard.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EndpointUrl(Url);

/// Why a text is not admitted as an endpoint's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is longer than [`EndpointUrl::LENGTH_MAX`], as given or in its canonical form.
    #[error("the URL is longer than {} bytes", EndpointUrl::LENGTH_MAX)]
    TooLong,
    /// It has a character that a URL cannot have: white space, a control character, a backslash.
    #[error("the URL has a white space, a control character or a backslash")]
    Character,
    /// It does not begin with `https://` or `http://` and a host.
    #[error("the URL must begin with https:// or http:// and a host")]
    Scheme,
    /// It begins with `http://`, and only `https://` is admitted.
    #[error("the URL must begin with https://")]
    HttpsRequired,
    /// It has a user name or a password.
    #[error("the URL has a user name or a password")]
    Credentials,
    /// It has a fragment, which is never sent.
    #[error("the URL has a fragment")]
    Fragment,
    /// The host is neither a name nor an address, or the port is not a number.
    #[error("the URL has no valid host and port")]
    Host,
    /// The host is a name of this machine.
    #[error("the URL leads to this machine")]
    Localhost,
    /// The host is an address that is not admitted.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The port is not admitted.
    #[error("port {0} is not allowed")]
    Port(u16),
}

impl UrlError {
    /// Returns the stable name, as it stands in the API's answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "url_too_long",
            Self::Character => "url_character_invalid",
            Self::Scheme => "url_scheme_invalid",
            Self::HttpsRequired => "url_https_required",
            Self::Credentials => "url_credentials_forbidden",
            Self::Fragment => "url_fragment_forbidden",
            Self::Host => "url_host_invalid",
            Self::Localhost => "url_localhost_forbidden",
            Self::Forbidden(_) => "url_address_forbidden",
            Self::Port(_) => "url_port_forbidden",
        }
    }
}

impl EndpointUrl {
    /// The longest URL, in bytes.
    pub const LENGTH_MAX: usize = 2_048;

    /// Admits a URL, or says why not.
    ///
    /// Names are not resolved here: where they lead is checked each time a connection is made.
    pub fn parse(text: &str, policy: &UrlPolicy) -> Result<Self, UrlError> {
        check_text(text)?;
        let mut url = Url::parse(text).map_err(|_| UrlError::Host)?;
        if policy.schemes == Schemes::HttpsOnly && url.scheme() != "https" {
            return Err(UrlError::HttpsRequired);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials);
        }
        trim_last_dot(&mut url)?;
        check_host(&url, policy)?;
        if url.as_str().len() > Self::LENGTH_MAX {
            return Err(UrlError::TooLong);
        }
        Ok(Self(url))
    }

    /// Returns the canonical text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the parsed form.
    pub const fn as_url(&self) -> &Url {
        &self.0
    }

    /// Returns the parsed form.
    pub fn into_url(self) -> Url {
        self.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// Refuses what the parser would repair without a word.
fn check_text(text: &str) -> Result<(), UrlError> {
    if text.len() > EndpointUrl::LENGTH_MAX {
        return Err(UrlError::TooLong);
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(UrlError::Character);
    }
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    let known = ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if !known || authority.is_empty() {
        return Err(UrlError::Scheme);
    }
    if authority.contains('@') {
        return Err(UrlError::Credentials);
    }
    if text.contains('#') {
        return Err(UrlError::Fragment);
    }
    Ok(())
}

/// Makes `example.com.` the same endpoint as `example.com`.
fn trim_last_dot(url: &mut Url) -> Result<(), UrlError> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let Some(trimmed) = name.strip_suffix('.').map(String::from) else { return Ok(()) };
    url.set_host(Some(&trimmed)).map_err(|_| UrlError::Host)
}

fn check_host(url: &Url, policy: &UrlPolicy) -> Result<(), UrlError> {
    let port = url.port_or_known_default().ok_or(UrlError::Host)?;
    let address = match url.host().ok_or(UrlError::Host)? {
        Host::Ipv4(address) => Some(SocketAddr::new(IpAddr::V4(address), port)),
        Host::Ipv6(address) => Some(SocketAddr::new(IpAddr::V6(address), port)),
        Host::Domain(name) if !is_host_name(name) => return Err(UrlError::Host),
        Host::Domain(name) if is_localhost(name) => {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            policy.addresses.admit(address).map_err(|_| UrlError::Localhost)?;
            Some(address)
        }
        Host::Domain(_) => None,
    };
    let named = address.is_some_and(|address| policy.addresses.names(address));
    if let Some(address) = address {
        policy.addresses.admit(address)?;
    }
    if named || policy.ports.contains(port) { Ok(()) } else { Err(UrlError::Port(port)) }
}

/// Tells whether the name, in lower case, has the form that the DNS gives a host's.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
            })
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Tells whether a name means this machine wherever it is resolved (RFC 6761, and usual host files).
fn is_localhost(name: &str) -> bool {
    let usual = ["localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"];
    name.rsplit('.').next() == Some("localhost") || usual.contains(&name)
}

#[cfg(test)]
mod tests;
