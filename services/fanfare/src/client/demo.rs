//! `fanfare demo`: a tour of a throw-away system, told by its journal.

mod cast;
mod ending;
mod story;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use fanfare_domain::EventId;
use fanfare_event_log::journal::{From, JournalFilter};
use serde_json::{json, value::RawValue};
use tokio::time::{Instant, timeout_at};

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
        toured = Box::pin(tour(&system, output)) => toured.map(|()| true),
        () = stop.asked() => Ok(false),
    };
    if options.stay && matches!(toured, Ok(true)) {
        let program = program(system.data());
        output.say("\nThe system stays until Ctrl-C. Look around in it:\n");
        let story = format!("{program} watch --tenant {TENANT} --since 1h");
        let endpoints = format!("{program} endpoint list {TENANT}");
        if !output.json {
            output.commands(&[(story, "the story again"), (endpoints, "the endpoints")]);
        }
        stop.asked().await;
    } else if let Ok(true) = toured {
        output.say("");
        ending::farewell(connection, output);
    }
    system.stop().await.and(toured.map(drop))
}

async fn start(options: &Options, output: Output) -> Result<ThrowAway> {
    let binary = crate::up::locate(options.nats_server.clone(), output).await?;
    let begun = Instant::now();
    let system = ThrowAway::start(binary.path(), "").await?;
    step(output, "A throw-away system: nats-server and all services.");
    output.say(&format!("     ready in {}", span(begun.elapsed())));
    Ok(system)
}

async fn tour(system: &ThrowAway, output: Output) -> Result<()> {
    let api = system.api()?;
    let mut cast = Cast::hire(&api, &TENANT.parse()?).await?;
    step(output, "Three receivers in this process, each an endpoint of the tenant demo.");
    cast.introduce(output);
    let nats = Nats { url: None, credentials: None, prefix: String::from("fanfare") };
    let log = nats::open(&system.running().nats, &nats).await?;
    let mut journal =
        log.journal(JournalFilter::All, From::New).await.context("read the journal")?;
    let event = send(&api, output).await?;
    step(output, "What becomes of it, from the journal:");
    let mut story = Story::new(event, cast.names());
    let deadline = Instant::now() + STORY;
    while !story.is_over() {
        let batch = match timeout_at(deadline, journal.next()).await {
            Ok(batch) => batch.context("read the journal")?,
            Err(_) => bail!("the story did not end within {STORY:?}"),
        };
        for record in &batch.facts {
            if !story.is_about(&record.fact) {
                continue;
            }
            if output.json
                && let Some(document) = fact::document(record)
            {
                output.document(&document);
            }
            if let Some(line) = story.tell(record) {
                output.say(&line.show(output));
            }
        }
    }
    drop(journal);
    log.close().await;
    let arrivals = cast.arrivals().await;
    step(output, "The first request, as the receiver got it:");
    ending::request(&arrivals, &cast, output);
    step(output, "What could not be delivered is kept as a dead letter, for any NATS client:");
    ending::dead_letter(system, &nats, &cast, output).await?;
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
