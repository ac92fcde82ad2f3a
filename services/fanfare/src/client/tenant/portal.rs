//! `fanfare tenant portal-link`.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use fanfare_domain::{TenantId, settings::parse_duration};
use serde_json::{Value, json};

use super::{
    super::{
        api::{Api, text},
        rate::CallRate,
    },
    path,
};
use crate::output::{Output, Tone};

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The tenant's id.
    tenant: TenantId,
    /// What it allows: to look, or to change endpoints too.
    #[arg(long, value_enum, default_value = "read")]
    role: Role,
    /// Whom it is for: kept with what is changed by it.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// After how long it stops working: a minute to a day [default: 1h].
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    expires: Option<Duration>,
    #[command(flatten)]
    rate: CallRate,
}

/// What a portal link allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// To look.
    Read,
    /// To change things too.
    Admin,
}

/// Makes a link, and shows it this once.
pub(super) async fn create(options: Options, api: &Api, output: Output) -> Result<()> {
    let role = match options.role {
        Role::Read => "read",
        Role::Admin => "admin",
    };
    let mut body = json!({ "role": role, "user": options.user });
    if let (Some(life), Some(members)) = (options.expires, body.as_object_mut()) {
        members.insert(String::from("expires_in_s"), Value::from(life.as_secs()));
    }
    options.rate.add_to(&mut body);
    let made = api.post(&format!("{}/portal-links", path(&options.tenant)), &body).await?;
    if output.json {
        output.document(&made);
        return Ok(());
    }
    output.fields(&[
        ("id", String::from(text(&made, "id"))),
        ("role", String::from(text(&made, "role"))),
        ("user", String::from(text(&made, "user"))),
        ("expires", String::from(text(&made, "expires_at"))),
        ("token", output.tone(Tone::Strong, text(&made, "token"))),
    ]);
    output.line("");
    output.line("The token is used like an API key, and is not shown again.");
    Ok(())
}
