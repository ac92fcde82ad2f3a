//! An endpoint to be created: from the command line to what the API takes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use fanfare_domain::{
    Profile, Profiles, TenantId,
    retry::{Delays, Policy},
    settings::parse_duration,
};
use serde_json::{Map, Value, json};

use super::{all, limits::Limits, security::Security};
use crate::client::{
    api::{Api, text},
    options::{Pair, map},
    setting::Misfit,
    tenant,
};

/// Options of `fanfare endpoint create`.
#[derive(Args, Clone, Debug)]
#[command(
    mut_arg("rate_burst", |burst| burst.requires("rate_limit")),
    mut_arg("batch_wait", |wait| wait.requires("batch")),
)]
pub(crate) struct Options {
    /// The tenant.
    pub(super) tenant: TenantId,
    /// Where deliveries go.
    url: String,
    /// Which event types it wants, with commas between: * stands for one word, a last > for the
    /// rest.
    #[arg(long, value_delimiter = ',', default_value = ">", value_name = "PATTERNS")]
    types: Vec<String>,
    /// Which events of these types it wants, by their content: an expression in CEL over type,
    /// attributes and data.
    #[arg(long, value_name = "EXPR")]
    filter: Option<String>,
    /// What people call it.
    #[arg(long)]
    name: Option<String>,
    /// What else people should know.
    #[arg(long)]
    description: Option<String>,
    /// The signing secret, where the tenant's profile lets the caller choose it (killb wants one).
    #[arg(long)]
    secret: Option<String>,
    /// Which kind of secret is made [default: hmac].
    #[arg(long, value_parser = ["hmac", "ed25519"], conflicts_with = "secret", value_name = "KIND")]
    secret_kind: Option<String>,
    /// A header to add to every request; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<Pair>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    security: Security,
    /// How long to wait before each retry [default: as the tenant's profile has it].
    #[arg(long, value_parser = parse_duration, value_delimiter = ',', value_name = "DURATIONS")]
    retry_delays: Option<Vec<Duration>>,
}

impl Options {
    /// Returns what was asked for.
    pub(super) fn draft(&self) -> Draft {
        Draft {
            url: self.url.clone(),
            types: self.types.clone(),
            filter: self.filter.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            secret: self.secret.clone(),
            secret_kind: self.secret_kind.clone(),
            headers: map(&self.headers),
            limits: self.limits.clone(),
            security: self.security.clone(),
            retry_delays: self.retry_delays.clone(),
        }
    }
}

/// An endpoint to be created. What is `None` is left to the API and the tenant's profile.
#[derive(Clone, Default)]
pub(crate) struct Draft {
    /// Where deliveries go.
    pub(crate) url: String,
    /// Which event types it wants.
    pub(crate) types: Vec<String>,
    /// Which events of these types it wants, by their content.
    pub(crate) filter: Option<String>,
    /// What people call it.
    pub(crate) name: Option<String>,
    /// What else people should know.
    pub(crate) description: Option<String>,
    /// The signing secret.
    pub(crate) secret: Option<String>,
    /// Which kind of secret is made.
    pub(crate) secret_kind: Option<String>,
    /// Headers to add to every request.
    pub(crate) headers: BTreeMap<String, String>,
    /// How it is sent to.
    pub(crate) limits: Limits,
    /// How it and we make sure of each other.
    pub(crate) security: Security,
    /// How long to wait before each retry.
    pub(crate) retry_delays: Option<Vec<Duration>>,
}

impl Draft {
    /// Creates the endpoint, and returns it as the API shows it, with its secret.
    pub(crate) async fn create(&self, api: &Api, tenant: &TenantId) -> Result<Value> {
        let retry = match &self.retry_delays {
            Some(delays) => {
                let found = api.get(&tenant::path(tenant)).await?;
                let profiles = Profiles::built_in();
                Some(policy(
                    profiles.get(text(&found, "profile")).map(|profile| &**profile),
                    delays,
                )?)
            }
            None => None,
        };
        api.post(&all(tenant), &self.body(retry)?).await
    }

    fn body(&self, retry: Option<Value>) -> Result<Value, Misfit> {
        let mut members = Map::new();
        let optional = [
            ("filter", self.filter.clone().map(Value::String)),
            ("name", self.name.clone().map(Value::String)),
            ("description", self.description.clone().map(Value::String)),
            ("secret", self.secret.clone().map(Value::String)),
            ("secret_kind", self.secret_kind.clone().map(Value::String)),
            ("retry", retry),
            ("headers", (!self.headers.is_empty()).then(|| json!(self.headers))),
        ];
        members.insert(String::from("url"), json!(self.url));
        members.insert(String::from("event_types"), json!(self.types));
        for (name, value) in optional {
            if let Some(value) = value {
                members.insert(String::from(name), value);
            }
        }
        self.limits.add_to(&mut members, &Value::Null)?;
        self.security.add_to(&mut members);
        Ok(Value::Object(members))
    }
}

/// A retry policy with other delays than the profile's, and all else as the profile has it. Of a
/// profile that is not built in, nothing else is known.
fn policy(profile: Option<&Profile>, delays: &[Duration]) -> Result<Value> {
    let delays = Delays::List(delays.to_vec());
    match profile {
        Some(profile) => serde_json::to_value(Policy { delays, ..profile.retry.clone() }),
        None => serde_json::to_value(delays).map(|delays| json!({ "delays": delays })),
    }
    .context("write the retry policy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_left_out() {
        let draft = Draft {
            url: String::from("https://example.com/"),
            types: vec![String::from("invoice.*")],
            name: Some(String::from("Billing")),
            ..Draft::default()
        };
        let expected = json!({
            "url": "https://example.com/",
            "event_types": ["invoice.*"],
            "name": "Billing",
        });
        assert_eq!(draft.body(None), Ok(expected));
    }

    #[test]
    fn other_delays_leave_the_rest_of_the_policy() {
        let profiles = Profiles::built_in();
        let profile = profiles.get("kryptos").unwrap();
        let delays = [Duration::from_secs(1), Duration::from_millis(1_500)];
        let value = policy(Some(profile), &delays).unwrap();
        assert_eq!(value["delays"], json!({ "list": ["1s", "1500ms"] }));
        let read: Policy = serde_json::from_value(value).unwrap();
        assert_eq!(read.listed, profile.retry.listed);
        let unknown = policy(None, &delays).unwrap();
        assert_eq!(unknown, json!({ "delays": { "list": ["1s", "1500ms"] } }));
    }
}
