//! The audit: who changed what of the configuration, when and why, before and after.
//!
//! A row holds the state after the change; the state before it is that of the thing's row before,
//! so that rows do not depend on each other when they are folded. Rows are never changed and never
//! forgotten, also when the delivery log is made anew: CONFIG may have forgotten by then what they
//! say. Nothing secret is in them: see [`document`].

mod document;
#[cfg(test)]
pub(crate) mod tests;

use fanfare_domain::{Change, Entity, TenantId, Timestamp};

use crate::{
    database::{Row, Statement, StoreError, Transaction},
    store::{Store, nanos, required_time},
};

/// What is kept of a thing of an expunged tenant.
pub(crate) const REDACTED: &str = r#"{"expunged":true}"#;
/// What the documents are like of which an expunged tenant's audit keeps all: that it was expunged,
/// and what is redacted already. No other document begins so.
const EXPUNGED: &str = r#"{"expunge"#;
pub(crate) const EXPUNGED_LIKE: &str = r#"{"expunge%"#;

/// Who changed something, without the name of the tenant's user that a portal link was made for.
pub(crate) fn who(actor: &str) -> &str {
    actor.split_once(" for ").map_or(actor, |(who, _)| who)
}

/// A change, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditRow {
    /// The sequence in CONFIG.
    pub(crate) revision: u64,
    /// When it was stored there.
    pub(crate) recorded_at: Timestamp,
    /// Whose thing it is about; `None` for the operator's.
    pub(crate) tenant: Option<TenantId>,
    /// The kind of thing.
    pub(crate) kind: String,
    /// What tells it from others of its kind and tenant.
    pub(crate) entity: String,
    /// Whether it was deleted.
    pub(crate) deleted: bool,
    /// Who changed it.
    pub(crate) actor: String,
    /// Why.
    pub(crate) reason: String,
    /// The trace that the change belongs to.
    pub(crate) trace_id: Option<String>,
    /// The state after it, or before the deletion, as JSON.
    pub(crate) document: String,
}

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// The sequence in CONFIG.
    pub revision: u64,
    /// When it was stored there.
    pub recorded_at: Timestamp,
    /// Whose thing it is about; `None` for the operator's.
    pub tenant: Option<TenantId>,
    /// The kind of thing: `tenant`, `endpoint`, `event-type`, `profile` or `key`.
    pub kind: String,
    /// What tells it from others of its kind and tenant.
    pub entity: String,
    /// What was done.
    pub action: Action,
    /// Who did it: a key's id, or the name of a service.
    pub actor: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// The trace that the change belongs to, if there is one.
    pub trace_id: Option<String>,
    /// The state before, as JSON; `None` if it was created, or if nobody knows it any more.
    pub before: Option<String>,
    /// The state after, as JSON; `None` if it was deleted.
    pub after: Option<String>,
}

/// What was done with a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was made.
    Created,
    /// It was changed.
    Updated,
    /// It was deleted.
    Deleted,
}

/// Which changes. All that is said has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Of things of this tenant.
    pub tenant: Option<TenantId>,
    /// Of things of this kind.
    pub kind: Option<String>,
    /// Of the thing with this id.
    pub entity: Option<String>,
    /// Made by this key or service.
    pub actor: Option<String>,
    /// Made at that time or later.
    pub since: Option<Timestamp>,
    /// Made before that time.
    pub until: Option<Timestamp>,
    /// Made by a later revision than this one.
    pub above: u64,
}

impl AuditEntry {
    /// Returns what the audit keeps of a change of a tenant that was expunged since: who made it and
    /// when, to which thing.
    #[must_use]
    pub fn redacted(self) -> Self {
        let is_kept = |text: &String| text.starts_with(EXPUNGED);
        if self.before.iter().chain(&self.after).all(is_kept) {
            return self;
        }
        let redact = |text: Option<String>| text.map(|_| String::from(REDACTED));
        Self {
            actor: String::from(who(&self.actor)),
            reason: String::new(),
            before: redact(self.before),
            after: redact(self.after),
            ..self
        }
    }
}

/// Where a page ended: the revision of its last change.
pub type AuditCursor = u64;

/// Some of the changes that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// The changes, newest first.
    pub entries: Vec<AuditEntry>,
    /// Where to go on; `None` if that was all.
    pub next: Option<AuditCursor>,
}

impl Action {
    /// Returns the stable name, as it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

impl AuditRow {
    /// Notes a change.
    pub(crate) fn of(revision: u64, recorded_at: Timestamp, change: &Change) -> Self {
        Self {
            revision,
            recorded_at,
            tenant: change.entity.tenant().cloned(),
            kind: String::from(change.entity.kind()),
            entity: if let Entity::EventType(entry) = &change.entity {
                // Where a dot would end a token, a slash stands for it.
                String::from(entry.event_type.as_str())
            } else {
                change.entity.id_token()
            },
            deleted: change.deleted,
            actor: change.actor.clone(),
            reason: change.reason.clone(),
            trace_id: change.trace.trace_id().map(String::from),
            document: document::of(&change.entity, change.deleted).to_string(),
        }
    }
}

/// Has the rows of an installation be another's, which may have some of them.
pub(crate) async fn rename(
    transaction: &mut Transaction,
    before: &str,
    now: &str,
) -> Result<(), StoreError> {
    const ROW: &str = "revision, recorded_at, tenant, kind, entity, deleted, actor, reason, \
        trace_id, document";
    let mut copy = Statement::new("INSERT INTO fanfare_audit (installation, ");
    copy.push(ROW).push(") SELECT ").bind(now).push(", ").push(ROW);
    copy.push(" FROM fanfare_audit WHERE installation = ").bind(before);
    copy.push(" ON CONFLICT (installation, revision) DO NOTHING");
    transaction.execute(copy).await?;
    let mut old = Statement::new("DELETE FROM fanfare_audit WHERE installation = ");
    old.bind(before);
    transaction.execute(old).await.map(drop)
}

/// The thing's row before, if there is one.
const BEFORE: &str = " FROM fanfare_audit AS b WHERE b.installation = a.installation \
    AND b.kind = a.kind AND b.tenant = a.tenant AND b.entity = a.entity \
    AND b.revision < a.revision ORDER BY b.revision DESC LIMIT 1)";

impl Store {
    /// Finds changes of this installation's configuration, newest first; up to `limit` of them,
    /// which is 1 at least.
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let limit = limit.max(1);
        let rows = self.database.fetch(statement(filter, after, limit + 1)).await?;
        let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|last| last.revision);
        Ok(AuditPage { entries, next })
    }
}

fn statement(filter: &AuditFilter, after: Option<AuditCursor>, limit: usize) -> Statement {
    let mut statement = Statement::new(
        "SELECT a.revision, a.recorded_at, a.tenant, a.kind, a.entity, a.deleted, a.actor, \
         a.reason, a.trace_id, a.document, (SELECT b.document",
    );
    statement.push(BEFORE).push(", (SELECT b.deleted").push(BEFORE);
    statement.push(
        " FROM (SELECT * FROM fanfare_audit WHERE installation = \
         (SELECT installation FROM fanfare_log)",
    );
    if let Some(tenant) = &filter.tenant {
        statement.push(" AND tenant = ").bind(tenant.as_str());
    }
    for (condition, value) in [
        (" AND kind = ", &filter.kind),
        (" AND entity = ", &filter.entity),
        (" AND actor = ", &filter.actor),
    ] {
        if let Some(value) = value {
            statement.push(condition).bind(value.as_str());
        }
    }
    if let Some(since) = filter.since {
        statement.push(" AND recorded_at >= ").bind(nanos(since));
    }
    if let Some(until) = filter.until {
        statement.push(" AND recorded_at < ").bind(nanos(until));
    }
    if filter.above > 0 {
        statement.push(" AND revision > ").bind(filter.above);
    }
    if let Some(after) = after {
        statement.push(" AND revision < ").bind(after);
    }
    statement.push(" ORDER BY revision DESC LIMIT ");
    statement.bind(i64::try_from(limit).unwrap_or(i64::MAX));
    statement.push(") AS a ORDER BY a.revision DESC");
    statement
}

fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    let malformed = |what| StoreError::Malformed { what };
    let text = |column: usize, what| row.text(column)?.ok_or(malformed(what));
    let revision = row.integer(0)?.and_then(|number| u64::try_from(number).ok());
    let tenant = match text(2, "tenant")?.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|_| malformed("tenant"))?),
    };
    let document = text(9, "document")?;
    let before = match row.integer(11)? {
        Some(0) => row.text(10)?,
        // It was deleted, and is another one now; or it is the first that is known.
        Some(_) | None => None,
    };
    let deleted = row.integer(5)? == Some(1);
    let (action, before, after) = match (deleted, before) {
        // A deletion's record has what there was.
        (true, _) => (Action::Deleted, Some(document), None),
        (false, None) => (Action::Created, None, Some(document)),
        (false, before) => (Action::Updated, before, Some(document)),
    };
    Ok(AuditEntry {
        revision: revision.ok_or(malformed("revision"))?,
        recorded_at: required_time(row, 1, "recorded_at")?,
        tenant,
        kind: text(3, "kind")?,
        entity: text(4, "entity")?,
        action,
        actor: text(6, "actor")?,
        reason: text(7, "reason")?,
        trace_id: row.text(8)?,
        before,
        after,
    })
}
