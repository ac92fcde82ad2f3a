//! The temporary endpoint of a listener.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use fanfare_domain::{Profile, Profiles, TenantId, profile::SecretOrigin, seal::Clear};
use fanfare_service::random_bytes;

use crate::client::{
    api::{Api, Problem, text},
    endpoint::{self, Draft},
    tenant,
};

/// A tenant's profile.
#[derive(Clone, Debug)]
pub(super) struct TenantProfile {
    /// Its name.
    name: String,
    /// The profile itself, if it is built in.
    pub(super) built_in: Option<Arc<Profile>>,
    tenant_is_new: bool,
}

/// The endpoint that is wanted.
pub(super) struct Wanted {
    /// Whose it is.
    pub(super) tenant: TenantId,
    /// Where deliveries go.
    pub(super) url: String,
    /// Which event types it wants.
    pub(super) types: Vec<String>,
    /// The secret, if it is chosen here.
    pub(super) secret: Option<String>,
    /// How long to wait before each retry.
    pub(super) retry_delays: Option<Vec<Duration>>,
}

/// A temporary endpoint.
pub(super) struct Registered {
    /// Its id.
    pub(super) endpoint: String,
    /// The secret that its requests are signed with.
    pub(super) secret: Clear,
    /// The name of the tenant's profile.
    pub(super) profile: String,
    /// Whether the tenant was made for it.
    pub(super) tenant_is_new: bool,
    example: Option<(String, String)>,
    path: String,
}

/// Looks up the profile of a tenant; makes the tenant with `profile` if there is none.
pub(super) async fn profile(api: &Api, tenant: &TenantId, profile: &str) -> Result<TenantProfile> {
    let path = tenant::path(tenant);
    let (found, tenant_is_new) = match api.find(&path).await? {
        Some(found) => (found, false),
        None => match tenant::create(api, tenant, "", profile).await {
            Ok(made) => (made, true),
            // Another listener was faster.
            Err(error)
                if Problem::of(&error).is_some_and(|problem| problem.is("tenant_exists")) =>
            {
                (api.get(&path).await?, false)
            }
            Err(error) => return Err(error).with_context(|| format!("make the tenant {tenant}")),
        },
    };
    let name = String::from(text(&found, "profile"));
    let built_in = Profiles::built_in().get(&name).cloned();
    Ok(TenantProfile { name, built_in, tenant_is_new })
}

impl Registered {
    /// Makes the endpoint.
    pub(super) async fn make(api: &Api, wanted: &Wanted, profile: &TenantProfile) -> Result<Self> {
        let origin = profile.built_in.as_ref().map(|profile| profile.secret().origin);
        let made_up = || (origin == Some(SecretOrigin::Supplied)).then(supplied_secret);
        let draft = Draft {
            url: wanted.url.clone(),
            types: wanted.types.clone(),
            name: Some(String::from("fanfare listen")),
            description: Some(String::from("Temporary: deleted when the listener ends.")),
            secret: wanted.secret.clone().or_else(made_up),
            retry_delays: wanted.retry_delays.clone(),
            ..Draft::default()
        };
        let made = draft
            .create(api, &wanted.tenant)
            .await
            .with_context(|| format!("make an endpoint at {}", wanted.url))?;
        let endpoint = String::from(text(&made, "id"));
        let example = profile.built_in.as_ref().and_then(|profile| {
            let entry = profile.event_types.catalogue.first()?;
            Some((entry.event_type.to_string(), entry.example.clone()))
        });
        Ok(Self {
            path: format!("{}/{endpoint}", endpoint::all(&wanted.tenant)),
            endpoint,
            secret: Clear::new(String::from(text(&made, "secret"))),
            profile: profile.name.clone(),
            tenant_is_new: profile.tenant_is_new,
            example,
        })
    }

    /// An event type and data for trying the endpoint out, as they are typed.
    pub(super) fn example(&self) -> String {
        match &self.example {
            Some((event_type, data)) => format!("{event_type} '{data}'"),
            None => String::from("invoice.paid '{\"amount\": 42}'"),
        }
    }

    /// Deletes the endpoint.
    pub(super) async fn remove(&self, api: &Api) -> Result<()> {
        match api.delete(&self.path).await {
            Ok(_) => Ok(()),
            // Somebody else has deleted it.
            Err(error) if Problem::of(&error).is_some_and(|problem| problem.status == 404) => {
                Ok(())
            }
            Err(error) => Err(error).context("delete the temporary endpoint"),
        }
    }
}

/// A secret for profiles that make none up themselves.
fn supplied_secret() -> String {
    HEXLOWER.encode(&random_bytes::<32>())
}
