//! Which URLs the endpoints of one profile may have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fanfare_domain::{
    EndpointUrl, UrlPolicy,
    url::{Schemes, UrlError},
};

/// Which URLs the endpoints of one profile may have.
#[derive(Clone, Debug)]
pub(crate) struct UrlRules {
    /// Where HTTPS is needed.
    pub(crate) https: Https,
    /// What else is needed; its schemes do not count.
    pub(crate) policy: UrlPolicy,
}

/// Where HTTPS is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Https {
    /// Everywhere.
    Always,
    /// Everywhere but at addresses that the operator allows by name.
    ButForAllowed,
    /// Nowhere.
    Never,
}

impl UrlRules {
    /// Admits a URL, or says why not.
    pub(crate) fn admit(&self, text: &str) -> Result<EndpointUrl, UrlError> {
        let parse =
            |schemes| EndpointUrl::parse(text, &UrlPolicy { schemes, ..self.policy.clone() });
        match self.https {
            Https::Never => parse(Schemes::HttpsAndHttp),
            Https::Always => parse(Schemes::HttpsOnly),
            Https::ButForAllowed => match parse(Schemes::HttpsOnly) {
                Err(UrlError::HttpsRequired) => parse(Schemes::HttpsAndHttp)
                    .ok()
                    .filter(|url| self.is_allowed(url))
                    .ok_or(UrlError::HttpsRequired),
                other => other,
            },
        }
    }

    /// Tells whether the operator allows the URL's very address. A name that was admitted and
    /// means this machine stands for its address.
    fn is_allowed(&self, url: &EndpointUrl) -> bool {
        let url = url.as_url();
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let local = host == "localhost" || host.ends_with(".localhost");
        let ip = if local { Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { bare.parse().ok() };
        let port = url.port_or_known_default().unwrap_or_default();
        ip.is_some_and(|ip| self.policy.addresses.names(SocketAddr::new(ip, port)))
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::{AddressPolicy, address::AddressRule};

    use super::*;

    fn admit(https: Https, text: &str) -> Result<(), UrlError> {
        let addresses = AddressPolicy { allow: AddressRule::LOOPBACK.to_vec(), deny: Vec::new() };
        let rules = UrlRules { https, policy: UrlPolicy { addresses, ..UrlPolicy::default() } };
        rules.admit(text).map(drop)
    }

    #[test]
    fn http_is_enough_where_the_rules_say_so() {
        let refused = Err(UrlError::HttpsRequired);
        for (url, always, but_for_allowed, never) in [
            ("https://example.com/", Ok(()), Ok(()), Ok(())),
            ("http://example.com/", refused, refused, Ok(())),
            ("http://127.0.0.1:9000/", refused, Ok(()), Ok(())),
            ("http://[::1]:9000/", refused, Ok(()), Ok(())),
            ("http://localhost:9000/", refused, Ok(()), Ok(())),
            ("http://93.184.215.14/", refused, refused, Ok(())),
        ] {
            assert_eq!(admit(Https::Always, url), always, "{url}");
            assert_eq!(admit(Https::ButForAllowed, url), but_for_allowed, "{url}");
            assert_eq!(admit(Https::Never, url), never, "{url}");
        }
    }

    #[test]
    fn other_refusals_are_told_as_they_are() {
        assert_eq!(admit(Https::ButForAllowed, "https://a@b.c/"), Err(UrlError::Credentials));
        assert!(matches!(
            admit(Https::ButForAllowed, "https://10.0.0.1/"),
            Err(UrlError::Forbidden(_))
        ));
    }
}
