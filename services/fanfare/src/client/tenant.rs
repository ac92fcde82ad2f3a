//! `fanfare tenant`.

mod expunge;
mod plan;
mod portal;

use std::num::NonZeroU32;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use fanfare_domain::{TenantId, profile::Profile};
use serde_json::{Value, json};

use super::{
    again::Watch,
    api::{Api, text},
    rate::{self, Rate, RateOptions},
    setting::{Misfit, Setting, setting},
};
use crate::output::{Output, Tone};

const CREATE_EXAMPLES: &str = "\
Examples:
  fanfare tenant create acme
  fanfare tenant create acme --name 'ACME Corp.' --profile kyberaccess
  fanfare tenant create acme --profile kyberaccess --plan starter
  fanfare tenant create acme --endpoints-max 10 --rate-limit 20/s --rate-burst 5";

const LIMIT_EXAMPLES: &str = "\
Examples:
  fanfare tenant limit acme 20/s
  fanfare tenant limit acme 100/m --rate-burst 5
  fanfare tenant limit acme none";

const RATE_HELP: &str = "How many deliveries of its events may be begun in a second or a minute, \
                         like 20/s or 100/m, or none for any number. What is beyond it waits";

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a tenant.
    #[command(
        after_help = CREATE_EXAMPLES,
        mut_arg("rate_limit", |rate| rate.help(RATE_HELP)),
        mut_arg("rate_burst", |burst| burst.requires("rate_limit")),
    )]
    Create(Box<NewOptions>),
    /// List all tenants.
    List(Watch),
    /// Show a tenant.
    Get {
        /// The tenant's id.
        tenant: TenantId,
        #[command(flatten)]
        watch: Watch,
    },
    /// Change a tenant's name or profile: what is not given stays as it is.
    Update {
        /// The tenant's id.
        tenant: TenantId,
        /// What people call it.
        #[arg(long, required_unless_present = "profile")]
        name: Option<String>,
        /// The conventions that its webhooks follow: as long as it has neither endpoints nor events.
        #[arg(long)]
        profile: Option<String>,
    },
    /// Spread the first attempts of a tenant's deliveries, those of events routed from now on.
    #[command(after_help = LIMIT_EXAMPLES)]
    Limit {
        /// The tenant's id.
        tenant: TenantId,
        #[arg(
            help = RATE_HELP,
            value_parser = setting::<Rate>,
            value_name = "RATE",
            required_unless_present = "rate_burst",
        )]
        rate_limit: Option<Setting<Rate>>,
        /// How many of those may be begun at once after a pause [default: as it was, or 1].
        #[arg(long, value_parser = rate::burst, value_name = "NUMBER")]
        rate_burst: Option<u32>,
    },
    /// Put a tenant on one of its profile's plans, or say how many endpoints it may have.
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::Options),
    /// Make a token with which a tenant's own user can use the API for some hours.
    PortalLink(portal::Options),
    /// Say what becomes of a tenant's events whose type is in no catalogue.
    UnknownEventTypes {
        /// The tenant's id.
        tenant: TenantId,
        /// What becomes of them.
        #[arg(value_enum)]
        unknown: UnknownTypes,
    },
    /// Remove everything that is kept of a tenant, for good: its events too.
    #[command(after_help = expunge::EXAMPLES)]
    Expunge(expunge::Options),
    /// Delete a tenant and its API keys; its endpoints have to be deleted before.
    Delete {
        /// The tenant's id.
        tenant: TenantId,
    },
}

/// A tenant to be made.
#[derive(Debug, Args)]
pub(crate) struct NewOptions {
    /// The tenant's id, in every subject and path: a-z A-Z 0-9 - _
    tenant: TenantId,
    /// What people call it.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// The conventions that its webhooks follow: standard-webhooks, kryptos, killb,
    /// kyberaccess, or one of the operator's own.
    #[arg(long, default_value = Profile::DEFAULT)]
    profile: String,
    #[command(flatten)]
    rate: RateOptions,
    /// One of the profile's plans: the limits that are not given are taken from it.
    #[arg(long)]
    plan: Option<String>,
    /// How many endpoints it may have [default: the plan's, or any number].
    #[arg(long, value_name = "NUMBER")]
    endpoints_max: Option<NonZeroU32>,
    /// What becomes of its events whose type is in no catalogue.
    #[arg(long, value_enum, default_value = "allow")]
    unknown_event_types: UnknownTypes,
}

/// What becomes of events whose type is in no catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnknownTypes {
    /// They are taken.
    Allow,
    /// They are refused.
    Refuse,
}

impl UnknownTypes {
    /// What the API calls it.
    const MEMBER: &'static str = "unknown_event_types";

    fn member(self) -> Value {
        json!(match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        })
    }
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::Create(options) => make(*options, api, output).await?,
        Command::List(watch) => watch.list((api, "/v1/tenants"), list, output).await?,
        Command::Get { tenant, watch } => watch.one((api, &path(&tenant)), show, output).await?,
        Command::Update { tenant, name, profile } => {
            let given = [("name", name), ("profile", profile)].into_iter();
            let given = given.filter_map(|(member, text)| Some((member.to_owned(), text?.into())));
            let body = Value::Object(given.collect());
            show(&api.patch(&path(&tenant), &body).await?, output);
        }
        Command::Limit { tenant, rate_limit, rate_burst } => {
            let changed = limit(api, &tenant, RateOptions { rate_limit, rate_burst }).await?;
            if output.json {
                output.document(&changed);
            } else {
                let limit = rate::shown(&changed);
                let limit = if limit.is_empty() { "none" } else { &limit };
                output.line(&format!("rate limit of tenant {tenant}: {limit}"));
            }
        }
        Command::Plan(options) => plan::change(options, api, output).await?,
        Command::PortalLink(options) => portal::create(options, api, output).await?,
        Command::UnknownEventTypes { tenant, unknown } => {
            let body = json!({ (UnknownTypes::MEMBER): unknown.member() });
            let changed = api.patch(&path(&tenant), &body).await?;
            if output.json {
                output.document(&changed);
            } else {
                let shown = text(&changed, UnknownTypes::MEMBER);
                output.line(&format!("unknown event types of tenant {tenant}: {shown}"));
            }
        }
        Command::Expunge(options) => expunge::run(options, api, output).await?,
        Command::Delete { tenant } => {
            api.delete(&path(&tenant)).await?;
            if output.json {
                output.document(&json!({ "id": tenant.as_str(), "deleted": true }));
            } else {
                output.line(&format!("deleted tenant {tenant}"));
            }
        }
    }
    Ok(())
}

async fn make(options: NewOptions, api: &Api, output: Output) -> Result<()> {
    let NewOptions { tenant, name, profile, rate, plan, endpoints_max, unknown_event_types } =
        options;
    let mut body = new(&tenant, &name, &profile);
    let limit = rate.parted().onto(None)?;
    if let Some(members) = body.as_object_mut() {
        let given = [
            (UnknownTypes::MEMBER, Some(unknown_event_types.member())),
            (rate::MEMBER, limit),
            (plan::PLAN, plan.map(Value::String)),
            (plan::ENDPOINTS_MAX, endpoints_max.map(|count| json!(count))),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        members.extend(given);
    }
    let made = api.post("/v1/tenants", &body).await?;
    if output.json {
        output.document(&made);
    } else {
        let done = output.tone(Tone::Good, "created");
        output.line(&format!("{done} tenant {tenant} ({profile})"));
    }
    Ok(())
}

fn show(tenant: &Value, output: Output) {
    if output.json {
        output.document(tenant);
        return;
    }
    let names = ["id", "name", "profile", "created_at"];
    let mut fields = names.map(|name| (name, String::from(text(tenant, name)))).to_vec();
    fields.extend(plan::shown(tenant));
    fields.push(("rate limit", rate::shown(tenant)));
    fields.push(("unknown types", String::from(text(tenant, UnknownTypes::MEMBER))));
    output.fields(&fields);
}

/// Makes a tenant.
pub(crate) async fn create(
    api: &Api,
    tenant: &TenantId,
    name: &str,
    profile: &str,
) -> Result<Value> {
    api.post("/v1/tenants", &new(tenant, name, profile)).await
}

fn new(tenant: &TenantId, name: &str, profile: &str) -> Value {
    json!({ "id": tenant.as_str(), "name": name, "profile": profile })
}

/// Changes a tenant's rate limit. What is not given of it stays.
async fn limit(api: &Api, tenant: &TenantId, rate: RateOptions) -> Result<Value> {
    let path = path(tenant);
    if rate.parted().is_incomplete() {
        api.edit(&path, |current| Ok(limited(rate, current)?)).await
    } else {
        api.patch(&path, &limited(rate, &Value::Null)?).await
    }
}

fn limited(rate: RateOptions, current: &Value) -> Result<Value, Misfit> {
    let limit = rate.parted().onto(current.get(rate::MEMBER))?;
    Ok(limit.map_or_else(|| json!({}), |limit| json!({ (rate::MEMBER): limit })))
}

/// The path of a tenant.
pub(crate) fn path(tenant: &TenantId) -> String {
    format!("/v1/tenants/{tenant}")
}

fn list(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let tenants = found.as_array().map_or(&[][..], Vec::as_slice);
    if tenants.is_empty() {
        output.line("There are no tenants yet. Make one: fanfare tenant create acme");
        return;
    }
    let names = ["id", "name", "profile", "created_at"];
    let row = |tenant: &Value| names.map(|name| String::from(text(tenant, name))).to_vec();
    let rows: Vec<_> = tenants.iter().map(row).collect();
    output.table(&["tenant", "name", "profile", "created"], &rows);
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn read(words: &str) -> Result<Command, String> {
        let line = Line::command().try_get_matches_from(words.split_whitespace());
        let line = line.and_then(|matches| Line::from_arg_matches(&matches));
        line.map(|line| line.command).map_err(|error| error.to_string())
    }

    fn patch(words: &str, current: &Value) -> Result<Value, Misfit> {
        let Command::Limit { rate_limit, rate_burst, .. } = read(words).unwrap() else {
            panic!("{words} is no limit")
        };
        limited(RateOptions { rate_limit, rate_burst }, current)
    }

    #[test]
    fn a_limit_is_changed_in_part_or_removed_by_its_name() {
        let set =
            json!({ "rate_limit": { "requests": 20, "per": "second", "burst": 5 }, "name": "" });
        let rate = |requests, per, burst| {
            let limit = json!({ "requests": requests, "per": per, "burst": burst });
            json!({ "rate_limit": limit })
        };
        for (words, expected) in [
            ("x limit acme 100/minute", rate(100, "minute", 5)),
            ("x limit acme --rate-burst 7", rate(20, "second", 7)),
            ("x limit acme 1/s --rate-burst 1", rate(1, "second", 1)),
            ("x limit acme none", json!({ "rate_limit": null })),
        ] {
            assert_eq!(patch(words, &set), Ok(expected), "{words}");
        }
        let unlimited = json!({ "rate_limit": null });
        let first = json!({ "rate_limit": { "requests": 1, "per": "second" } });
        assert_eq!(patch("x limit acme 1/s", &unlimited), Ok(first));
        assert!(patch("x limit acme --rate-burst 7", &unlimited).is_err());
    }

    #[test]
    fn a_limit_that_is_not_said_is_not_guessed() {
        for (words, hint) in [
            ("x limit acme", "required arguments"),
            ("x limit acme 20", "like 10/s or 300/m"),
            ("x limit acme 20/s+5", "like 10/s or 300/m"),
            ("x limit acme 10001/s", "between 1 and 10000"),
            ("x create acme --rate-limit 0/s", "between 1 and 10000"),
            ("x create acme --rate-burst 5", "--rate-limit <RATE>"),
        ] {
            let refused = read(words).unwrap_err();
            assert!(refused.contains(hint), "{words}: {refused}");
        }
    }
}
