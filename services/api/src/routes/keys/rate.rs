//! How often a key or a portal link may ask.

use std::num::NonZeroU32;

use fanfare_domain::endpoint::RateLimit;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    caller::Caller,
    error::ApiError,
    rates,
    routes::endpoints::{RateLimitView, RatePeriodName},
};

/// How often a key or a portal link may ask. What is beyond is refused (429 `rate_limited`) and says
/// when to come again. Each process of the service counts by itself.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRateLimit)]
pub(crate) struct KeyRateView {
    /// How many requests.
    #[schema(minimum = 1, maximum = 10_000, example = 100)]
    requests: u32,
    /// In what time.
    per: RatePeriodName,
    /// How many may come at once after a pause; as many as in the time if left out, 1,000 at most.
    #[schema(minimum = 1, maximum = 1_000)]
    burst: Option<u32>,
}

impl KeyRateView {
    /// Checks what a caller sent.
    pub(crate) fn admit(&self) -> Result<RateLimit, ApiError> {
        let at_once = || NonZeroU32::new(self.requests).map_or(1, |it| rates::at_once(it).get());
        let burst = self.burst.unwrap_or_else(at_once);
        RateLimitView::new(self.requests, self.per, burst).admit()
    }
}

/// Returns the limit of a key that a caller makes. No tenant gets around its own by way of another key.
pub(super) fn of_new(
    app: &App,
    caller: &Caller,
    asked: Option<&KeyRateView>,
) -> Result<Option<RateLimit>, ApiError> {
    let asked = asked.map(KeyRateView::admit).transpose()?;
    if caller.is_operator() {
        return Ok(asked);
    }
    let id = caller.by_key()?;
    let own = app.directory.read(|directory| directory.key(id));
    let Some(own) = own else { return Ok(asked) };
    if let Some(asked) = &asked {
        rates::within(asked, app.rates.of_key(&own.value).as_ref())?;
    }
    Ok(asked.or(own.value.rate_limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_may_come_at_once_as_in_the_time_unless_it_is_said() {
        let admit = |text: &str| serde_json::from_str::<KeyRateView>(text).unwrap().admit();
        let burst = |text: &str| admit(text).map(|limit| limit.burst.get()).ok();
        assert_eq!(burst(r#"{"requests":20,"per":"second"}"#), Some(20));
        assert_eq!(burst(r#"{"requests":6000,"per":"minute"}"#), Some(1_000));
        assert_eq!(burst(r#"{"requests":20,"per":"second","burst":1}"#), Some(1));
        assert_eq!(burst(r#"{"requests":0,"per":"second"}"#), None);
        assert_eq!(burst(r#"{"requests":10001,"per":"second"}"#), None);
        assert_eq!(burst(r#"{"requests":20,"per":"second","burst":0}"#), None);
    }
}
