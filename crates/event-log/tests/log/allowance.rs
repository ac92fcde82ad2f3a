//! What is given out of a tenant's limit.

use std::time::Duration;

use anyhow::Result;
use fanfare_domain::Timestamp;
use fanfare_event_log::Portion;
use futures_util::future::try_join_all;

use crate::support::{log, server};

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
            taken.push(allowance.take(20, next).await?);
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
async fn a_limit_that_is_set_again_begins_anew_once() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let tenant = "acme".parse()?;
    let (mut ahead, mut behind) = (log.allowance(&tenant), log.allowance(&tenant));
    let first = ahead.take(20, next).await?;
    assert_eq!(first.from, Timestamp::EPOCH);
    assert_eq!(ahead.take(20, next).await?.from, first.to);
    let anew = ahead.take(21, next).await?;
    assert_eq!(anew.from, Timestamp::EPOCH);
    // Who has not heard of it yet neither undoes it nor makes it begin anew again.
    let third = behind.take(20, next).await?;
    assert_eq!(third.from, anew.to);
    assert_eq!(ahead.take(21, next).await?.from, third.to);
    let mut other = log.allowance(&"other".parse()?);
    assert_eq!(other.take(20, next).await?.from, Timestamp::EPOCH, "of another tenant");
    Ok(())
}
