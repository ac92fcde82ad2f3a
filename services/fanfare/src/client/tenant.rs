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
    },
    /// List all tenants.
    List,
    /// Show a tenant.
    Get {
        /// The tenant's id.
        tenant: TenantId,
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
        Command::Create { tenant, name, profile } => {
            let made = create(api, &tenant, &name, &profile).await?;
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
                output.fields(&names.map(|name| (name, String::from(text(&found, name)))));
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
    let body = json!({ "id": tenant.as_str(), "name": name, "profile": profile });
    api.post("/v1/tenants", &body).await
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
