//! How often callers may ask: each key and each portal link by a limit of its own, and each address
//! by one for what it shows that lets nobody in.
//!
//! Each process counts by itself. Whoever shows a valid key or token is never held up by what others
//! show from the same address, where a proxy may stand. What is refused here has cost a look-up in
//! memory and no question to the servers.

mod book;
mod setting;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use fanfare_domain::{
    ApiKey, KeyId, LinkId, Timestamp,
    endpoint::{RateLimit, RatePeriod},
};
use fanfare_service::{Metric, Metrics, Quiet};
use tokio::time::Instant;
use tracing::info;

use self::book::{Book, Taken};
pub(crate) use self::setting::at_once;
pub use self::setting::{MalformedRate, Rate};
use crate::{
    app::App,
    caller::bearer,
    error::{ApiError, Code},
    portal, secret_key,
    settings::Settings,
};

/// How many keys, and how many links, are counted, and how many addresses one by one. A key or link that
/// finds no room is let through.
const CALLERS_MAX: usize = 16_384;
const ADDRESSES_MAX: usize = 4_096;
/// How often it is logged of an address that it is refused.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// What lies before the first request: limits look back from it.
const BEFORE: Duration = Duration::from_hours(1);

/// What is left of the caller's limit, and the limit (draft-ietf-httpapi-ratelimit-headers-10).
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits of those who have none of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    /// Of a tenant's keys. The operator's have none.
    tenant_keys: Rate,
    /// Of portal links.
    portal_links: Rate,
    /// Of an address, for keys and tokens that let nobody in.
    strangers: Rate,
}

/// What everybody has used.
pub(crate) struct Rates {
    defaults: Defaults,
    began: Instant,
    keys: Book<KeyId>,
    links: Book<LinkId>,
    addresses: Book<IpAddr>,
    /// All addresses together that are too many to be remembered.
    crowd: Book<()>,
    told: Quiet<IpAddr>,
    refused_callers: AtomicU64,
    refused_addresses: AtomicU64,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Whose requests count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asker {
    Key(KeyId),
    Link(LinkId),
}

/// What a request shows to be let in.
enum Shown {
    /// Nothing that could be a key or a token: that is refused without a look.
    Nothing,
    /// What lets nobody in, as far as this process knows.
    Stranger,
    /// What lets somebody in, whose limit this is.
    Known(Asker, Option<RateLimit>),
}

impl Defaults {
    /// Returns what the settings say.
    pub(crate) const fn of(settings: &Settings) -> Self {
        Self {
            tenant_keys: settings.tenant_key_rate,
            portal_links: settings.portal_link_rate,
            strangers: settings.stranger_rate,
        }
    }
}

impl Rates {
    /// Nobody has asked yet.
    pub(crate) fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            began: Instant::now(),
            keys: Book::new(CALLERS_MAX),
            links: Book::new(CALLERS_MAX),
            addresses: Book::new(ADDRESSES_MAX),
            crowd: Book::new(1),
            told: Quiet::new(TELL_EVERY),
            refused_callers: AtomicU64::new(0),
            refused_addresses: AtomicU64::new(0),
        }
    }

    /// How often a key may ask.
    pub(crate) fn of_key(&self, key: &ApiKey) -> Option<RateLimit> {
        let default = key.tenant.as_ref().and(self.defaults.tenant_keys.0);
        key.rate_limit.or(default)
    }

    /// How often a portal link may ask that has no limit of its own.
    pub(crate) const fn of_links(&self) -> Option<RateLimit> {
        self.defaults.portal_links.0
    }

    /// The time by a clock that nobody sets.
    fn now(&self) -> Timestamp {
        Timestamp::EPOCH.saturating_add(BEFORE).saturating_add(self.began.elapsed())
    }
}

/// Has it read how many requests were refused.
pub(crate) fn register(metrics: &Metrics, app: App) {
    let help = "Requests refused for coming too often, by what was limited.";
    let metric = Metric::new("fanfare.api.rate_limited", "{request}", help);
    metrics.counters(metric, "limit", move |tell| {
        tell("caller", app.rates.refused_callers.load(Relaxed));
        tell("address", app.rates.refused_addresses.load(Relaxed));
    });
}

/// Refuses a limit that is wider than this one.
pub(crate) fn within(asked: &RateLimit, bound: Option<&RateLimit>) -> Result<(), ApiError> {
    let Some(bound) = bound else { return Ok(()) };
    if asked.interval() >= bound.interval() && asked.burst <= bound.burst {
        return Ok(());
    }
    let (requests, burst) = (bound.requests, bound.burst);
    let per = match bound.per {
        RatePeriod::Second => "second",
        RatePeriod::Minute => "minute",
    };
    let why = format!("only an operator can give more than {requests} a {per}, {burst} at once");
    Err(ApiError::value("rate_limit", why))
}

/// Counts a request, and lets it through if it is within the limits.
pub(crate) async fn limited(State(app): State<App>, request: Request, next: Next) -> Response {
    match shown(request.headers(), &app) {
        Shown::Nothing | Shown::Known(_, None) => next.run(request).await,
        Shown::Known(asker, Some(limit)) => {
            let (rates, now) = (&app.rates, app.rates.now());
            let taken = match asker {
                Asker::Key(key) => rates.keys.take(key, &limit, now),
                Asker::Link(link) => rates.links.take(link, &limit, now),
            };
            // Whoever can make so many of them gains nothing by it: each has a limit of its own.
            let Some(taken) = taken else { return next.run(request).await };
            let mut response = if taken.within {
                next.run(request).await
            } else {
                app.rates.refused_callers.fetch_add(1, Relaxed);
                refusal(&taken)
            };
            tell(&limit, &taken, response.headers_mut());
            response
        }
        Shown::Stranger => {
            let peer = request.extensions().get::<Peer>().copied();
            match peer.and_then(|Peer(address)| refused(&app, network(address))) {
                Some(taken) => refusal(&taken),
                None => next.run(request).await,
            }
        }
    }
}

/// Looks what a request shows up, as far as this process knows.
fn shown(headers: &HeaderMap, app: &App) -> Shown {
    let Some(text) = bearer(headers) else { return Shown::Nothing };
    let now = app.now();
    if portal::is_token(text) {
        let link = portal::read(app, text);
        let link = link.filter(|link| app.directory.read(|it| it.link_stands(link, now)));
        return link.map_or(Shown::Stranger, |link| {
            Shown::Known(Asker::Link(link.id), link.rate_limit.or(app.rates.of_links()))
        });
    }
    let hash = secret_key::hash(text);
    let key = app.directory.read(|directory| directory.key_with(&hash, now));
    key.map_or(Shown::Stranger, |key| Shown::Known(Asker::Key(key.id), app.rates.of_key(&key)))
}

/// Counts what lets nobody in; returns what is left if there was too much of it.
fn refused(app: &App, address: IpAddr) -> Option<Taken> {
    let limit = app.rates.defaults.strangers.0?;
    let (rates, now) = (&app.rates, app.rates.now());
    let taken = rates.addresses.take(address, &limit, now);
    let taken = taken.or_else(|| rates.crowd.take((), &limit, now))?;
    if taken.within {
        return None;
    }
    app.rates.refused_addresses.fetch_add(1, Relaxed);
    if app.rates.told.may_tell(address, app.now()) {
        info!(%address, "keys that are none are shown too often");
    }
    Some(taken)
}

/// Who has an IPv6 address has at least 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

fn refusal(taken: &Taken) -> Response {
    let mut response = ApiError::from(Code::RateLimited).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds(taken.next_in).into());
    response
}

/// Whole seconds, after which it is surely over.
fn seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn tell(limit: &RateLimit, taken: &Taken, headers: &mut HeaderMap) {
    let window = limit.per.length().as_secs();
    let policy = format!("\"caller\";q={};w={window}", limit.requests);
    let left = format!("\"caller\";r={};t={}", taken.left, seconds(taken.whole_in));
    for (name, value) in [(POLICY, policy), (LEFT, left)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_network_stands_for_all_of_it() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(network(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, expected) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected, "{millis}");
        }
    }

    #[test]
    fn nobody_gives_more_than_they_may() {
        let limit = |text: &str| text.parse::<Rate>().unwrap().0.unwrap();
        let may = |asked: &str, bound: &str| within(&limit(asked), Some(&limit(bound))).is_ok();
        assert!(may("10/s", "10/s") && may("1/m", "1/s") && may("60/m", "100/s"));
        assert!(!may("11/s", "10/s") && !may("61/m", "1/s"));
        assert!(!may("60/m", "10/s"), "more at once");
        assert!(within(&limit("10/s"), None).is_ok());
    }
}
