//! What the API can be told.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    str::FromStr,
};

use fanfare_delivery_log::DatabaseUrl;
use fanfare_domain::{
    AddressPolicy, endpoint::RatePeriod, seal::Clear, settings::Source, url::Ports,
};

use crate::{rates::Rate, scan::BATCHES_MAX, trust::TraceTrust};

/// What the service needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub log: fanfare_event_log::Settings,
    /// Where to listen. Port 0 takes any free one: [`crate::bind_and_start`] says which.
    pub listen: SocketAddr,
    /// The file with the keys that seal and open secrets; the dispatchers need the same.
    pub sealing_key_file: PathBuf,
    /// A file with an operator's key, admitted at the start.
    pub operator_key_file: Option<PathBuf>,
    /// An operator's key, admitted at the start.
    pub operator_key: Option<Clear>,
    /// Where the delivery log is, which the projector keeps. It is only read.
    pub database: DatabaseUrl,
    /// A directory with more profiles than those built in.
    pub profiles_dir: Option<PathBuf>,
    /// Whether endpoints need HTTPS.
    pub endpoint_https: EndpointHttps,
    /// The ports that endpoints may have.
    pub endpoint_ports: Ports,
    /// The addresses that endpoints may have; the dispatchers need the same. HTTP is enough for
    /// those that it allows by name, unless HTTPS is required always.
    pub endpoint_addresses: AddressPolicy,
    /// Whose traces requests continue.
    pub trace_context: TraceTrust,
    /// How many messages of the journal one request reads at most: for tests, which have few.
    #[doc(hidden)]
    pub journal_read_max: usize,
    /// In whose name endpoints are asked whether they may be sent to.
    pub webhook_origin: Option<Origin>,
    /// How often a tenant's key may ask that has no limit of its own.
    pub tenant_key_rate: Rate,
    /// How often a portal link may ask that has no limit of its own.
    pub portal_link_rate: Rate,
    /// How often an address may show keys and tokens that let nobody in.
    pub stranger_rate: Rate,
    /// How many connections an address may have.
    pub connections_per_address: NonZeroU32,
}

/// A name of DNS for the whole installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// Text that is no name of DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name of DNS such as events.example.com")]
pub struct MalformedOrigin;

impl Origin {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = MalformedOrigin;

    fn from_str(text: &str) -> Result<Self, MalformedOrigin> {
        let label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (1..=63).contains(&label.len()) && label.bytes().all(plain)
        };
        let is_name = text.len() <= 253 && text.split('.').all(label);
        is_name.then(|| Self(String::from(text))).ok_or(MalformedOrigin)
    }
}

/// Whether endpoints need HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointHttps {
    /// Where the tenant's profile says so, but for addresses that the operator allows by name.
    #[default]
    ByProfile,
    /// Always.
    Required,
    /// Never: for trying things out, and for tests.
    Optional,
}

/// Text that does not say whether endpoints need HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of by-profile, required, optional")]
pub struct MalformedEndpointHttps;

impl FromStr for EndpointHttps {
    type Err = MalformedEndpointHttps;

    fn from_str(text: &str) -> Result<Self, MalformedEndpointHttps> {
        match text {
            "by-profile" => Ok(Self::ByProfile),
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err(MalformedEndpointHttps),
        }
    }
}

impl Settings {
    /// Every setting with its default and its reason, as TOML.
    pub const DEFAULTS: &'static str = include_str!("../../../deploy/config/api.toml");
    /// How often a tenant's key may ask, if nobody says: more is a runaway program, or for batches.
    pub const TENANT_KEY_RATE: Rate = Rate::of(at_most(1_000), RatePeriod::Second);
    /// How often a portal link may ask, if nobody says: one person, looking.
    pub const PORTAL_LINK_RATE: Rate = Rate::of(at_most(3_000), RatePeriod::Minute);
    /// How often an address may show what lets nobody in, if nobody says.
    pub const STRANGER_RATE: Rate = Rate::of(at_most(300), RatePeriod::Minute);
    /// How many connections an address may have, if nobody says: a quarter of all.
    pub const CONNECTIONS_PER_ADDRESS: NonZeroU32 = at_most(1_024);

    /// How many messages of the journal one request reads at most.
    pub const JOURNAL_READ_MAX: usize = BATCHES_MAX;
}

const fn at_most(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("the defaults are not zero")
}

impl fanfare_domain::settings::Settings for Settings {
    fn read(source: &mut Source) -> Self {
        Self {
            log: source.section("log"),
            listen: source.take("listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))),
            sealing_key_file: source
                .take("sealing_key_file", PathBuf::from("fanfare-data/sealing.key")),
            operator_key_file: source.take_optional("operator_key_file"),
            operator_key: source.take_optional("operator_key").map(Clear::new),
            database: source
                .take("database", DatabaseUrl::Sqlite(PathBuf::from("delivery-log.sqlite"))),
            profiles_dir: source.take_optional("profiles_dir"),
            endpoint_https: source.take("endpoint_https", EndpointHttps::default()),
            endpoint_ports: source.take("endpoint_ports", Ports::default()),
            endpoint_addresses: AddressPolicy {
                allow: source.take_list("allow", Vec::new()),
                deny: source.take_list("deny", Vec::new()),
            },
            trace_context: source.take("trace_context", TraceTrust::default()),
            journal_read_max: Self::JOURNAL_READ_MAX,
            webhook_origin: source.take_optional("webhook_origin"),
            tenant_key_rate: source.take("tenant_key_rate", Settings::TENANT_KEY_RATE),
            portal_link_rate: source.take("portal_link_rate", Settings::PORTAL_LINK_RATE),
            stranger_rate: source.take("stranger_rate", Settings::STRANGER_RATE),
            connections_per_address: source
                .take("connections_per_address", Settings::CONNECTIONS_PER_ADDRESS),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fanfare_service::Sources;

    use super::*;

    #[test]
    fn the_file_of_defaults_says_what_the_code_does() {
        let file = Sources::new("api", Settings::DEFAULTS).unwrap();
        let from_file: Settings = file.load().unwrap();
        let from_code: Settings = Source::new(BTreeMap::new(), "").load().unwrap();
        assert_eq!(format!("{from_file:?}"), format!("{from_code:?}"));
    }

    #[test]
    fn an_origin_is_a_name() {
        for good in ["events.example.com", "localhost", "a-1.b"] {
            assert_eq!(good.parse::<Origin>().map(|it| it.as_str().to_owned()), Ok(good.into()));
        }
        for bad in ["", "a..b", "https://a", "a b", "*", "a\r\nx: y", &"a".repeat(64)] {
            assert_eq!(bad.parse::<Origin>(), Err(MalformedOrigin), "{bad:?}");
        }
    }

    #[test]
    fn a_key_does_not_show() {
        let source = Source::from([("operator_key", "fk_hidden")]);
        let settings: Settings = source.load().unwrap();
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
