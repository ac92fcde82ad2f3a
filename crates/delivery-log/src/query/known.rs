//! What the tables say of particular deliveries, and up to where of the journal that is so.
//!
//! The tables are a moment behind. Who has to know how a delivery stands now reads the journal from
//! there on and folds it into [`Changes`](crate::Changes): that is what the tables will say.

use std::collections::BTreeSet;

use fanfare_domain::{DeliveryId, EndpointId, EventId, TenantId, Timestamp};

use super::walk;
use crate::{
    database::{Statement, StoreError, Transaction, Value},
    rows::{DeliveryRow, EventRow},
    store::{DELIVERY, EVENT, Store, delivery, event, time, upsert::portions},
};

/// Some deliveries, as the tables had them at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The sequence of the last message of JOURNAL that was folded; 0 for none.
    pub journal: u64,
    /// What is of events accepted before that is forgotten.
    pub kept_since: Timestamp,
    /// Those deliveries that there are.
    pub rows: Vec<DeliveryRow>,
}

/// What became of an event for some endpoints, as the tables had it at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEvent {
    /// The deliveries that its acceptance caused, and what was skipped, by endpoint.
    pub deliveries: Known,
    /// Whether there are any, also to other endpoints.
    pub is_routed: bool,
    /// The event, if it was folded.
    pub event: Option<EventRow>,
}

/// Whose something is, as the tables had it at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOwner {
    /// The sequence of the last message of JOURNAL that was folded, and since when it is kept.
    pub known: Known,
    /// Whose, if it was there.
    pub owner: Option<Owner>,
}

/// Whose a delivery or an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Whose.
    pub tenant: TenantId,
    /// The event, or that of the delivery.
    pub event: EventId,
    /// Its sequence in EVENTS.
    pub event_sequence: u64,
    /// Where the delivery goes; none of an event.
    pub endpoint: Option<EndpointId>,
}

impl Store {
    /// Finds out whose a delivery is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unmade`] if nobody keeps the tables yet.
    pub async fn owner_of_delivery(&self, id: DeliveryId) -> Result<KnownOwner, StoreError> {
        let mut snapshot = self.database.snapshot().await?;
        let known = nothing(&mut snapshot).await?;
        let mut statement = Statement::new("SELECT ");
        statement.push(DELIVERY).push(" FROM fanfare_deliveries WHERE id = ").bind(id.as_bytes());
        let rows = snapshot.fetch(statement).await?;
        let found = rows.first().map(delivery).transpose()?;
        let owner = found.map(|row| Owner { endpoint: Some(row.endpoint), ..Owner::of(row) });
        Ok(KnownOwner { known, owner })
    }

    /// Finds out whose an event is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unmade`] if nobody keeps the tables yet.
    pub async fn owner_of_event(&self, id: EventId) -> Result<KnownOwner, StoreError> {
        let mut snapshot = self.database.snapshot().await?;
        let known = nothing(&mut snapshot).await?;
        let rows = snapshot.fetch(event_of(id)).await?;
        if let Some(EventRow { id: event, tenant, sequence: event_sequence, .. }) =
            rows.first().map(event).transpose()?
        {
            let owner = Some(Owner { tenant, event, event_sequence, endpoint: None });
            return Ok(KnownOwner { known, owner });
        }
        // EVENTS and JOURNAL are folded side by side: its deliveries may be there first.
        let rows = snapshot.fetch(of_event(id, None, 1)).await?;
        let owner = rows.first().map(delivery).transpose()?.map(Owner::of);
        Ok(KnownOwner { known, owner })
    }

    /// Finds those of some deliveries that are a tenant's.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unmade`] if nobody keeps the tables yet.
    pub async fn known(
        &self,
        tenant: &TenantId,
        ids: &BTreeSet<DeliveryId>,
    ) -> Result<Known, StoreError> {
        let mut snapshot = self.database.snapshot().await?;
        let mut known = nothing(&mut snapshot).await?;
        let ids: Vec<DeliveryId> = ids.iter().copied().collect();
        for some in portions(&ids) {
            let mut statement = Statement::new("SELECT ");
            statement.push(DELIVERY).push(" FROM fanfare_deliveries WHERE id IN ");
            statement.bind_list(some.iter().map(|id| Value::from(id.as_bytes())));
            known.take(&mut snapshot, statement, tenant).await?;
        }
        Ok(known)
    }

    /// Finds what became of a tenant's event for up to `limit` endpoints, by their ids: those behind
    /// `after`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unmade`] if nobody keeps the tables yet.
    pub async fn known_of_event(
        &self,
        tenant: &TenantId,
        id: EventId,
        (after, limit): (Option<EndpointId>, usize),
    ) -> Result<KnownEvent, StoreError> {
        let mut snapshot = self.database.snapshot().await?;
        let mut deliveries = nothing(&mut snapshot).await?;
        deliveries.take(&mut snapshot, of_event(id, after, limit), tenant).await?;
        let mut is_routed = !deliveries.rows.is_empty();
        if !is_routed && after.is_some() {
            let mut any = Known { rows: Vec::new(), ..deliveries.clone() };
            any.take(&mut snapshot, of_event(id, None, 1), tenant).await?;
            is_routed = !any.rows.is_empty();
        }
        let rows = snapshot.fetch(event_of(id)).await?;
        let found = rows.first().map(event).transpose()?.filter(|row| row.tenant == *tenant);
        Ok(KnownEvent { deliveries, is_routed, event: found })
    }
}

impl Owner {
    /// That of a delivery's event.
    fn of(row: DeliveryRow) -> Self {
        let DeliveryRow { tenant, event, event_sequence, .. } = row;
        Self { tenant, event, event_sequence, endpoint: None }
    }
}

impl Known {
    async fn take(
        &mut self,
        snapshot: &mut Transaction,
        statement: Statement,
        tenant: &TenantId,
    ) -> Result<(), StoreError> {
        for row in snapshot.fetch(statement).await? {
            let row = delivery(&row)?;
            if row.tenant == *tenant {
                self.rows.push(row);
            }
        }
        Ok(())
    }
}

fn event_of(id: EventId) -> Statement {
    let mut statement = Statement::new("SELECT ");
    statement.push(EVENT).push(" FROM fanfare_events WHERE id = ").bind(id.as_bytes());
    statement
}

fn of_event(id: EventId, after: Option<EndpointId>, limit: usize) -> Statement {
    let mut statement = Statement::new("SELECT ");
    statement.push(DELIVERY).push(" FROM fanfare_deliveries WHERE event = ").bind(id.as_bytes());
    statement.push(" AND generation = 0");
    if let Some(after) = after {
        statement.push(" AND endpoint > ").bind(after.as_bytes());
    }
    statement.push(" ORDER BY endpoint LIMIT ").bind(walk::rows(limit));
    statement
}

/// How far the tables are, and nothing in them.
async fn nothing(snapshot: &mut Transaction) -> Result<Known, StoreError> {
    let question = Statement::new("SELECT journal, forgotten FROM fanfare_log");
    let rows = snapshot.fetch(question).await?;
    let row = rows.first().ok_or(StoreError::Unmade)?;
    let journal = u64::try_from(row.integer(0)?.unwrap_or_default()).unwrap_or_default();
    let kept_since = time(row.integer(1)?.unwrap_or_default());
    Ok(Known { journal, kept_since, rows: Vec::new() })
}
