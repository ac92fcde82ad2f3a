//! The end of the tour: one request in full, the dead letter, and where to go from here.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fanfare_event_log::topology::{Stream, Topology};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::cast::Cast;
use crate::{
    cli::{Connection, program},
    client::{
        connection::Nats,
        nats,
        receiver::Arrival,
        text::{body, thousands},
    },
    output::{Output, Tone},
    throw_away::ThrowAway,
    up::first_steps,
};

/// How long the dead letter may take to appear.
const DEAD_LETTER: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Shows one request with its signature.
pub(super) fn request(arrivals: &[(&'static str, Arrival)], cast: &Cast, output: Output) {
    let Some((name, arrival)) = arrivals.first() else { return };
    let Some(member) = cast.member(name) else { return };
    let inspected = member.inspector().inspect(arrival);
    if output.json {
        output.document(&inspected.document(arrival));
        return;
    }
    output.line(&format!("     {} {}", arrival.method, arrival.path));
    for (name, value) in inspected.headers() {
        output.line(&format!("     {} {value}", output.tone(Tone::Dim, &format!("{name}:"))));
    }
    for line in body(&arrival.body, 12) {
        output.line(&format!("     {line}"));
    }
    let (tone, verdict) = inspected.verdict();
    let verdict = output.tone(tone, &verdict);
    output.line(&format!("     signature {verdict}"));
    output.line(&format!("     (with the endpoint's secret, {})", member.secret.expose()));
}

/// Shows where the exhausted delivery is.
pub(super) async fn dead_letter(
    system: &ThrowAway,
    nats: &Nats,
    cast: &Cast,
    output: Output,
) -> Result<()> {
    let topology = Topology::new(&nats.prefix);
    let member = cast.member("broken").context("the cast has its broken member")?;
    let subject = topology.dead(&cast.tenant, member.endpoint);
    let name = topology.stream(Stream::Dead);
    let context = nats::connect(&system.running().nats).await?;
    let stream = context.get_stream_no_info(&name).await.context("open the dead letters")?;
    let deadline = Instant::now() + DEAD_LETTER;
    let message = loop {
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => break message,
            Err(_) if Instant::now() < deadline => sleep(LOOK_EVERY).await,
            Err(error) => return Err(error).context("find the dead letter"),
        }
    };
    let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
    if output.json {
        output.document(&json!({ "dead_letter": subject, "stream": name, "bytes": bytes }));
        return Ok(());
    }
    output.line(&format!("     stream {name}, subject {subject}"));
    output.line(&format!("     {} bytes: the last facts about the delivery", thousands(bytes)));
    Ok(())
}

/// Says how to go on.
pub(super) fn farewell(connection: &Connection, output: Output) {
    if output.json {
        return;
    }
    output.line(&output.tone(Tone::Strong, "Now yourself, each in a terminal of its own:"));
    output.line("");
    let program = program(&connection.data);
    let up = (format!("{program} up"), "the same system, to keep");
    output.commands(&[vec![up], first_steps(&program).to_vec()].concat());
}
