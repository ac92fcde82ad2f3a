//! Tenants that were expunged: what is of their events is removed in small steps between the writes,
//! and never folded again. Which tenants, and up to which event, CONFIG says, so that a rebuild,
//! which reads JOURNAL anew, does not bring them back.
//!
//! The audit of such a tenant keeps who did what to which thing and when, and forgets what the things
//! were, and the callers' words.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fanfare_domain::{Change, Entity, TenantId, tenant::ExpungeStage};

use crate::{
    audit::{EXPUNGED_LIKE, REDACTED, who},
    counts::{Table, Tally},
    database::{Row, Statement, StoreError, Transaction, Value},
    store::{
        Store, id,
        upsert::{portions, write},
    },
};

/// That a tenant was expunged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expunged {
    /// The sequence in CONFIG of what says so. Changes of the tenant before it are redacted.
    pub(crate) revision: u64,
    /// Events up to this sequence of EVENTS are gone.
    pub(crate) through: u64,
}

impl Expunged {
    /// Reads it from the record that begins the removal, or ends it.
    pub(crate) fn by(revision: u64, change: &Change) -> Option<(TenantId, Self)> {
        let Entity::Tenant(tenant) = &change.entity else { return None };
        let expunge = tenant.expunge.as_ref().filter(|_| change.deleted)?;
        match expunge.stage {
            ExpungeStage::Running | ExpungeStage::Finished(_) => {
                Some((tenant.id.clone(), Self { revision, through: expunge.through }))
            }
            ExpungeStage::Earlier(_) => None,
        }
    }
}

/// Notes which tenants were expunged.
pub(crate) async fn note(
    transaction: &mut Transaction,
    expunged: &BTreeMap<TenantId, Expunged>,
) -> Result<(), StoreError> {
    let head = "INSERT INTO fanfare_expunged (tenant, through, revision, purged) VALUES ";
    let tail = " ON CONFLICT (tenant) DO UPDATE SET through = excluded.through, \
        revision = excluded.revision, purged = 0 \
        WHERE excluded.revision > fanfare_expunged.revision";
    let rows = expunged.iter().map(|(tenant, one)| {
        vec![
            Value::from(tenant.as_str()),
            one.through.into(),
            one.revision.into(),
            Value::from(MARKED),
        ]
    });
    write(transaction, (head, tail), rows).await
}

/// Finds out which of some tenants were expunged, and up to which event.
pub(crate) async fn among(
    transaction: &mut Transaction,
    tenants: BTreeSet<TenantId>,
) -> Result<BTreeMap<TenantId, u64>, StoreError> {
    let tenants: Vec<TenantId> = tenants.into_iter().collect();
    let mut expunged = BTreeMap::new();
    for some in portions(&tenants) {
        let mut statement =
            Statement::new("SELECT tenant, through FROM fanfare_expunged WHERE tenant IN ");
        statement.bind_list(some.iter().map(|id| Value::from(id.as_str())));
        for row in transaction.fetch(statement).await? {
            expunged.insert(tenant_of(&row)?, number(&row, 1)?);
        }
    }
    Ok(expunged)
}

/// What is to be removed.
struct Doomed {
    tenant: TenantId,
    through: u64,
    revision: u64,
}

/// Nothing is removed yet.
const MARKED: i64 = 0;
/// All is removed.
const PURGED: i64 = 1;
/// The audit is redacted; rows are left.
const REDACTING_DONE: i64 = 2;

/// Whose turn it is, and how far the audit is redacted. Kept in memory: who begins anew does some
/// of it again.
#[derive(Clone, Debug, Default)]
pub struct ExpungeCursor {
    /// The tenant whose turn it was last.
    last: Option<TenantId>,
    /// The removal whose audit is being redacted, and up to which revision it is.
    redacted: Option<(u64, u64)>,
}

impl Store {
    /// Tells whether what was known of a tenant is all removed that was expunged by a revision of
    /// CONFIG.
    pub async fn is_expunged(&self, tenant: &TenantId, by: u64) -> Result<bool, StoreError> {
        let mut question =
            Statement::new("SELECT purged FROM fanfare_expunged WHERE purged = 1 AND tenant = ");
        question.bind(tenant.as_str()).push(" AND revision >= ").bind(by);
        Ok(!self.database.fetch(question).await?.is_empty())
    }

    /// Removes what is of expunged tenants and was there already when that became known: up to
    /// `limit` rows of each kind of one tenant, in one transaction; the next time it is another
    /// tenant's turn. Before any rows the audit is redacted, of all of them: it is soon done, and says
    /// the most. Returns whether there may be more.
    pub async fn purge_expunged(
        &self,
        cursor: &mut ExpungeCursor,
        limit: u32,
    ) -> Result<bool, StoreError> {
        let question = "SELECT tenant, through, revision, purged FROM fanfare_expunged \
            WHERE purged <> 1 ORDER BY tenant";
        let rows = self.database.fetch(Statement::new(question)).await?;
        let mut all = Vec::new();
        for row in &rows {
            let (tenant, stage) = (tenant_of(row)?, row.integer(3)?.unwrap_or_default());
            all.push((
                Doomed { tenant, through: number(row, 1)?, revision: number(row, 2)? },
                stage,
            ));
        }
        if let Some((doomed, _)) = all.iter().find(|(_, stage)| *stage == MARKED) {
            self.redact(doomed, cursor, limit).await?;
            return Ok(true);
        }
        let is_next = |(doomed, _): &&(Doomed, i64)| Some(&doomed.tenant) > cursor.last.as_ref();
        let Some((doomed, _)) = all.iter().find(is_next).or(all.first()) else { return Ok(false) };
        cursor.last = Some(doomed.tenant.clone());
        let mut transaction = self.begin_alone().await?;
        let mut is_done = doomed.remove_deliveries(&mut transaction, limit).await?;
        is_done &= doomed.remove_events(&mut transaction, limit).await?;
        if is_done {
            doomed.remove_types(&mut transaction).await?;
            doomed.advance(&mut transaction, PURGED).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    async fn redact(
        &self,
        doomed: &Doomed,
        cursor: &mut ExpungeCursor,
        limit: u32,
    ) -> Result<(), StoreError> {
        let known = cursor.redacted.filter(|(by, _)| *by == doomed.revision);
        let after = known.map_or(0, |(_, revision)| revision);
        let mut transaction = self.begin_alone().await?;
        let last = doomed.redact(&mut transaction, after, limit).await?;
        if last.is_none() {
            doomed.advance(&mut transaction, REDACTING_DONE).await?;
        }
        transaction.commit().await?;
        cursor.redacted = last.map(|revision| (doomed.revision, revision));
        Ok(())
    }
}

impl Doomed {
    async fn advance(&self, transaction: &mut Transaction, stage: i64) -> Result<(), StoreError> {
        let mut statement = Statement::new("UPDATE fanfare_expunged SET purged = ");
        statement.bind(stage).push(" WHERE tenant = ").bind(self.tenant.as_str());
        statement.push(" AND revision = ").bind(self.revision);
        transaction.execute(statement).await.map(drop)
    }

    /// Removes deliveries with their attempts; returns whether that was all.
    async fn remove_deliveries(
        &self,
        transaction: &mut Transaction,
        limit: u32,
    ) -> Result<bool, StoreError> {
        let mut question = Statement::new("SELECT id FROM fanfare_deliveries WHERE tenant = ");
        question.bind(self.tenant.as_str()).push(" AND event_sequence <= ").bind(self.through);
        question.push(" LIMIT ").bind(limit);
        let rows = transaction.fetch(question).await?;
        let ids = rows.iter().map(|row| id(row, 0, "id")).collect::<Result<Vec<_>, _>>()?;
        let mut tally = Tally::default();
        for some in portions(&ids) {
            for (table, head) in [
                (Table::Attempts, "DELETE FROM fanfare_attempts WHERE delivery IN "),
                (Table::Deliveries, "DELETE FROM fanfare_deliveries WHERE id IN "),
            ] {
                let mut statement = Statement::new(head);
                statement.bind_list(some.iter().map(Value::from));
                tally.remove(transaction, table, statement).await?;
            }
        }
        tally.write(transaction).await?;
        Ok(is_less(ids.len(), limit))
    }

    async fn remove_events(
        &self,
        transaction: &mut Transaction,
        limit: u32,
    ) -> Result<bool, StoreError> {
        let mut statement = Statement::new(
            "DELETE FROM fanfare_events WHERE id IN (SELECT id FROM fanfare_events WHERE tenant = ",
        );
        statement.bind(self.tenant.as_str()).push(" AND sequence <= ").bind(self.through);
        statement.push(" LIMIT ").bind(limit).push(")");
        let removed = transaction.execute(statement).await?;
        Ok(removed < u64::from(limit))
    }

    /// Takes out of the audit what is the tenant's, behind a revision; returns how far it is, or
    /// nothing if that was all.
    async fn redact(
        &self,
        transaction: &mut Transaction,
        after: u64,
        limit: u32,
    ) -> Result<Option<u64>, StoreError> {
        let mut question = Statement::new(
            "SELECT revision, actor FROM fanfare_audit WHERE installation = \
             (SELECT installation FROM fanfare_log) AND tenant = ",
        );
        question.bind(self.tenant.as_str()).push(" AND revision < ").bind(self.revision);
        question.push(" AND revision > ").bind(after);
        question.push(" AND document NOT LIKE ").bind(EXPUNGED_LIKE);
        question.push(" ORDER BY revision LIMIT ").bind(limit);
        let rows = transaction.fetch(question).await?;
        let mut last = None;
        for row in &rows {
            let (revision, actor) = (number(row, 0)?, row.text(1)?.unwrap_or_default());
            let mut statement = Statement::new("UPDATE fanfare_audit SET document = ");
            statement.bind(REDACTED).push(", reason = '', actor = ").bind(who(&actor));
            statement.push(" WHERE installation = (SELECT installation FROM fanfare_log)");
            statement.push(" AND revision = ").bind(revision);
            transaction.execute(statement).await?;
            last = Some(revision);
        }
        Ok(last.filter(|_| !is_less(rows.len(), limit)))
    }

    /// Removes the types that nothing is left of: a later tenant of the id may have some of them.
    async fn remove_types(&self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let mut statement = Statement::new("DELETE FROM fanfare_types WHERE tenant = ");
        statement.bind(self.tenant.as_str()).push(
            " AND NOT EXISTS (SELECT 1 FROM fanfare_events AS e WHERE e.tenant = \
             fanfare_types.tenant AND e.event_type = fanfare_types.event_type) \
             AND NOT EXISTS (SELECT 1 FROM fanfare_deliveries AS d WHERE d.tenant = \
             fanfare_types.tenant AND d.event_type = fanfare_types.event_type)",
        );
        transaction.execute(statement).await.map(drop)
    }
}

fn is_less(count: usize, limit: u32) -> bool {
    u32::try_from(count).is_ok_and(|count| count < limit)
}

fn tenant_of(row: &Row) -> Result<TenantId, StoreError> {
    let text = row.text(0)?.unwrap_or_default();
    text.parse().map_err(|_| StoreError::Malformed { what: "tenant" })
}

fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.integer(column)?.unwrap_or_default()).unwrap_or_default())
}
