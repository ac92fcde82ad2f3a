//! Rates as settings write them: `1000/s`, `300/m`, or `none`.

use std::{num::NonZeroU32, str::FromStr};

use fanfare_domain::endpoint::{RateLimit, RatePeriod};

/// How many requests there may be in a second or a minute, all of them at once after a pause as far
/// as that is allowed; or any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<RateLimit>);

/// Text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a rate such as 1000/s or 300/m, of 1 to {}, or none", RateLimit::REQUESTS_MAX)]
pub struct MalformedRate;

impl Rate {
    /// So many, in a second or a minute.
    pub(crate) const fn of(requests: NonZeroU32, per: RatePeriod) -> Self {
        let burst = at_once(requests);
        Self(Some(RateLimit { requests, per, burst }))
    }
}

/// How many of so many in a time may come at once, where nobody says: a caller who had to keep
/// requests apart could not make two at the same time.
pub(crate) const fn at_once(requests: NonZeroU32) -> NonZeroU32 {
    match NonZeroU32::new(RateLimit::BURST_MAX) {
        Some(most) if requests.get() > most.get() => most,
        Some(_) | None => requests,
    }
}

impl FromStr for Rate {
    type Err = MalformedRate;

    fn from_str(text: &str) -> Result<Self, MalformedRate> {
        if text == "none" {
            return Ok(Self(None));
        }
        let (requests, per) = text.split_once('/').ok_or(MalformedRate)?;
        let per = match per {
            "s" => RatePeriod::Second,
            "m" => RatePeriod::Minute,
            _ => return Err(MalformedRate),
        };
        let requests: NonZeroU32 = requests.parse().map_err(|_| MalformedRate)?;
        if requests.get() > RateLimit::REQUESTS_MAX {
            return Err(MalformedRate);
        }
        Ok(Self::of(requests, per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_time() {
        let read = |text: &str| text.parse::<Rate>();
        let shape = |limit: RateLimit| (limit.requests.get(), limit.per, limit.burst.get());
        let of = |text: &str| read(text).map(|rate| rate.0.map(shape));
        assert_eq!(of("10/s"), Ok(Some((10, RatePeriod::Second, 10))));
        assert_eq!(of("3000/m"), Ok(Some((3_000, RatePeriod::Minute, 1_000))));
        assert_eq!(of("none"), Ok(None));
        for bad in ["", "10", "0/s", "-1/s", "10001/s", "10/h", "10/s ", "None"] {
            assert_eq!(of(bad), Err(MalformedRate), "{bad}");
        }
    }
}
