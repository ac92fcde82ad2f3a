//! `fanfare tenant plan`.

use std::num::NonZeroU32;

use anyhow::Result;
use clap::Args;
use fanfare_domain::TenantId;
use serde_json::{Value, json};

use super::{
    super::{
        api::{Api, text},
        rate,
        setting::Setting,
    },
    path,
};
use crate::output::Output;

/// What the API calls the name of a plan.
pub(super) const PLAN: &str = "plan";
/// What the API calls the limit of endpoints.
pub(super) const ENDPOINTS_MAX: &str = "endpoints_max";

pub(super) const EXAMPLES: &str = "\
Examples:
  fanfare tenant plan acme professional
  fanfare tenant plan acme professional --endpoints-max 20
  fanfare tenant plan acme --endpoints-max none";

/// What to change.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The tenant's id.
    tenant: TenantId,
    /// The plan, whose limits replace the tenant's, or none for no plan and no limits.
    #[arg(value_parser = plan, required_unless_present = "endpoints_max")]
    plan: Option<Setting<String>>,
    /// How many endpoints it may have, or none for any number; those that it has stay.
    #[arg(long, value_parser = count, value_name = "NUMBER")]
    endpoints_max: Option<Setting<NonZeroU32>>,
}

fn plan(text: &str) -> Result<Setting<String>, String> {
    match text.trim() {
        "" => Err(String::from("it is the name of a plan of the tenant's profile, or none")),
        "none" => Ok(Setting::None),
        name => Ok(Setting::To(String::from(name))),
    }
}

fn count(text: &str) -> Result<Setting<NonZeroU32>, String> {
    if text == "none" {
        return Ok(Setting::None);
    }
    text.parse().map(Setting::To).map_err(|_| String::from("it is a number from 1 on, or none"))
}

/// Changes a tenant's plan, or its limit of endpoints.
pub(super) async fn change(options: Options, api: &Api, output: Output) -> Result<()> {
    let Options { tenant, plan, endpoints_max } = options;
    let plan = plan.map(|plan| (String::from(PLAN), plan.json(Value::String)));
    let count = endpoints_max.map(|count| {
        let count = count.json(|count| json!(count));
        (String::from(ENDPOINTS_MAX), count)
    });
    let body = Value::Object(plan.into_iter().chain(count).collect());
    let changed = api.patch(&path(&tenant), &body).await?;
    if output.json {
        output.document(&changed);
        return Ok(());
    }
    let mut fields = shown(&changed).to_vec();
    fields.push(("rate limit", rate::shown(&changed)));
    output.fields(&fields);
    Ok(())
}

/// Shows a tenant's plan, and how many endpoints it may have.
pub(super) fn shown(tenant: &Value) -> [(&'static str, String); 2] {
    let name = Some(text(tenant, PLAN)).filter(|name| !name.is_empty()).unwrap_or("none");
    let max = tenant.get(ENDPOINTS_MAX).and_then(Value::as_u64);
    let endpoints = max.map_or_else(|| String::from("any number"), |max| format!("up to {max}"));
    [("plan", String::from(name)), ("endpoints", endpoints)]
}
