//! `fanfare key`.

use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use fanfare_domain::{KeyId, TenantId, settings::parse_duration};
use fanfare_service::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{
    again::Watch,
    api::{Api, text},
    rate::{self, CallRate},
};
use crate::output::{Output, Tone};

const CREATE_EXAMPLES: &str = "\
Examples:
  fanfare key create --tenant acme --role publish --name 'billing service'
  fanfare key create --role read --expires 30d
  fanfare key create --tenant acme --role publish --rate-limit 3000/s";

/// What can be done with API keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key, and show it this once.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// The tenant that the key is for; without it, the key is an operator's.
        #[arg(long)]
        tenant: Option<TenantId>,
        /// What it allows.
        #[arg(long, value_enum, default_value = "admin")]
        role: Role,
        /// What people call it.
        #[arg(long, default_value = "", hide_default_value = true)]
        name: String,
        /// After how long it stops working, for example 30d; never if left out.
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        expires: Option<Duration>,
        /// Let it show endpoints' secrets again: an operator's with every right only.
        #[arg(long, conflicts_with = "tenant")]
        reveals_secrets: bool,
        #[command(flatten)]
        rate: CallRate,
    },
    /// List the keys of a tenant, or the operator's.
    List {
        /// The tenant.
        #[arg(long)]
        tenant: Option<TenantId>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Delete a key: it stops working at once.
    Revoke {
        /// The key's id (not the key itself).
        #[arg(id = "key_id", value_name = "KEY_ID")]
        key: KeyId,
        /// The tenant that the key is for.
        #[arg(long)]
        tenant: Option<TenantId>,
    },
}

/// What a key allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Everything.
    Admin,
    /// To send events, and nothing else.
    Publish,
    /// To look, and nothing else.
    Read,
}

/// Does what was asked for.
pub(crate) async fn run(command: Command, api: &Api, output: Output) -> Result<()> {
    match command {
        Command::Create { tenant, role, name, expires, reveals_secrets, rate } => {
            let expires_at = expires.map(|span| SystemClock.now().saturating_add(span).to_string());
            let mut body = json!({ "name": name, "role": role.name() });
            if let Some(members) = body.as_object_mut() {
                let at = expires_at.map(|at| ("expires_at", Value::String(at)));
                let reveals = reveals_secrets.then_some(("reveals_secrets", Value::Bool(true)));
                let given = at.into_iter().chain(reveals);
                members.extend(given.map(|(name, value)| (String::from(name), value)));
            }
            rate.add_to(&mut body);
            let made = api.post(&keys(tenant.as_ref()), &body).await?;
            show_made(&made, output);
        }
        Command::List { tenant, watch } => {
            watch.list((api, &keys(tenant.as_ref())), list, output).await?;
        }
        Command::Revoke { key, tenant } => {
            api.delete(&format!("{}/{key}", keys(tenant.as_ref()))).await?;
            if output.json {
                output.document(&json!({ "id": key.to_string(), "deleted": true }));
            } else {
                output.line(&format!("revoked {key}"));
            }
        }
    }
    Ok(())
}

fn show_made(made: &Value, output: Output) {
    if output.json {
        output.document(made);
        return;
    }
    let expires = text(made, "expires_at");
    output.fields(&[
        ("id", String::from(text(made, "id"))),
        ("role", String::from(text(made, "role"))),
        ("tenant", String::from(text(made, "tenant_id"))),
        ("expires", String::from(if expires.is_empty() { "never" } else { expires })),
        ("rate limit", rate::shown(made)),
        ("key", output.tone(Tone::Strong, text(made, "key"))),
    ]);
    output.line("");
    output.line("Keep the key: it is not shown again.");
}

fn list(found: &Value, output: Output) {
    if output.json {
        output.document(found);
        return;
    }
    let found = found.as_array().map_or(&[][..], Vec::as_slice);
    if found.is_empty() {
        output.line("There are no keys here.");
        return;
    }
    let names = ["id", "role", "name", "created_at", "expires_at", "last_used_at"];
    let row = |key: &Value| {
        let mut row = names.map(|name| String::from(text(key, name))).to_vec();
        row.push(rate::shown(key));
        row
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let heads = ["key", "role", "name", "created", "expires", "last used", "rate limit"];
    output.table(&heads, &rows);
}

fn keys(tenant: Option<&TenantId>) -> String {
    match tenant {
        Some(tenant) => format!("/v1/tenants/{tenant}/keys"),
        None => String::from("/v1/keys"),
    }
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Publish => "publish",
            Self::Read => "read",
        }
    }
}
