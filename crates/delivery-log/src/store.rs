//! Writing: changes of rows and how far they go, in one transaction.
//!
//! **One writer at a time, by the database itself.** The first statement of each transaction moves
//! the progress from what the writer thinks it is to what it will be. Where somebody else has
//! moved it, or the tables have become another installation's, no row is found, and nothing is
//! written ([`StoreError::Moved`]). PostgreSQL makes the second writer wait for the first at that row,
//! SQLite at the beginning of its transaction.

mod read;
mod texts;
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
    counts::Tally,
    database::{Database, Statement, StoreError, Transaction, Value},
    deletion, expunging,
    fold::Changes,
    rows::{EventRow, Origin},
    schema::{self, Whose},
    streams::Streams,
};

pub(crate) use self::read::{
    ATTEMPT, DELIVERY, EVENT, attempt, delivery, event, id, outcome, required_time,
};
use self::texts::Texts;

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
    /// What the tables bear while they are ours; `None` for those who only read.
    installation: Option<Arc<str>>,
    erasing: Arc<BTreeSet<String>>,
}

impl Store {
    fn on(database: &Database, streams: Option<&Streams>) -> Self {
        let installation = streams.map(|streams| Arc::from(streams.installation()));
        Self { database: database.clone(), installation, erasing: Arc::default() }
    }

    /// Names the profiles with which the history of a deleted endpoint is removed; without this,
    /// all is kept.
    #[must_use]
    pub fn erasing(self, profiles: BTreeSet<String>) -> Self {
        Self { erasing: Arc::new(profiles), ..self }
    }

    /// Makes the tables where there are none; where they are ours and of an older version, adds what
    /// they lack, or makes them anew.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] and [`StoreError::Unknown`] if they are not of these streams.
    pub async fn open(database: &Database, streams: &Streams) -> Result<Self, StoreError> {
        let mut transaction = database.begin().await?;
        schema::prepare(&mut transaction, streams).await?;
        transaction.commit().await?;
        Ok(Self::on(database, Some(streams)))
    }

    /// Drops everything but the audit, if it may be dropped, and makes the tables anew. What is of
    /// events before a time is not folded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Foreign`] and [`StoreError::Unknown`] if the tables are not of these streams, and
    /// have to be.
    pub async fn renew(
        database: &Database,
        streams: &Streams,
        whose: Whose,
        forgotten_before: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut transaction = database.begin().await?;
        schema::renew(&mut transaction, streams, whose).await?;
        forgotten(&mut transaction, forgotten_before).await?;
        transaction.commit().await?;
        Ok(Self::on(database, Some(streams)))
    }

    /// The tables of a database, for those who only read. They may not be there yet.
    pub fn of(database: &Database) -> Self {
        Self::on(database, None)
    }

    /// The tables of an installation, for those who only read, once somebody keeps them.
    ///
    /// # Errors
    ///
    /// If they are not there, of another version, or of another installation.
    pub async fn attach(database: &Database, streams: &Streams) -> Result<Self, StoreError> {
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
            Some(found) if streams.are(found) => Ok(Self::on(database, None)),
            Some(_) => Err(StoreError::Foreign),
        }
    }

    /// Begins to write beside others who do, in tables that stay what they are.
    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.database.begin().await?;
        schema::beside_others(&mut transaction).await?;
        Ok(transaction)
    }

    /// The same, alone: nobody else writes before this transaction ends.
    pub(crate) async fn begin_alone(&self) -> Result<Transaction, StoreError> {
        let mut transaction = self.begin().await?;
        let mut own = Statement::new("UPDATE fanfare_log SET id = id WHERE id = 1");
        self.only_ours(&mut own);
        match transaction.execute(own).await? {
            0 => Err(StoreError::Moved),
            _ => Ok(transaction),
        }
    }

    fn only_ours(&self, statement: &mut Statement) {
        if let Some(installation) = &self.installation {
            statement.push(" AND installation = ").bind(&**installation);
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
        let mut transaction = self.begin().await?;
        let (forgotten, installation) = self.advance(&mut transaction, before, after).await?;
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
        learn_from_table(&mut transaction, &mut changes).await?;
        upsert::types(&mut transaction, &changes).await?;
        let mut tally = Tally::default();
        tally.before_writing(&mut transaction, &changes).await?;
        let events: Vec<EventId> = changes.events.keys().copied().collect();
        upsert::events(&mut transaction, changes.events.into_values()).await?;
        upsert::deliveries(&mut transaction, changes.deliveries.into_values()).await?;
        upsert::attempts(&mut transaction, changes.attempts.into_values()).await?;
        teach_table(&mut transaction, &events).await?;
        tally.write(&mut transaction).await?;
        transaction.commit().await
    }

    /// Moves the progress; returns before when everything is forgotten, and whose the tables are.
    async fn advance(
        &self,
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
        self.only_ours(&mut statement);
        statement.push(" RETURNING forgotten, installation");
        let rows = transaction.fetch(statement).await?;
        let row = rows.first().ok_or(StoreError::Moved)?;
        Ok((time(row.integer(0)?.unwrap_or_default()), row.text(1)?.unwrap_or_default()))
    }
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

/// Notes that what is of events before a time is forgotten.
pub(crate) async fn forgotten(
    transaction: &mut Transaction,
    before: Timestamp,
) -> Result<(), StoreError> {
    let mut statement = Statement::new("UPDATE fanfare_log SET forgotten = ");
    statement.bind(nanos(before)).push(" WHERE forgotten < ").bind(nanos(before));
    transaction.execute(statement).await.map(drop)
}

/// Has deliveries learn from events that are in the table and not among the changes.
async fn learn_from_table(
    transaction: &mut Transaction,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    let Changes { events, deliveries, .. } = changes;
    let wanted = deliveries.values().map(|row| row.event).filter(|id| !events.contains_key(id));
    let wanted: Vec<EventId> = wanted.collect::<BTreeSet<_>>().into_iter().collect();
    let mut known: BTreeMap<EventId, (u64, Origin)> = BTreeMap::new();
    for some in upsert::portions(&wanted) {
        let mut statement = Statement::new("SELECT ");
        statement.push(EVENT).push(" FROM fanfare_events WHERE id IN ");
        statement.bind_list(some.iter().map(|id| Value::from(id.as_bytes())));
        for row in transaction.fetch(statement).await? {
            let row: EventRow = event(&row)?;
            known.insert(row.id, (row.sequence, row.origin()));
        }
    }
    for row in deliveries.values_mut() {
        if let Some((sequence, origin)) = known.get(&row.event) {
            row.learn(*sequence, Some(origin.clone()));
        }
    }
    Ok(())
}

/// Has deliveries in the table learn from events that were written.
async fn teach_table(transaction: &mut Transaction, events: &[EventId]) -> Result<(), StoreError> {
    for some in upsert::portions(events) {
        let mut statement = Statement::new(Texts::of(transaction.dialect()).learn);
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
