//! Forgetting: rows of old events, in small steps between the writes.

use fanfare_domain::Timestamp;

use crate::{
    counts::{Table, Tally},
    database::{Statement, StoreError},
    query::lowest,
    store::{Store, forgotten},
};

/// The tables, each with its key's first column, which carries the event's time.
const STEPS: [(Table, &str, &str); 3] = [
    (
        Table::Attempts,
        "DELETE FROM fanfare_attempts WHERE (delivery, number) IN \
         (SELECT delivery, number FROM fanfare_attempts WHERE delivery < ",
        " ORDER BY delivery, number LIMIT ",
    ),
    (
        Table::Deliveries,
        "DELETE FROM fanfare_deliveries WHERE id IN \
         (SELECT id FROM fanfare_deliveries WHERE id < ",
        " ORDER BY id LIMIT ",
    ),
    (
        Table::Events,
        "DELETE FROM fanfare_events WHERE id IN (SELECT id FROM fanfare_events WHERE id < ",
        " ORDER BY id LIMIT ",
    ),
];

/// Types, each with something of it, which is found along an index.
const TYPES: &str = "SELECT t.tenant, t.event_type, \
    (SELECT CAST(1 AS BIGINT) FROM fanfare_events AS e \
        WHERE e.tenant = t.tenant AND e.event_type = t.event_type LIMIT 1), \
    (SELECT CAST(1 AS BIGINT) FROM fanfare_deliveries AS d \
        WHERE d.tenant = t.tenant AND d.event_type = t.event_type LIMIT 1) \
    FROM fanfare_types AS t WHERE (t.tenant, t.event_type) > (";

impl Store {
    /// Forgets what is of events accepted before a time: up to `limit` rows, in one transaction.
    /// Returns how many; fewer than `limit` once nothing is left.
    ///
    /// Facts that come later about such events are not folded any more.
    pub async fn forget(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut transaction = self.begin_alone().await?;
        forgotten(&mut transaction, before).await?;
        let mut left = u64::from(limit);
        let mut tally = Tally::default();
        for (table, head, tail) in STEPS {
            if left == 0 {
                break;
            }
            let mut statement = Statement::new(head);
            statement.bind(&lowest(before)).push(tail).bind(left).push(")");
            left -= tally.remove(&mut transaction, table, statement).await?.min(left);
        }
        tally.write(&mut transaction).await?;
        transaction.commit().await?;
        Ok(u64::from(limit) - left)
    }
}

/// A type of a tenant; the first one comes after the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeCursor {
    tenant: String,
    event_type: String,
}

impl Store {
    /// Forgets types of which no event and no delivery is left: looks at up to `limit` of them, in one
    /// transaction, behind a place among all. Returns where to go on: at the beginning again, once all
    /// were looked at.
    pub async fn forget_types(
        &self,
        after: TypeCursor,
        limit: u32,
    ) -> Result<TypeCursor, StoreError> {
        let mut transaction = self.begin_alone().await?;
        let mut statement = Statement::new(TYPES);
        statement.bind(after.tenant.as_str()).push(", ").bind(after.event_type.as_str());
        statement.push(") ORDER BY t.tenant, t.event_type LIMIT ").bind(limit);
        let rows = transaction.fetch(statement).await?;
        let mut last = TypeCursor::default();
        for row in &rows {
            last = TypeCursor {
                tenant: row.text(0)?.unwrap_or_default(),
                event_type: row.text(1)?.unwrap_or_default(),
            };
            if (row.integer(2)?, row.integer(3)?) == (None, None) {
                let mut empty = Statement::new("DELETE FROM fanfare_types WHERE tenant = ");
                empty.bind(last.tenant.as_str()).push(" AND event_type = ");
                empty.bind(last.event_type.as_str());
                transaction.execute(empty).await?;
            }
        }
        transaction.commit().await?;
        let all = u32::try_from(rows.len()).is_ok_and(|count| count < limit);
        Ok(if all { TypeCursor::default() } else { last })
    }
}
