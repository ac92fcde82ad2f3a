//! A look at the streams and their readers.

use anyhow::Result;
use fanfare_event_log::Survey;

use crate::support::{event, log, outsider, server, wait_until};

#[tokio::test]
async fn a_survey_tells_how_full_streams_are_and_how_far_their_readers() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let survey = log.survey().await?;
    assert!(survey.streams.len() > 8 && survey.readers.is_empty(), "{survey:?}");
    assert!(survey.unseen.is_empty() && survey.storage.is_some(), "{survey:?}");
    for number in 0..3 {
        log.publisher().event(&event(number)).await?.stored().await?;
    }
    let mut reader = log.read_events().await?;
    let taken = reader.next_batch(1).await?;
    let caught_up = async || Ok(seen(&log.survey().await?) == Some((3, 3)));
    wait_until("the reader is seen", caught_up).await?;
    drop(taken);
    reader.stop().await;
    log.close().await;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_looked_at_leaves_the_others() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    log.publisher().event(&event(1)).await?.stored().await?;
    outsider(&server).await?.delete_stream("FANFARE_REJECTED").await?;
    let survey = log.survey().await?;
    assert_eq!(survey.unseen, ["REJECTED"]);
    let shown: Vec<_> = survey.streams.iter().map(|it| (it.stream, it.messages)).collect();
    assert!(shown.len() > 8 && shown.contains(&("EVENTS", 1)), "{shown:?}");
    assert!(survey.storage.is_some_and(|storage| storage.bytes > 0), "{survey:?}");
    log.close().await;
    Ok(())
}

/// The last sequence of EVENTS, and how many messages its reader has not settled.
fn seen(survey: &Survey) -> Option<(u64, u64)> {
    let stream = survey.streams.iter().find(|it| it.stream == "EVENTS")?;
    let reader = survey.readers.iter().find(|it| it.reader == "fan-out")?;
    Some((stream.last_sequence, reader.pending + reader.unsettled))
}
