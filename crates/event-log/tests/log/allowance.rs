//! What is given out of a tenant's limit.

use std::{num::NonZeroU32, time::Duration};

use anyhow::Result;
use fanfare_domain::{
    Timestamp,
    endpoint::{RateLimit, RatePeriod},
};
use fanfare_event_log::Portion;
use futures_util::future::try_join_all;

use crate::support::{log, server};

fn limit(requests: u32) -> RateLimit {
    let requests = NonZeroU32::new(requests).unwrap();
    RateLimit { requests, per: RatePeriod::Second, burst: NonZeroU32::MIN }
}

/// The next second of the limit.
fn next(from: Timestamp) -> Portion {
    Portion { from, to: from.saturating_add(Duration::from_secs(1)) }
}

#[tokio::test]
async fn no_portion_is_given_out_twice() -> Result<()> {
    let server = server().await?;
    let tenant = "acme".parse()?;
    let taking = (0..4).map(async |_| {
        let log = log(&server).await?;
        let mut allowance = log.allowance(&tenant);
        let mut taken = Vec::new();
        for _ in 0..10 {
            taken.push(allowance.take(&limit(20), next).await?);
        }
        anyhow::Ok(taken)
    });
    let mut taken = try_join_all(taking).await?.concat();
    taken.sort_unstable_by_key(|portion| portion.from);
    let all = std::iter::successors(Some(next(Timestamp::EPOCH)), |before| Some(next(before.to)));
    assert_eq!(taken, all.take(40).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn another_limit_begins_anew() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let mut allowance = log.allowance(&"acme".parse()?);
    let first = allowance.take(&limit(20), next).await?;
    assert_eq!(first.from, Timestamp::EPOCH);
    assert_eq!(allowance.take(&limit(20), next).await?.from, first.to);
    assert_eq!(allowance.take(&limit(10), next).await?.from, Timestamp::EPOCH);
    let mut other = log.allowance(&"other".parse()?);
    assert_eq!(other.take(&limit(20), next).await?.from, Timestamp::EPOCH, "of another tenant");
    Ok(())
}
