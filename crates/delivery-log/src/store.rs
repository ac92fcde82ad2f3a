//! Writing: changes of rows and how far they go, in one transaction.
//!
//! **One writer at a time, by the database itself.** The first statement of each transaction moves
//! the progress from what the writer thinks it is to what it will be. Where somebody else has
//! moved it, no row is found, and nothing is written ([`StoreError::Moved`]). PostgreSQL makes the
//! second writer wait for the first at that row, SQLite at the beginning of its transaction.

mod read;
pub(crate) mod upsert;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    mem::take,
    sync::Arc,
};

use fanfare_domain::{EndpointId, EventId, Timestamp};

use crate::{
    database::{Database, Statement, StoreError, Transaction, Value},
    deletion, expunging,
    fold::Changes,
    rows::Origin,
    schema,
};

pub(crate) use self::read::{
    ATTEMPT, DELIVERY, EVENT, attempt, delivery, event, id, outcome, required_time,
};

/// How far the streams are folded: the sequences of the last messages, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of EVENTS.
    pub events: u64,
    /// Of JOURNAL.
    pub journal: u64,
    /// Of CONFIG.
    pub config: u64,
}

/// The tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) database: Database,
    erasing: Arc<BTreeSet<String>>,
}

impl Store {
    fn on(database: &Database) -> Self {
        Self { database: database.clone(), erasing: Arc::default() }
    }

    /// Names the profiles with which the history of a deleted endpoint is removed; without this,
    /// all is kept.
    #[must_use]
    pub fn erasing(self, profiles: BTreeSet<String>) -> Self {
        Self { erasing: Arc::new(profiles), ..self }
    }

    /// Makes the tables where they are missing, and checks that they are of this installation, which
    /// is named by text that changes with its streams.
    pub async fn open(database: &Database, installation: &str) -> Result<Self, StoreError> {
        let mut transaction = database.begin().await?;
        schema::prepare(&mut transaction).await?;
        adopt(&mut transaction, installation).await?;
        transaction.commit().await?;
        Ok(Self::on(database))
    }

    /// Drops everything and makes the tables anew. What is of events before a time is not folded.
    pub async fn renew(
        database: &Database,
        installation: &str,
        forgotten_before: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut transaction = database.begin().await?;
        schema::renew(&mut transaction).await?;
        adopt(&mut transaction, installation).await?;
        forgotten(&mut transaction, forgotten_before).await?;
        transaction.commit().await?;
        Ok(Self::on(database))
    }

    /// The tables of a database, for those who only read. They may not be there yet.
    pub fn of(database: &Database) -> Self {
        Self::on(database)
    }

    /// The tables of an installation, for those who only read, once somebody keeps them.
    ///
    /// # Errors
    ///
    /// If they are not there, of another version, or of another installation.
    pub async fn attach(database: &Database, installation: &str) -> Result<Self, StoreError> {
        let question = Statement::new("SELECT version, installation FROM fanfare_log");
        let rows = database.fetch(question).await?;
        let row = rows.first().ok_or(StoreError::Unmade)?;
        let (found, ours) = (row.integer(0)?.unwrap_or_default(), schema::VERSION);
        match found.cmp(&ours) {
            Ordering::Less => return Err(StoreError::Older { found, ours }),
            Ordering::Greater => return Err(StoreError::Newer { found, ours }),
            Ordering::Equal => {}
        }
        match row.text(1)?.as_deref() {
            None => Err(StoreError::Unmade),
            Some(found) if found == installation => Ok(Self::on(database)),
            Some(_) => Err(StoreError::Foreign),
        }
    }

    /// How far the streams are folded.
    pub async fn progress(&self) -> Result<Progress, StoreError> {
        let rows =
            self.database.fetch(Statement::new("SELECT events, journal, config FROM fanfare_log"));
        let rows = rows.await?;
        let Some(row) = rows.first() else { return Ok(Progress::default()) };
        let number = |column: usize| -> Result<u64, StoreError> {
            Ok(u64::try_from(row.integer(column)?.unwrap_or_default()).unwrap_or_default())
        };
        Ok(Progress { events: number(0)?, journal: number(1)?, config: number(2)? })
    }

    /// Writes changes that bring the fold from `before` to `after`, all or nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Moved`] if the progress is not `before`. After any other error it is not known
    /// whether the changes are written: the progress says.
    pub async fn apply(
        &self,
        mut changes: Changes,
        before: Progress,
        after: Progress,
    ) -> Result<(), StoreError> {
        let mut transaction = self.database.begin().await?;
        let (forgotten, installation) = advance(&mut transaction, before, after).await?;
        changes.forget(forgotten);
        upsert::audit(&mut transaction, &installation, take(&mut changes.audit).into_values())
            .await?;
        let whose = (installation.as_str(), &*self.erasing);
        let erased = deletion::erasing(&mut transaction, whose, &changes.deleted).await?;
        upsert::deleted(&mut transaction, &erased).await?;
        let deleted = deleted_among(&mut transaction, changes.endpoints()).await?;
        changes.drop_deleted(&deleted);
        expunging::note(&mut transaction, &changes.expunged).await?;
        let expunged = expunging::among(&mut transaction, changes.tenants()).await?;
        changes.drop_expunged(&expunged);
        changes.fill();
        fill_from_table(&mut transaction, &mut changes).await?;
        upsert::types(&mut transaction, &changes).await?;
        let events: Vec<EventId> = changes.events.keys().copied().collect();
        upsert::events(&mut transaction, changes.events.into_values()).await?;
        upsert::deliveries(&mut transaction, changes.deliveries.into_values()).await?;
        upsert::attempts(&mut transaction, changes.attempts.into_values()).await?;
        fill_table(&mut transaction, &events).await?;
        transaction.commit().await
    }
}

/// Moves the progress; returns before when everything is forgotten, and whose the tables are.
async fn advance(
    transaction: &mut Transaction,
    before: Progress,
    after: Progress,
) -> Result<(Timestamp, String), StoreError> {
    let mut statement = Statement::new("UPDATE fanfare_log SET events = ");
    statement.bind(after.events).push(", journal = ").bind(after.journal);
    statement.push(", config = ").bind(after.config);
    statement.push(" WHERE events = ").bind(before.events);
    statement.push(" AND journal = ").bind(before.journal);
    statement.push(" AND config = ").bind(before.config);
    statement.push(" RETURNING forgotten, installation");
    let rows = transaction.fetch(statement).await?;
    let row = rows.first().ok_or(StoreError::Moved)?;
    Ok((time(row.integer(0)?.unwrap_or_default()), row.text(1)?.unwrap_or_default()))
}

/// Finds out which of some endpoints were deleted, and when.
async fn deleted_among(
    transaction: &mut Transaction,
    endpoints: BTreeSet<EndpointId>,
) -> Result<BTreeMap<EndpointId, Timestamp>, StoreError> {
    let endpoints: Vec<EndpointId> = endpoints.into_iter().collect();
    let mut deleted = BTreeMap::new();
    for some in upsert::portions(&endpoints) {
        let mut statement =
            Statement::new("SELECT endpoint, deleted_at FROM fanfare_deleted WHERE endpoint IN ");
        statement.bind_list(some.iter().map(|id| Value::from(id.as_bytes())));
        for row in transaction.fetch(statement).await? {
            let endpoint = EndpointId::from_bytes(id(&row, 0, "endpoint")?);
            deleted.insert(endpoint, required_time(&row, 1, "deleted_at")?);
        }
    }
    Ok(deleted)
}

/// Says whose the tables are, if nobody did; fails if they are another's.
async fn adopt(transaction: &mut Transaction, installation: &str) -> Result<(), StoreError> {
    let mut statement =
        Statement::new("UPDATE fanfare_log SET installation = COALESCE(installation, ");
    statement.bind(installation).push(") RETURNING installation");
    let rows = transaction.fetch(statement).await?;
    let found = rows.first().map(|row| row.text(0)).transpose()?.flatten();
    if found.as_deref() == Some(installation) { Ok(()) } else { Err(StoreError::Foreign) }
}

/// Notes that what is of events before a time is forgotten.
pub(crate) async fn forgotten(
    transaction: &mut Transaction,
    before: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = Statement::new("UPDATE fanfare_log SET forgotten = ");
    statement.bind(nanos(before)).push(" WHERE forgotten < ").bind(nanos(before));
    transaction.execute(statement).await.map(drop)
}

/// Gives deliveries what they have from events that are in the table.
async fn fill_from_table(
    transaction: &mut Transaction,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let unknown = changes.deliveries.values().filter(|row| row.origin.is_none());
    let mut wanted: Vec<EventId> = unknown.map(|row| row.event).collect();
    wanted.dedup();
    let mut origins: BTreeMap<EventId, Origin> = BTreeMap::new();
    for some in upsert::portions(&wanted) {
        let mut statement =
            Statement::new("SELECT id, event_type, accepted_at FROM fanfare_events WHERE id IN ");
        statement.bind_list(some.iter().map(|id| Value::from(id.as_bytes())));
        for row in transaction.fetch(statement).await? {
            let event = EventId::from_bytes(id(&row, 0, "id")?);
            let event_type = read::parsed(&row, 1, "event_type")?;
            let accepted_at = required_time(&row, 2, "accepted_at")?;
            origins.insert(event, Origin { event_type, accepted_at });
        }
    }
    for row in changes.deliveries.values_mut().filter(|row| row.origin.is_none()) {
        row.origin = origins.get(&row.event).cloned();
    }
    Ok(())
}

/// Gives deliveries in the table what they have from events that came after them.
async fn fill_table(transaction: &mut Transaction, events: &[EventId]) -> Result<(), StoreError> {
    for some in upsert::portions(events) {
        let mut statement = Statement::new(
            "UPDATE fanfare_deliveries SET event_type = e.event_type, accepted_at = e.accepted_at
             FROM fanfare_events AS e WHERE e.id = fanfare_deliveries.event
             AND fanfare_deliveries.event_type IS NULL AND fanfare_deliveries.event IN ",
        );
        statement.bind_list(some.iter().map(|id| Value::from(id.as_bytes())));
        transaction.execute(statement).await?;
    }
    Ok(())
}

/// A time as it is stored.
pub(crate) fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// A time that was stored.
pub(crate) fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(nanos).unwrap_or_default())
}
