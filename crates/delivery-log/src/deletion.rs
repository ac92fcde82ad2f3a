//! The history of deleted endpoints, where the tenant's profile wants it deleted too: removed in small
//! steps between the writes, and never folded again. Which endpoints were deleted, and when, CONFIG
//! says; which profile their tenant had then, the audit.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{EndpointId, TenantId, Timestamp};
use serde_json::Value as Json;

use crate::{
    counts::{Table, Tally},
    database::{Statement, StoreError, Transaction},
    query::highest,
    store::{Store, id, required_time},
};

/// That an endpoint was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// The sequence in CONFIG.
    pub(crate) revision: u64,
    /// When it was stored there.
    pub(crate) at: Timestamp,
    /// Whose endpoint it was.
    pub(crate) tenant: TenantId,
}

/// Keeps of the deletions those whose profile is among these, with their time. The changes of the
/// configuration up to them are in the audit.
pub(crate) async fn erasing(
    transaction: &mut Transaction,
    (installation, profiles): (&str, &BTreeSet<String>),
    deletions: &BTreeMap<EndpointId, Deletion>,
) -> Result<BTreeMap<EndpointId, Timestamp>, StoreError> {
    let mut erased = BTreeMap::new();
    for (endpoint, deletion) in deletions {
        let profile = profile_then(transaction, installation, deletion).await?;
        if profile.is_some_and(|profile| profiles.contains(&profile)) {
            erased.insert(*endpoint, deletion.at);
        }
    }
    Ok(erased)
}

/// The profile that the tenant had when its endpoint was deleted.
async fn profile_then(
    transaction: &mut Transaction,
    installation: &str,
    deletion: &Deletion,
) -> Result<Option<String>, StoreError> {
    let mut statement = Statement::new("SELECT document FROM fanfare_audit WHERE installation = ");
    statement.bind(installation).push(" AND kind = 'tenant' AND tenant = ");
    statement.bind(deletion.tenant.as_str()).push(" AND entity = ");
    statement.bind(deletion.tenant.as_str()).push(" AND revision < ").bind(deletion.revision);
    statement.push(" ORDER BY revision DESC LIMIT 1");
    let rows = transaction.fetch(statement).await?;
    let document = rows.first().map(|row| row.text(0)).transpose()?.flatten();
    let document: Option<Json> = document.and_then(|text| serde_json::from_str(&text).ok());
    let profile = document.as_ref().and_then(|tenant| tenant.get("profile")?.as_str());
    Ok(profile.map(String::from))
}

/// The tables, each with its key's first column, which carries the event's time.
const STEPS: [(Table, &str, &str); 2] = [
    (
        Table::Attempts,
        "DELETE FROM fanfare_attempts WHERE (delivery, number) IN \
         (SELECT delivery, number FROM fanfare_attempts WHERE endpoint = ",
        " AND delivery <= ",
    ),
    (
        Table::Deliveries,
        "DELETE FROM fanfare_deliveries WHERE id IN \
         (SELECT id FROM fanfare_deliveries WHERE endpoint = ",
        " AND id <= ",
    ),
];

impl Store {
    /// Removes what is of deleted endpoints and was there already when that became known: up to
    /// `limit` rows of one endpoint, in one transaction. Returns whether there may be more.
    pub async fn purge(&self, limit: u32) -> Result<bool, StoreError> {
        let question = "SELECT endpoint, deleted_at FROM fanfare_deleted WHERE purged = 0 LIMIT 1";
        let rows = self.database.fetch(Statement::new(question)).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let endpoint = EndpointId::from_bytes(id(row, 0, "endpoint")?);
        let deleted_at = required_time(row, 1, "deleted_at")?;
        let mut transaction = self.begin_alone().await?;
        let mut left = u64::from(limit);
        let mut tally = Tally::default();
        for (table, head, before) in STEPS {
            if left == 0 {
                break;
            }
            let mut statement = Statement::new(head);
            statement.bind(endpoint.as_bytes()).push(before).bind(&highest(deleted_at));
            statement.push(" LIMIT ").bind(left).push(")");
            left -= tally.remove(&mut transaction, table, statement).await?.min(left);
        }
        tally.write(&mut transaction).await?;
        if left > 0 {
            let mut done =
                Statement::new("UPDATE fanfare_deleted SET purged = 1 WHERE endpoint = ");
            done.bind(endpoint.as_bytes());
            transaction.execute(done).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }
}
