//! `fanfare event`: sends events, by each of the ways that producers have, and looks at them.

mod log;
mod sender;

use std::{num::NonZeroU64, path::PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use fanfare_domain::{EventType, TenantId, settings::parse_within};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use self::sender::{Answer, NewEvent, Sender};
use super::{
    connection::Nats,
    options::{Data, Pair, map, read_data},
    stop::Stop,
    text::{count, span, thousands},
};
use crate::{
    cli::Connection,
    output::{Output, Tone},
};

const EXAMPLES: &str = "\
Examples:
  fanfare event send acme invoice.paid '{\"invoice\": 7, \"amount\": 42.50}'
  fanfare event send acme invoice.paid --file invoice.json --idempotency-key invoice-7
  cat invoice.json | fanfare event send acme invoice.paid -
  fanfare event send acme invoice.paid '{}' --via nats --repeat 10000";

const LIST_EXAMPLES: &str = "\
Examples:
  fanfare event list acme --type 'invoice.*' --since 1h
  fanfare event get acme evt_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// What can be done with events.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send an event, and say what became of it.
    #[command(after_help = EXAMPLES)]
    Send(Box<Options>),
    /// List the events of a tenant, newest first.
    #[command(after_help = LIST_EXAMPLES)]
    List(Box<log::List>),
    /// Show an event with its data.
    Get(log::Named),
}

/// Options of `fanfare event send`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Whose event it is.
    tenant: TenantId,
    /// What kind of thing happened: dot-separated words.
    #[arg(value_name = "TYPE")]
    event_type: EventType,
    /// What happened, as JSON; - reads it from standard input [default: {}].
    #[arg(id = "event_data", value_name = "DATA", conflicts_with = "file")]
    data: Option<Data>,
    /// Read the data from a file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The idempotency key: of several events with the same one, the first is taken.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// When it happened (RFC 3339) [default: when it is accepted].
    #[arg(long, value_name = "TIME")]
    occurred_at: Option<String>,
    /// Kept with the event; nothing acts on it yet.
    #[arg(long, value_name = "KEY")]
    ordering_key: Option<String>,
    /// A short fact beside the data; may be given several times.
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<Pair>,
    /// Which way it goes.
    #[arg(long, value_enum, default_value = "api")]
    via: Via,
    /// Send it that many times.
    #[arg(long, default_value = "1", hide_default_value = true, value_parser = times, value_name = "NUMBER")]
    repeat: NonZeroU64,
    #[command(flatten)]
    nats: Nats,
}

fn times(text: &str) -> Result<NonZeroU64, String> {
    parse_within(text, &(NonZeroU64::MIN..=NonZeroU64::MAX))
}

/// The ways that events go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// A POST to the API, answered once the event is stored.
    Api,
    /// A NATS request to the micro service, answered once the event is stored.
    Nats,
    /// A JetStream publish to INBOX, acknowledged once INBOX has it.
    Inbox,
}

/// What became of many events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    accepted: u64,
    duplicates: u64,
    refused: u64,
    first_refusal: Option<String>,
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, connection: &Connection, output: Output) -> Result<()> {
    match command {
        Command::Send(options) => send(*options, connection, output).await,
        Command::List(options) => log::list(&options, &connection.open_api()?, output).await,
        Command::Get(named) => log::get(&named, &connection.open_api()?, output).await,
    }
}

/// Sends the event as often as was asked for.
async fn send(options: Options, connection: &Connection, output: Output) -> Result<()> {
    let event = NewEvent {
        tenant: options.tenant,
        event_type: options.event_type,
        data: read_data(options.data, options.file)?,
        idempotency_key: options.idempotency_key,
        occurred_at: options.occurred_at,
        ordering_key: options.ordering_key,
        attributes: map(&options.attributes),
    };
    let sender = Sender::open(options.via, connection, &options.nats).await?;
    let sent = if options.repeat.get() == 1 {
        send_once(&sender, &event, output).await
    } else {
        send_often(&sender, &event, options.repeat.get(), output).await
    };
    sender.close().await;
    sent
}

async fn send_once(sender: &Sender, event: &NewEvent, output: Output) -> Result<()> {
    let answer = sender.send(event).await?;
    if output.json {
        output.document(&match &answer {
            Answer::Event { id, duplicate } => json!({ "id": id, "duplicate": duplicate }),
            Answer::Inbox { sequence } => json!({ "inbox_sequence": sequence }),
        });
        return Ok(());
    }
    match answer {
        Answer::Event { id, duplicate: false } => {
            output.line(&format!("{} {id}", output.tone(Tone::Good, "accepted")));
        }
        Answer::Event { id, duplicate: true } => output.line(&format!(
            "{} {id} (accepted before, under the same idempotency key)",
            output.tone(Tone::Warning, "duplicate"),
        )),
        Answer::Inbox { sequence } => output.line(&format!(
            "{} as number {} of INBOX; its id is made when ingest takes it",
            output.tone(Tone::Good, "stored"),
            thousands(sequence),
        )),
    }
    Ok(())
}

async fn send_often(sender: &Sender, event: &NewEvent, times: u64, output: Output) -> Result<()> {
    let mut stop = Stop::install()?;
    let mut progress = output.progress(times);
    let mut answers =
        stream::iter(0..times).map(|_| sender.send(event)).buffer_unordered(sender.in_flight_max());
    let mut tally = Tally::default();
    loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(answer) => tally.add(answer),
                None => break,
            },
            () = stop.asked() => break,
        }
        progress.step();
    }
    drop(answers);
    let seconds = progress.end();
    let rate = rate(tally.accepted + tally.duplicates, seconds);
    if output.json {
        output.document(&json!({
            "accepted": tally.accepted,
            "duplicates": tally.duplicates,
            "refused": tally.refused,
            "seconds": seconds.as_secs_f64(),
        }));
    } else {
        let accepted = count(tally.accepted, "event");
        let mut line = format!("{} {accepted}", output.tone(Tone::Good, "accepted"));
        if tally.duplicates > 0 {
            line = format!("{line}, and {} of it", count(tally.duplicates, "duplicate"));
        }
        output.line(&format!("{line} in {} ({} per second)", span(seconds), thousands(rate)));
    }
    let first = tally.first_refusal.unwrap_or_default();
    ensure!(
        tally.refused == 0,
        "{} failed, the first with: {first}",
        count(tally.refused, "event")
    );
    Ok(())
}

fn rate(events: u64, taken: std::time::Duration) -> u64 {
    let micros = taken.as_micros().max(1);
    u64::try_from(u128::from(events) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

impl Tally {
    fn add(&mut self, answer: Result<Answer>) {
        match answer {
            Ok(Answer::Event { duplicate: true, .. }) => self.duplicates += 1,
            Ok(Answer::Event { .. } | Answer::Inbox { .. }) => self.accepted += 1,
            Err(error) => {
                self.refused += 1;
                self.first_refusal.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_tally_keeps_the_first_refusal() {
        let mut tally = Tally::default();
        let event = |duplicate| Ok(Answer::Event { id: String::from("evt_1"), duplicate });
        tally.add(event(false));
        tally.add(event(true));
        tally.add(Err(anyhow::anyhow!("first")));
        tally.add(Err(anyhow::anyhow!("second")));
        let first_refusal = Some(String::from("first"));
        assert_eq!(tally, Tally { accepted: 1, duplicates: 1, refused: 2, first_refusal });
    }

    #[test]
    fn a_rate_is_per_second() {
        assert_eq!(rate(1_000, Duration::from_millis(500)), 2_000);
        assert_eq!(rate(5, Duration::ZERO), 5_000_000);
    }
}
