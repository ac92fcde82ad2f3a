//! Questions about endpoints to the owner of their shard.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_domain::{BreakerState, EndpointId, Health, Timestamp};

use crate::support::{log, server};

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_owner_of_its_shard_says_how_an_endpoint_does() -> Result<()> {
    let server = server().await?;
    let (asking, owner) = (log(&server).await?, log(&server).await?);
    let endpoint = EndpointId::from_bytes([7; 16]);
    assert_eq!(asking.health(endpoint, LONG).await, None, "there is no owner");
    let mut questions = owner.health_questions(owner.shards().of(endpoint)).await?;
    let health = Health {
        breaker: BreakerState::HalfOpen,
        since: Some(Timestamp::from_millis(1_700_000_000_123)),
        window: 3,
        in_flight: 2,
        held: 7,
        quiet_until: None,
    };
    let ask = async {
        // The server hears of the owner on another connection, a moment later perhaps.
        loop {
            if let Some(told) = asking.health(endpoint, LONG).await {
                return told;
            }
        }
    };
    let answer = async {
        let question = questions.next().await.context("the log is open")?;
        let asked = question.endpoint;
        question.answer(&health).await;
        anyhow::Ok(asked)
    };
    let both = async { tokio::join!(ask, answer) };
    let (told, asked) = tokio::time::timeout(LONG, both).await.context("no answer")?;
    assert_eq!((told, asked?), (health, endpoint));
    assert_eq!(asking.health(endpoint, Duration::from_millis(1)).await, None, "nobody answers");
    Ok(())
}
