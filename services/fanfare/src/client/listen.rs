//! `fanfare listen`: receives webhooks on this machine, and shows what arrives.

mod inspect;
mod register;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use fanfare_domain::{
    Profile, Profiles, TenantId,
    seal::Clear,
    settings::{parse_duration, parse_within},
};
use hyper::StatusCode;
use serde_json::json;

pub(crate) use self::inspect::Inspector;
use self::register::{Registered, Wanted};
use super::{
    receiver::{Plan, Receiver},
    stop::Stop,
    text::span,
};
use crate::{
    cli::{Connection, port, program},
    output::{Output, Tone},
};

const EXAMPLES: &str = "\
Examples:
  fanfare listen
  fanfare listen --tenant acme --types 'invoice.*' --fail 2
  fanfare listen --status 503 --delay 2s
  fanfare listen --profile kryptos --tenant crypto
  fanfare listen --no-register --port 3000 --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Options of `fanfare listen`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The tenant to make a temporary endpoint for; made if it is missing.
    #[arg(long, default_value = "acme")]
    tenant: TenantId,
    /// The conventions of the webhooks, if the tenant is made, or nothing is registered.
    #[arg(long, default_value = Profile::DEFAULT)]
    profile: String,
    /// Which event types to receive, with commas between.
    #[arg(long, value_delimiter = ',', default_value = ">", value_name = "PATTERNS")]
    types: Vec<String>,
    /// The port to listen at; 0 takes any free one.
    #[arg(long, default_value_t = 0, value_parser = port)]
    port: u16,
    /// The address to listen at.
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    bind: IpAddr,
    /// The URL to register, if it is not that address: of a tunnel, for example.
    #[arg(long)]
    url: Option<String>,
    /// Answer 500 to the first attempts of each delivery, that many.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_parser = attempts, value_name = "NUMBER")]
    fail: u32,
    /// Answer with this status.
    #[arg(long, default_value = "200")]
    status: StatusCode,
    /// Hold every answer back that long.
    #[arg(long, value_parser = parse_duration, default_value = "0s", hide_default_value = true, value_name = "DURATION")]
    delay: Duration,
    /// How long to wait before each retry [default: the profile's delays; with --fail 1s,2s,4s,…].
    #[arg(long, value_parser = parse_duration, value_delimiter = ',', value_name = "DURATIONS")]
    retry_delays: Option<Vec<Duration>>,
    /// Only receive: make neither tenant nor endpoint.
    #[arg(long, conflicts_with_all = ["tenant", "types", "url", "retry_delays"])]
    no_register: bool,
    /// The secret that requests are signed with; with --no-register, or where the profile lets
    /// the caller choose it.
    #[arg(long)]
    secret: Option<String>,
}

/// The longest delay of a retry while attempts are failed on purpose.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// The most retries while attempts are failed on purpose.
const RETRIES_MAX: u32 = 20;

/// Reads how many attempts are failed on purpose.
fn attempts(text: &str) -> Result<u32, String> {
    parse_within(text, &(0..=u32::MAX))
}

/// Receives until it is told to stop.
pub(crate) async fn listen(
    options: Options,
    connection: &Connection,
    output: Output,
) -> Result<()> {
    let mut stop = Stop::install()?;
    let plan = Plan { fail: options.fail, status: options.status, delay: options.delay };
    let address = SocketAddr::new(options.bind, options.port);
    if options.no_register {
        let profile = Profiles::built_in().get(&options.profile).cloned();
        let mut receiver = Receiver::bind(address, plan, profile.clone()).await?;
        let secret = options.secret.map(Clear::new);
        let inspector = Inspector::new(profile, secret);
        let local = format!("http://{}", receiver.address());
        if output.json {
            output.document(&json!({ "listening": format!("{local}/") }));
        }
        output.say(&format!("Listening at {local}. Ctrl-C ends it.\n"));
        show_arrivals(&mut receiver, &inspector, &mut stop, output).await;
        return Ok(());
    }
    let api = connection.open_api()?;
    let profile = register::profile(&api, &options.tenant, &options.profile).await?;
    let mut receiver = Receiver::bind(address, plan, profile.built_in.clone()).await?;
    let local = format!("http://{}/", receiver.address());
    let wanted = Wanted {
        tenant: options.tenant.clone(),
        url: options.url.clone().unwrap_or_else(|| local.clone()),
        types: options.types.clone(),
        secret: options.secret.clone(),
        retry_delays: options.retry_delays.clone().or_else(|| failing_delays(options.fail)),
    };
    let registered = Registered::make(&api, &wanted, &profile).await?;
    if output.json {
        output.document(&json!({
            "listening": wanted.url,
            "tenant_id": options.tenant.as_str(),
            "endpoint_id": registered.endpoint,
        }));
    } else {
        introduce(&options, &local, &wanted, &registered, output);
        let send = format!("event send {} {}", options.tenant, registered.example());
        let send = format!("{} {send}", program(&connection.data));
        output.commands(&[(send, "something to receive")]);
        output.line("\nCtrl-C deletes the endpoint.\n");
    }
    let inspector = Inspector::new(profile.built_in, Some(registered.secret.clone()));
    show_arrivals(&mut receiver, &inspector, &mut stop, output).await;
    tokio::select! {
        removed = registered.remove(&api) => removed?,
        () = stop.asked() => {}
    }
    output.say(&format!("\nDeleted the endpoint {}.", registered.endpoint));
    Ok(())
}

async fn show_arrivals(
    receiver: &mut Receiver,
    inspector: &Inspector,
    stop: &mut Stop,
    output: Output,
) {
    loop {
        let arrival = tokio::select! {
            arrival = receiver.next() => arrival,
            () = stop.asked() => return,
        };
        let Some(arrival) = arrival else { return };
        let inspected = inspector.inspect(&arrival);
        let text = if output.json {
            inspected.document(&arrival).to_string()
        } else {
            inspected.show(&arrival, output)
        };
        if output.offer(&text).is_break() {
            return;
        }
    }
}

fn introduce(
    options: &Options,
    local: &str,
    wanted: &Wanted,
    registered: &Registered,
    output: Output,
) {
    let tenant = &options.tenant;
    if registered.tenant_is_new {
        output.line(&format!("Made the tenant {tenant} ({}).", registered.profile));
    }
    output.line(
        &output.tone(Tone::Strong, &format!("Listening at {local} as an endpoint of {tenant}.")),
    );
    output.line("");
    let answers = match (options.fail, options.delay) {
        (0, Duration::ZERO) => options.status.to_string(),
        (0, delay) => format!("{} after {}", options.status, span(delay)),
        (1, _) => format!("500 to the first attempt of each delivery, then {}", options.status),
        (fail, _) => {
            format!("500 to the first {fail} attempts of each delivery, then {}", options.status)
        }
    };
    let delays = wanted.retry_delays.as_ref().map_or_else(
        || format!("as {} has them", registered.profile),
        |delays| {
            format!(
                "after {}",
                delays.iter().map(|delay| span(*delay)).collect::<Vec<_>>().join(", ")
            )
        },
    );
    output.fields(&[
        ("  endpoint", registered.endpoint.clone()),
        ("  types", options.types.join(", ")),
        ("  answers", answers),
        ("  retries", delays),
    ]);
    output.line("");
}

/// Delays for an endpoint that fails on purpose: short at first, so that one need not wait.
fn failing_delays(fail: u32) -> Option<Vec<Duration>> {
    if fail == 0 {
        return None;
    }
    let delay = |retry| Duration::from_secs(2_u64.saturating_pow(retry)).min(DELAY_MAX);
    Some((0..fail.clamp(3, RETRIES_MAX)).map(delay).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_on_purpose_is_tried_again_soon() {
        assert_eq!(failing_delays(0), None);
        let seconds = |fail| -> Vec<u64> {
            failing_delays(fail).unwrap().iter().map(Duration::as_secs).collect()
        };
        assert_eq!(seconds(1), [1, 2, 4]);
        assert_eq!(seconds(6), [1, 2, 4, 8, 16, 30]);
        assert_eq!(seconds(1_000).len(), 20);
    }
}
