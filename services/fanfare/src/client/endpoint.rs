//! `fanfare endpoint`.

mod draft;
mod limits;
mod sample;
mod security;
mod show;
mod statistics;
mod trial;
mod update;

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use fanfare_domain::{EndpointId, TenantId, settings::parse_duration};
use serde_json::{Value, json};

pub(crate) use self::draft::Draft;
use super::{
    again::Watch,
    api::{Api, text},
};
use crate::output::{Output, Tone};

const CREATE_EXAMPLES: &str = "\
Examples:
  fanfare endpoint create acme https://example.com/webhooks
  fanfare endpoint create acme https://example.com/webhooks --types 'invoice.*,user.>'
  fanfare endpoint create acme https://example.com/webhooks --filter 'data.amount > 100'
  fanfare endpoint create acme https://example.com/webhooks --retry-delays 5s,1m,10m --timeout 5s
  fanfare endpoint create acme https://example.com/webhooks --bearer @token
  fanfare endpoint create acme https://example.com/webhooks --client-certificate us.pem --client-key us.key
  fanfare endpoint create acme https://example.com/webhooks --rate-limit 10/s --batch 50 --batch-wait 200ms";

const UPDATE_EXAMPLES: &str = "\
Examples:
  fanfare endpoint update acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --rate-limit 10/s --concurrency 4
  fanfare endpoint update acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --batch 100 --batch-wait 1s
  fanfare endpoint update acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --rate-burst 20
  fanfare endpoint update acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --batch none --filter none";

const FILTER_TEST_EXAMPLES: &str = "\
Examples:
  fanfare endpoint filter-test acme invoice.paid '{\"amount\": 150}' --filter 'data.amount > 100'
  fanfare endpoint filter-test acme invoice.paid --file invoice.json --endpoint ep_01jd3x6y8kqz7v5m2n4p6r8t0w";

const PAUSE_EXAMPLES: &str = "\
Examples:
  fanfare endpoint pause acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w --mode hold
  fanfare endpoint resume acme ep_01jd3x6y8kqz7v5m2n4p6r8t0w";

/// What can be done with endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an endpoint, and show its secret this once.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<draft::Options>),
    /// List the endpoints of a tenant.
    List {
        /// The tenant.
        tenant: TenantId,
        #[command(flatten)]
        watch: Watch,
    },
    /// Show an endpoint, and how it does at the moment.
    Get {
        #[command(flatten)]
        endpoint: Named,
        #[command(flatten)]
        watch: Watch,
    },
    /// Change an endpoint: what is not given stays as it is.
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(Box<update::Options>),
    /// Send a sample event, once, and show what the endpoint answers.
    Test(Box<sample::Options>),
    /// Try a filter on an event that is not sent: whether it matches, and why not.
    #[command(after_help = FILTER_TEST_EXAMPLES)]
    FilterTest(Box<trial::Options>),
    /// Pause an endpoint: it gets no requests until it is resumed.
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause {
        #[command(flatten)]
        endpoint: Named,
        /// What becomes of events meanwhile [default: as the tenant's profile has it].
        #[arg(long, value_enum)]
        mode: Option<PauseMode>,
    },
    /// Resume a paused endpoint: what was held is delivered.
    Resume(Named),
    /// Enable an endpoint that was disabled.
    Enable(Named),
    /// Disable an endpoint without deleting it: what is not delivered yet is cancelled.
    Disable(Named),
    /// End every delivery to an endpoint of events that were accepted until now.
    CancelDeliveries(Named),
    /// Give an endpoint a new secret, and show it this once.
    RotateSecret {
        #[command(flatten)]
        endpoint: Named,
        /// For how long requests are signed with the old secrets too.
        #[arg(long, value_parser = parse_duration, default_value = "24h", value_name = "DURATION")]
        overlap: Duration,
        /// The new secret, where the tenant's profile lets the caller choose it.
        #[arg(long)]
        secret: Option<String>,
        /// Which kind of secret is made [default: hmac].
        #[arg(
            long, value_parser = ["hmac", "ed25519"], conflicts_with = "secret", value_name = "KIND",
        )]
        secret_kind: Option<String>,
    },
    /// Ask an endpoint whether it may be sent to, where it has to allow that (`--validation`).
    Validate(Named),
    /// Show the public keys with which receivers check Ed25519 signatures (JWKS).
    PublicKeys(Named),
    /// Show an endpoint's secrets again, with a key made for it (`key create --reveals-secrets`).
    RevealSecrets {
        #[command(flatten)]
        endpoint: Named,
        /// Why: kept with who did it.
        #[arg(long)]
        reason: String,
    },
    /// Show how an endpoint did lately: deliveries, attempts, and how long these took.
    Statistics(statistics::Options),
    /// Delete an endpoint: what is not delivered yet is cancelled.
    Delete(Named),
}

/// An endpoint of a tenant.
#[derive(Args, Clone, Debug)]
pub(crate) struct Named {
    /// The tenant.
    tenant: TenantId,
    /// The endpoint's id.
    endpoint: EndpointId,
}

/// What becomes of events while an endpoint is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PauseMode {
    /// They are not delivered, also not later.
    Skip,
    /// They are delivered once it is resumed.
    Hold,
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::Create(options) => {
            let made = options.draft().create(api, &options.tenant).await?;
            show::with_secret(&made, "created", output);
        }
        Command::List { tenant, watch } => {
            let show = |found: &Value, output| {
                show::list(&tenant, found.as_array().cloned().unwrap_or_default(), output);
            };
            watch.list((api, &all(&tenant)), show, output).await?;
        }
        Command::Get { endpoint, watch } => {
            watch.one((api, &endpoint.path()), show::endpoint, output).await?;
        }
        Command::Update(options) => {
            let path = options.endpoint.path();
            let changed = if options.are_incomplete() {
                api.edit(&path, |current| Ok(options.patch(current)?)).await?
            } else {
                api.patch(&path, &options.patch(&Value::Null)?).await?
            };
            show::endpoint(&changed, output);
        }
        Command::Test(options) => sample::run(&options, api, output).await?,
        Command::FilterTest(options) => trial::run(*options, api, output).await?,
        Command::Pause { endpoint, mode } => {
            let body = mode.map_or_else(|| json!({}), |mode| json!({ "mode": mode.name() }));
            change(api, &endpoint, "pause", &body, output).await?;
        }
        Command::Resume(named) => change(api, &named, "resume", &json!({}), output).await?,
        Command::Enable(named) => change(api, &named, "enable", &json!({}), output).await?,
        Command::Disable(named) => change(api, &named, "disable", &json!({}), output).await?,
        Command::CancelDeliveries(named) => cancel_deliveries(&named, api, output).await?,
        Command::RotateSecret { endpoint, overlap, secret, secret_kind } => {
            let given = [("secret", secret), ("secret_kind", secret_kind)];
            let given = given.into_iter().filter_map(|(name, value)| Some((name, json!(value?))));
            let all = given.chain([("overlap_s", json!(overlap.as_secs()))]);
            let body =
                Value::Object(all.map(|(name, value)| (String::from(name), value)).collect());
            let path = format!("{}/rotate-secret", endpoint.path());
            show::with_secret(&api.post(&path, &body).await?, "rotated", output);
        }
        Command::Validate(named) => {
            change(api, &named, "validate", &json!({}), output).await?;
        }
        Command::PublicKeys(named) => {
            output.document(&api.get(&format!("{}/jwks.json", named.path())).await?);
        }
        Command::RevealSecrets { endpoint, reason } => {
            let path = format!("{}/reveal-secrets", endpoint.path());
            let headers = [("Fanfare-Reason", reason.as_str())];
            show::revealed(&api.post_with(&path, &json!({}), &headers).await?, output);
        }
        Command::Statistics(options) => statistics::run(&options, api, output).await?,
        Command::Delete(named) => {
            api.delete(&named.path()).await?;
            if output.json {
                output.document(&json!({ "id": named.endpoint.to_string(), "deleted": true }));
            } else {
                output.line(&format!("deleted {}", named.endpoint));
            }
        }
    }
    Ok(())
}

async fn cancel_deliveries(named: &Named, api: &Api, output: Output) -> Result<()> {
    let taken = api.post(&format!("{}/cancel-deliveries", named.path()), &json!({})).await?;
    if output.json {
        output.document(&taken);
    } else {
        let before = text(&taken, "before");
        output.line(&format!("Deliveries of events accepted before {before} end."));
    }
    Ok(())
}

async fn change(
    api: &Api,
    named: &Named,
    action: &str,
    body: &Value,
    output: Output,
) -> Result<()> {
    let changed = api.post(&format!("{}/{action}", named.path()), body).await?;
    if output.json {
        output.document(&changed);
    } else {
        let (tone, state) = show::state(&changed);
        let state = output.tone(tone, &state);
        output.line(&format!("{} is {state}", output.tone(Tone::Strong, text(&changed, "id"))));
    }
    Ok(())
}

/// The path of a tenant's endpoints.
pub(crate) fn all(tenant: &TenantId) -> String {
    format!("/v1/tenants/{tenant}/endpoints")
}

impl Named {
    fn path(&self) -> String {
        format!("{}/{}", all(&self.tenant), self.endpoint)
    }
}

impl PauseMode {
    const fn name(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Hold => "hold",
        }
    }
}
