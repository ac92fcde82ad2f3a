//! `fanfare watch`: the journal as it is written, one line per fact.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::{EventId, TenantId, settings::parse_duration};
use fanfare_event_log::journal::{From, JournalBatch, JournalFilter};
use fanfare_service::{Clock as _, SystemClock};

use super::{
    connection::Nats,
    fact::{self, Interest, Line},
    nats,
    stop::Stop,
};
use crate::{
    cli::Connection,
    output::{Output, Tone},
};

/// How often the connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  fanfare watch
  fanfare watch --tenant acme --since 10m
  fanfare watch --event evt_01jd3x6y8kqz7v5m2n4p6r8t0w --since 1h --json";

/// Options of `fanfare watch`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Only what belongs to this tenant.
    #[arg(long)]
    tenant: Option<TenantId>,
    /// Only what belongs to this event.
    #[arg(long)]
    event: Option<EventId>,
    /// Begin with what happened that long ago, for example 10m; from now on if left out.
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    since: Option<Duration>,
    #[command(flatten)]
    nats: Nats,
}

/// Shows facts until it is told to stop.
pub(crate) async fn watch(options: Options, connection: &Connection, output: Output) -> Result<()> {
    let mut stop = Stop::install()?;
    let log = nats::open(&connection.nats_url(&options.nats), &options.nats).await?;
    let from = match options.since {
        Some(since) => From::Time(SystemClock.now().saturating_sub(since)),
        None => From::New,
    };
    let interest = Interest { tenant: options.tenant, event: options.event };
    let mut journal = log.journal(JournalFilter::All, from).await.context("read the journal")?;
    output.say(&output.tone(Tone::Dim, "Watching deliveries. Ctrl-C ends it."));
    let mut connected = true;
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            batch = journal.next() => {
                if !show(&batch.context("read the journal")?, &interest, output) {
                    break;
                }
            }
            _ = look.tick() => {
                if log.is_connected() != connected {
                    connected = !connected;
                    output.note(if connected { "NATS is back" } else { "NATS is gone: waiting for it" });
                }
            }
            () = stop.asked() => break,
        }
    }
    drop(journal);
    log.close().await;
    Ok(())
}

/// Shows a batch; returns whether somebody still reads.
fn show(batch: &JournalBatch, interest: &Interest, output: Output) -> bool {
    batch.facts.iter().filter(|record| interest.includes(&record.fact)).all(|record| {
        let text = if output.json {
            fact::document(record).map(|document| document.to_string())
        } else {
            Line::of(record).map(|line| line.show(output))
        };
        text.is_none_or(|text| output.offer(&text).is_continue())
    })
}
