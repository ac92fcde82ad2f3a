//! `fanfare tenant`.

use anyhow::Result;
use clap::Subcommand;
use fanfare_domain::{TenantId, profile::Profile};
use serde_json::{Value, json};

use super::api::{Api, text};
use crate::output::{Output, Tone};

const CREATE_EXAMPLES: &str = "\
Examples:
  fanfare tenant create acme
  fanfare tenant create acme --name 'ACME Corp.' --profile kyberaccess";

/// What can be done with tenants.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a tenant.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// The tenant's id, in every subject and path: a-z A-Z 0-9 - _
        tenant: TenantId,
        /// What people call it.
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// The conventions that its webhooks follow: standard-webhooks, kryptos, killb,
        /// kyberaccess, or one of the operator's own.
        #[arg(long, default_value = Profile::DEFAULT)]
        profile: String,
        /// How the first attempts of its deliveries are spread, for example 20/s or 100/m; not at
        /// all without. What is beyond it waits.
        #[arg(long, value_parser = rate, value_name = "RATE")]
        rate_limit: Option<Value>,
    },
    /// List all tenants.
    List,
    /// Show a tenant.
    Get {
        /// The tenant's id.
        tenant: TenantId,
    },
    /// Spread the first attempts of a tenant's deliveries, those of events routed from now on.
    Limit {
        /// The tenant's id.
        tenant: TenantId,
        /// The limit, for example 20/s or 100/m; any number without.
        #[arg(value_parser = rate, value_name = "RATE")]
        rate_limit: Option<Value>,
    },
    /// Delete a tenant and its API keys; its endpoints have to be deleted before.
    Delete {
        /// The tenant's id.
        tenant: TenantId,
    },
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::Create { tenant, name, profile, rate_limit } => {
            let mut body = new(&tenant, &name, &profile);
            if let (Some(limit), Some(members)) = (rate_limit, body.as_object_mut()) {
                members.insert(String::from("rate_limit"), limit);
            }
            let made = api.post("/v1/tenants", &body).await?;
            if output.json {
                output.document(&made);
            } else {
                let done = output.tone(Tone::Good, "created");
                output.line(&format!("{done} tenant {tenant} ({profile})"));
            }
        }
        Command::List => list(api, output).await?,
        Command::Get { tenant } => {
            let found = api.get(&path(&tenant)).await?;
            if output.json {
                output.document(&found);
            } else {
                let names = ["id", "name", "profile", "created_at"];
                let mut fields =
                    names.map(|name| (name, String::from(text(&found, name)))).to_vec();
                fields.push(("rate_limit", shown_rate(&found)));
                output.fields(&fields);
            }
        }
        Command::Limit { tenant, rate_limit } => {
            let patch = json!({ "rate_limit": rate_limit });
            let changed = api.patch(&path(&tenant), &patch).await?;
            if output.json {
                output.document(&changed);
            } else {
                let limit = shown_rate(&changed);
                let limit = if limit.is_empty() { "none" } else { &limit };
                output.line(&format!("rate limit of tenant {tenant}: {limit}"));
            }
        }
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

/// Reads a rate limit: a number of deliveries, `/s` or `/m`, and then maybe `+` and a burst.
fn rate(text: &str) -> Result<Value, String> {
    let malformed = || String::from("a rate is a number and /s or /m, for example 20/s or 20/s+5");
    let number = |text: &str| text.parse::<u32>().map_err(|_| malformed());
    let (rate, burst) = text.split_once('+').unwrap_or((text, "1"));
    let (requests, per) = rate.split_once('/').ok_or_else(malformed)?;
    let per = match per {
        "s" => "second",
        "m" => "minute",
        _ => return Err(malformed()),
    };
    Ok(json!({ "requests": number(requests)?, "per": per, "burst": number(burst)? }))
}

/// A rate limit as [`rate`] reads it; empty if there is none.
fn shown_rate(tenant: &Value) -> String {
    let Some(limit) = tenant.get("rate_limit").filter(|limit| limit.is_object()) else {
        return String::new();
    };
    let number = |name| limit.get(name).and_then(Value::as_u64).unwrap_or_default();
    let per = if text(limit, "per") == "minute" { "m" } else { "s" };
    match number("burst") {
        0 | 1 => format!("{}/{per}", number("requests")),
        burst => format!("{}/{per}+{burst}", number("requests")),
    }
}

/// The path of a tenant.
pub(crate) fn path(tenant: &TenantId) -> String {
    format!("/v1/tenants/{tenant}")
}

async fn list(api: &Api, output: Output) -> Result<()> {
    let tenants = api.list("/v1/tenants").await?;
    if output.json {
        output.document(&Value::Array(tenants));
        return Ok(());
    }
    if tenants.is_empty() {
        output.line("There are no tenants yet. Make one: fanfare tenant create acme");
        return Ok(());
    }
    let names = ["id", "name", "profile", "created_at"];
    let row = |tenant: &Value| names.map(|name| String::from(text(tenant, name))).to_vec();
    let rows: Vec<_> = tenants.iter().map(row).collect();
    output.table(&["tenant", "name", "profile", "created"], &rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_back_as_it_is_shown() {
        for text in ["20/s", "100/m", "20/s+5"] {
            assert_eq!(shown_rate(&json!({ "rate_limit": rate(text).unwrap() })), text);
        }
        for malformed in ["20", "20/h", "/s", "20/s+", "-1/s"] {
            assert!(rate(malformed).is_err(), "{malformed}");
        }
        assert_eq!(shown_rate(&json!({ "rate_limit": null })), "");
    }
}
