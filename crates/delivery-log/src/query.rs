//! Searching: pages of deliveries and events, newest first.
//!
//! A page is read along an index whose last column is the id, for each combination of state and
//! type that is asked for and can have rows of the page, and the walks are merged: at most a page's
//! rows of each. So the cost does not grow with the number of rows, whatever the filter. A cursor is the last id of a page: what
//! is added meanwhile moves nothing.

mod events;
mod filter;
mod known;
#[cfg(test)]
mod tests;
mod walk;

use fanfare_domain::{BatchId, DeliveryId, EventId, Outcome, TenantId};

pub use self::filter::{Cursor, EventFilter, Filter, MalformedCursor};
pub(crate) use self::filter::{highest, lowest};
pub use self::known::{Known, KnownEvent, KnownOwner, Owner};
use crate::{
    database::{Row, Statement, StoreError},
    rows::{AttemptRow, DeliveryRow, EventRow},
    store::{ATTEMPT, DELIVERY, EVENT, Store, attempt, delivery, event},
};

/// Some of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found, newest first.
    pub rows: Vec<T>,
    /// Where to go on; `None` if that was all.
    pub next: Option<Cursor>,
}

/// A delivery in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The delivery.
    pub delivery: DeliveryRow,
    /// What came of its last attempt, if one was made.
    pub last: Option<Outcome>,
}

impl Store {
    /// Finds deliveries, newest event first; up to `limit` of them, which is 1 at least.
    pub async fn deliveries(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<Listed>, StoreError> {
        let wanted = (filter.text.as_deref(), filter.pattern.as_ref());
        let types = self.types_of(&filter.tenant, wanted).await?;
        let mut limit = limit.max(1);
        let Some(search) = walk::Search::new(filter, types, after) else { return Ok(nothing()) };
        let walks = search.walks();
        let rows = if walks.len() > walk::WALKS_MAX {
            limit = limit.min(walk::PAGE_MAX);
            let mut snapshot = self.database.snapshot().await?;
            let begin = snapshot.fetch(search.beginnings(limit + 1)).await?;
            let begin = begin.iter().filter_map(|row| walk::begins(row).transpose());
            let walks = begin.collect::<Result<Vec<_>, _>>()?;
            if walks.is_empty() {
                return Ok(nothing());
            }
            snapshot.fetch(search.page(&walks, limit + 1)).await?
        } else {
            self.database.fetch(search.page(&walks, limit + 1)).await?
        };
        let rows = rows.iter().map(listed).collect::<Result<Vec<_>, _>>()?;
        Ok(page(rows, limit, |row| *row.delivery.id.as_bytes()))
    }

    /// Finds events, newest first; up to `limit` of them, which is 1 at least.
    pub async fn events(
        &self,
        filter: &EventFilter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<EventRow>, StoreError> {
        let wanted = (filter.text.as_deref(), filter.pattern.as_ref());
        let types = self.types_of(&filter.tenant, wanted).await?;
        let mut limit = limit.max(1);
        let Some(search) = events::Search::new(filter, types, after) else { return Ok(nothing()) };
        let walks = search.walks();
        let rows = if walks.len() > walk::WALKS_MAX {
            limit = limit.min(walk::PAGE_MAX);
            let mut snapshot = self.database.snapshot().await?;
            let begin = snapshot.fetch(search.beginnings(limit + 1)).await?;
            let begin = begin.iter().filter_map(|row| events::begins(row).transpose());
            let walks = begin.map(|found| found.map(Some)).collect::<Result<Vec<_>, _>>()?;
            if walks.is_empty() {
                return Ok(nothing());
            }
            snapshot.fetch(search.page(&walks, limit + 1)).await?
        } else {
            self.database.fetch(search.page(&walks, limit + 1)).await?
        };
        let rows = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        Ok(page(rows, limit, |row| *row.id.as_bytes()))
    }

    /// Finds a tenant's delivery.
    pub async fn delivery(
        &self,
        tenant: &TenantId,
        id: DeliveryId,
    ) -> Result<Option<DeliveryRow>, StoreError> {
        let mut statement = Statement::new("SELECT ");
        statement.push(DELIVERY).push(" FROM fanfare_deliveries WHERE id = ").bind(id.as_bytes());
        let rows = self.database.fetch(statement).await?;
        let found = rows.first().map(delivery).transpose()?;
        Ok(found.filter(|row| row.tenant == *tenant))
    }

    /// Finds a tenant's event.
    pub async fn event(
        &self,
        tenant: &TenantId,
        id: EventId,
    ) -> Result<Option<EventRow>, StoreError> {
        let mut statement = Statement::new("SELECT ");
        statement.push(EVENT).push(" FROM fanfare_events WHERE id = ").bind(id.as_bytes());
        let rows = self.database.fetch(statement).await?;
        let found = rows.first().map(event).transpose()?;
        Ok(found.filter(|row| row.tenant == *tenant))
    }

    /// Returns the attempts of a delivery, first one first; up to `limit`.
    pub async fn attempts(
        &self,
        delivery: DeliveryId,
        limit: u32,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let mut statement = Statement::new("SELECT ");
        statement.push(ATTEMPT).push(" FROM fanfare_attempts WHERE delivery = ");
        statement.bind(delivery.as_bytes()).push(" ORDER BY number LIMIT ").bind(limit);
        self.database.fetch(statement).await?.iter().map(attempt).collect()
    }

    /// Returns the attempts of a delivery that come after one, first one first; up to `limit`.
    pub async fn attempts_after(
        &self,
        delivery: DeliveryId,
        number: u32,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let mut statement = Statement::new("SELECT ");
        statement.push(ATTEMPT).push(" FROM fanfare_attempts WHERE delivery = ");
        statement.bind(delivery.as_bytes()).push(" AND number > ").bind(number);
        statement.push(" ORDER BY number LIMIT ").bind(walk::rows(limit));
        self.database.fetch(statement).await?.iter().map(attempt).collect()
    }

    /// Finds an attempt of a delivery.
    pub async fn attempt(
        &self,
        delivery: DeliveryId,
        number: u32,
    ) -> Result<Option<AttemptRow>, StoreError> {
        let before = number.saturating_sub(1);
        let found = self.attempts_after(delivery, before, 1).await?;
        Ok(found.into_iter().find(|attempt| attempt.number == number))
    }

    /// Returns the deliveries of a batch, in the order in which they were in the request, by the
    /// number of the attempt: the same deliveries tried again are the same batch.
    pub async fn in_batch(
        &self,
        batch: BatchId,
        number: u32,
    ) -> Result<Vec<DeliveryRow>, StoreError> {
        let mut statement = Statement::new("SELECT ");
        statement.push(DELIVERY).push(
            " FROM fanfare_deliveries WHERE id IN (SELECT delivery FROM fanfare_attempts
            WHERE batch IS NOT NULL AND batch = ",
        );
        statement.bind(batch.as_bytes()).push(" AND number = ").bind(number);
        statement.push(") ORDER BY event_sequence, id");
        self.database.fetch(statement).await?.iter().map(delivery).collect()
    }
}

fn listed(row: &Row) -> Result<Listed, StoreError> {
    let last = match row.text(walk::OUTCOME)? {
        Some(_) => Some(crate::store::outcome(row, walk::OUTCOME)?),
        None => None,
    };
    Ok(Listed { delivery: delivery(row)?, last })
}

const fn nothing<T>() -> Page<T> {
    Page { rows: Vec::new(), next: None }
}

/// Cuts a page from rows of which there is one more than it takes, if there are more.
fn page<T>(mut rows: Vec<T>, limit: usize, id: impl Fn(&T) -> [u8; 16]) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| Cursor(id(last)));
    Page { rows, next }
}
