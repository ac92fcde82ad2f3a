//! `fanfare demo`: a tour of a throw-away system, told by its journal.

mod cast;
mod ending;
mod story;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::EventId;
use fanfare_event_log::{
    JournalReader,
    journal::{From, JournalFilter},
};
use serde_json::{json, value::RawValue};
use tokio::time::{Instant, timeout};

use self::{cast::Cast, story::Story};
use super::{
    api::{Api, text},
    connection::Nats,
    fact, nats,
    stop::Stop,
    text::span,
};
use crate::{
    cli::{Connection, program},
    output::{Output, Tone},
    throw_away::ThrowAway,
};

/// The tenant of the tour.
const TENANT: &str = "demo";
/// The event of the tour.
const EVENT: &str = r#"{"type":"invoice.paid","data":{"invoice":7,"amount":42.50}}"#;
/// How long the whole story may take.
const STORY: Duration = Duration::from_mins(1);

/// Options of `fanfare demo`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The nats-server to run, instead of the one that is found or fetched.
    #[arg(long, env = "FANFARE_NATS_SERVER", hide_env_values = true, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// Leave the system running at the end, until Ctrl-C, to look around in it.
    #[arg(long)]
    stay: bool,
}

/// Gives the tour, and clears up after it.
pub(crate) async fn demo(options: Options, connection: &Connection, output: Output) -> Result<()> {
    let mut stop = Stop::install()?;
    output
        .say(&output.tone(Tone::Strong, "One event, three endpoints: what Fanfare does with it."));
    output.say("");
    let system = tokio::select! {
        system = start(&options, output) => system?,
        () = stop.asked() => return Ok(()),
    };
    let toured = tokio::select! {
        toured = Box::pin(tour(&system, output)) => toured.map(Some),
        () = stop.asked() => Ok(None),
    };
    let ended = match toured {
        Ok(Some(cast)) if options.stay => {
            stay(&system, cast, &mut stop, output).await;
            Ok(())
        }
        Ok(Some(_)) => {
            output.say("");
            ending::farewell(connection, output);
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    system.stop().await.and(ended)
}

/// Keeps the system and its receivers until the end is asked for.
async fn stay(system: &ThrowAway, mut cast: Cast, stop: &mut Stop, output: Output) {
    let program = program(system.data());
    if !output.json {
        output.say("\nThe system stays until Ctrl-C. Look around in it:\n");
        output.commands(&[
            (format!("{program} watch --tenant {TENANT} --since 1h"), "the story again"),
            (format!("{program} endpoint list {TENANT}"), "the endpoints"),
            (format!("{program} event send {TENANT} invoice.paid"), "another event"),
        ]);
    }
    tokio::select! {
        () = cast.carry_on() => {}
        () = stop.asked() => {}
    }
}

async fn start(options: &Options, output: Output) -> Result<ThrowAway> {
    let binary = crate::up::locate(options.nats_server.clone(), output).await?;
    let begun = Instant::now();
    let system = ThrowAway::start(binary.path(), "", &[]).await?;
    step(output, "A throw-away system: nats-server and all services.");
    output.say(&format!("     ready in {}", span(begun.elapsed())));
    Ok(system)
}

async fn tour(system: &ThrowAway, output: Output) -> Result<Cast> {
    let api = system.api()?;
    let mut cast = Cast::hire(&api, &TENANT.parse()?).await?;
    step(output, "Three receivers in this process, each an endpoint of the tenant demo.");
    cast.introduce(output);
    let nats = Nats::open();
    let log = nats::open(&system.running().nats, &nats).await?;
    let mut journal =
        log.journal(JournalFilter::All, From::New).await.context("read the journal")?;
    let event = send(&api, output).await?;
    step(output, "What becomes of it, from the journal:");
    let told = timeout(STORY, narrate(&mut journal, Story::new(event, cast.names()), output)).await;
    told.with_context(|| format!("the story did not end within {STORY:?}"))??;
    drop(journal);
    log.close().await;
    let arrivals = cast.arrivals().await;
    step(output, "The first request, as the receiver got it:");
    ending::request(&arrivals, &cast, output);
    step(output, "What could not be delivered is kept as a dead letter, for any NATS client:");
    ending::dead_letter(system, &nats, &cast, output).await?;
    Ok(cast)
}

/// Tells the story as the journal is written, to its end.
async fn narrate(journal: &mut JournalReader, mut story: Story, output: Output) -> Result<()> {
    while !story.is_over() {
        let batch = journal.next().await.context("read the journal")?;
        for record in &batch.facts {
            if !story.is_about(&record.fact) {
                continue;
            }
            if output.json
                && let Some(document) = fact::document(record)
            {
                output.document(&document);
            }
            if let Some(sentence) = story.tell(record) {
                output.say(&sentence.show(output));
            }
        }
    }
    Ok(())
}

async fn send(api: &Api, output: Output) -> Result<EventId> {
    let body = RawValue::from_string(String::from(EVENT)).context("write the event")?;
    let answer = api.post_raw(&format!("/v1/tenants/{TENANT}/events"), &body, &[]).await?;
    let event: EventId = text(&answer, "id").parse().context("read the event's id")?;
    step(output, "One event, sent through the API.");
    output.say(&format!("     {EVENT}"));
    output.say(&format!("     accepted as {event}"));
    if output.json {
        output.document(&json!({ "sent": event.to_string(), "tenant_id": TENANT }));
    }
    Ok(event)
}

fn step(output: Output, text: &str) {
    output.say(&format!("  {} {text}", output.tone(Tone::Accent, "▸")));
}
