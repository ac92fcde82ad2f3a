//! Forgetting: rows of old events, in small steps between the writes.

use fanfare_domain::Timestamp;

use crate::{
    database::{Statement, StoreError, Transaction},
    query::lowest,
    store::{Store, forgotten},
};

/// The tables, each with its key's first column, which carries the event's time.
const STEPS: [(&str, &str); 3] = [
    (
        "DELETE FROM fanfare_attempts WHERE (delivery, number) IN \
         (SELECT delivery, number FROM fanfare_attempts WHERE delivery < ",
        " ORDER BY delivery, number LIMIT ",
    ),
    (
        "DELETE FROM fanfare_deliveries WHERE id IN \
         (SELECT id FROM fanfare_deliveries WHERE id < ",
        " ORDER BY id LIMIT ",
    ),
    (
        "DELETE FROM fanfare_events WHERE id IN (SELECT id FROM fanfare_events WHERE id < ",
        " ORDER BY id LIMIT ",
    ),
];

impl Store {
    /// Forgets what is of events accepted before a time: up to `limit` rows, in one transaction.
    /// Returns how many; fewer than `limit` once nothing is left.
    ///
    /// Facts that come later about such events are not folded any more.
    pub async fn forget(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut transaction = self.database.begin().await?;
        forgotten(&mut transaction, before).await?;
        let mut left = u64::from(limit);
        for (head, tail) in STEPS {
            left -= step(&mut transaction, (head, tail), before, left).await?.min(left);
        }
        transaction.commit().await?;
        Ok(u64::from(limit) - left)
    }
}

async fn step(
    transaction: &mut Transaction,
    (head, tail): (&'static str, &'static str),
    before: Timestamp,
    limit: u64,
) -> Result<u64, StoreError> {
    if limit == 0 {
        return Ok(0);
    }
    let mut statement = Statement::new(head);
    statement.bind(&lowest(before)).push(tail).bind(limit).push(")");
    transaction.execute(statement).await
}
