//! What the service needs before anybody can ask it for something: the keys.

use std::{fs, sync::Arc};

use anyhow::{Context as _, ensure};
use fanfare_domain::{ApiKey, Change, Entity, Role, TraceContext, seal::Clear};
use fanfare_event_log::ChangeError;
use fanfare_service::{load_keyring, load_profiles};
use tracing::{info, warn};

use crate::{app::App, secret_key, settings::Settings};

/// Who makes the records of keys that come with the settings.
const ACTOR: &str = "api";

/// Reads every file that the settings name, and says what is wrong with it. Connects to nothing.
///
/// # Errors
///
/// The first file that cannot be read, or does not hold what it should.
pub fn check_files(settings: &Settings) -> anyhow::Result<()> {
    load_keyring(&settings.sealing_key_file)?;
    operator_keys(settings)?;
    load_profiles(settings.profiles_dir.as_deref()).context("load the profiles")?;
    Ok(())
}

/// Returns the operator's keys that the settings name.
pub(crate) fn operator_keys(settings: &Settings) -> anyhow::Result<Vec<Clear>> {
    let mut keys = Vec::new();
    if let Some(path) = &settings.operator_key_file {
        let text = fs::read_to_string(path).map(Clear::new).with_context(|| {
            format!("read the operator's key in {} (setting operator_key_file)", path.display())
        })?;
        keys.push(Clear::new(String::from(text.expose().trim())));
    }
    keys.extend(settings.operator_key.clone());
    let well_formed = keys.iter().all(|key| secret_key::is_key(key.expose()));
    ensure!(well_formed, "an API key is fk_ and 64 hexadecimal digits in lower case");
    Ok(keys)
}

/// Makes records of the operator's keys that are not on record yet. Several processes may do so
/// at once. A key that was deleted stays so.
pub(crate) async fn admit(app: &App, keys: &[Clear]) -> anyhow::Result<()> {
    for key in keys {
        let sha256 = secret_key::hash(key.expose());
        let id = secret_key::id_of(&sha256);
        let (known, revoked) = app
            .directory
            .read(|directory| (directory.has_key(&sha256), directory.is_revoked(&sha256)));
        if revoked {
            warn!(key_id = %id, "the operator's key of the settings was deleted, and stays so");
            continue;
        }
        if known {
            continue;
        }
        let entity = Entity::ApiKey(Arc::new(ApiKey {
            id,
            name: String::from("operator"),
            tenant: None,
            role: Role::Admin,
            sha256,
            created_at: app.now(),
            expires_at: None,
            reveals_secrets: false,
            rate_limit: None,
        }));
        let (actor, reason) = (String::from(ACTOR), String::from("named by the settings"));
        let trace = TraceContext::default();
        let change = Change { entity, deleted: false, actor, reason, trace };
        match app.log.change(&change, 0).await {
            Ok(_) => info!(key_id = %id, "admitted the operator's key"),
            // Another process was faster.
            Err(ChangeError::Conflict { .. }) => {}
            Err(refused) => return Err(refused).context("write the key's record"),
        }
        app.directory.confirm().await.context("read the key's record")?;
    }
    Ok(())
}
