//! Reports to the owner of a shard.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_domain::{Shard, fact::AttemptReport};
use fanfare_event_log::EventLog;

use crate::support::{SHARD, fact, log, server, wait_until};

const LONG: Duration = Duration::from_secs(10);

fn report(number: u8) -> AttemptReport {
    let record = fact(number);
    let delivery = record.fact.delivery().unwrap().id;
    AttemptReport { delivery, attempt: 2, records: vec![record] }
}

/// Reports until it is answered: a server may not know yet that the owner listens.
async fn told(sender: &EventLog, report: &AttemptReport) -> Result<()> {
    wait_until("it is answered", async || Ok(sender.report(SHARD, report, LONG).await)).await
}

#[tokio::test]
async fn a_report_comes_to_the_owner_of_its_shard() -> Result<()> {
    let server = server().await?;
    let (sender, owner) = (log(&server).await?, log(&server).await?);
    let nothing = AttemptReport { records: Vec::new(), ..report(2) };
    assert!(!sender.report(SHARD, &report(1), LONG).await, "there is no owner");
    let mut reports = owner.reports(SHARD).await?;
    assert!(!sender.report(Shard::from_index(2), &report(1), LONG).await, "another shard");
    for sent in [report(1), nothing] {
        let (answered, came) = tokio::join!(told(&sender, &sent), async {
            let came = reports.next().await.context("the log is open")?;
            came.receipt.give().await;
            anyhow::Ok(came.report)
        });
        answered?;
        assert_eq!(came?, sent);
    }
    Ok(())
}

#[tokio::test]
async fn facts_about_other_deliveries_are_no_report() -> Result<()> {
    let server = server().await?;
    let (sender, owner) = (log(&server).await?, log(&server).await?);
    let mut reports = owner.reports(SHARD).await?;
    let mixed = AttemptReport { records: vec![fact(1), fact(2)], ..report(1) };
    let sending = async {
        assert!(!sender.report(SHARD, &mixed, Duration::from_millis(1)).await);
        told(&sender, &report(3)).await
    };
    let (answered, came) = tokio::join!(sending, async {
        let came = reports.next().await.context("the log is open")?;
        came.receipt.give().await;
        anyhow::Ok(came.report)
    });
    answered?;
    assert_eq!(came?, report(3));
    Ok(())
}
