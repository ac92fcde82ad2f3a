//! Counts into the table, beside the rows that change them.

use std::collections::BTreeMap;

use fanfare_domain::{DeliveryId, EndpointId};

use super::{Attempt, Key, Tally};
use crate::{
    database::{Row, Statement, StoreError, Transaction, Value},
    fold::Changes,
    rows::{AttemptRow, DeliveryRow, Place, State},
    store::{
        id,
        upsert::{portions, write},
    },
};

/// What rows are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Events,
    Deliveries,
    Attempts,
}

/// How many rows are counted at once where there are no counts yet.
const PAGE: u32 = 10_000;

const DELIVERIES: &str = "endpoint, id, state";

impl Tally {
    /// Takes note of what writing rows will change: before they are written.
    pub(crate) async fn before_writing(
        &mut self,
        transaction: &mut Transaction,
        changes: &Changes,
    ) -> Result<(), StoreError> {
        self.before_deliveries(transaction, &changes.deliveries).await?;
        self.before_attempts(transaction, &changes.attempts).await
    }

    async fn before_deliveries(
        &mut self,
        transaction: &mut Transaction,
        rows: &BTreeMap<DeliveryId, DeliveryRow>,
    ) -> Result<(), StoreError> {
        let mut known = BTreeMap::new();
        let question =
            "SELECT endpoint, id, state, step, place FROM fanfare_deliveries WHERE id IN ";
        let ids: Vec<_> = rows.keys().copied().collect();
        for row in among(transaction, question, &ids).await? {
            let (_, id, state) = delivery(&row)?;
            known.insert(id, ((required(&row, 3, "step")?, required(&row, 4, "place")?), state));
        }
        for (id, row) in rows {
            let (whose, state) = ((row.endpoint, *id), row.standing.state);
            match known.get(id) {
                None => self.delivery(whose, state, 1),
                Some((rank, before)) if row.standing.rank() > *rank => {
                    self.delivery(whose, *before, -1);
                    self.delivery(whose, state, 1);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn before_attempts(
        &mut self,
        transaction: &mut Transaction,
        rows: &BTreeMap<(DeliveryId, u32), AttemptRow>,
    ) -> Result<(), StoreError> {
        let mut known = BTreeMap::new();
        let question = "SELECT endpoint, outcome, status, fault, retry_after, started_at, duration, \
            delivery, number, place FROM fanfare_attempts WHERE delivery IN ";
        let mut ids: Vec<_> = rows.keys().map(|(delivery, _)| *delivery).collect();
        ids.dedup();
        for row in among(transaction, question, &ids).await? {
            let delivery = DeliveryId::from_bytes(id(&row, 7, "delivery")?);
            let place = Place(required(&row, 9, "place")?);
            known.insert((delivery, required(&row, 8, "number")?), (place, Attempt::read(&row)?));
        }
        for ((delivery, number), row) in rows {
            match known.get(&(*delivery, i64::from(*number))) {
                None => self.attempt(&Attempt::of(row), 1),
                Some((place, before)) if row.place > *place => {
                    self.attempt(before, -1);
                    self.attempt(&Attempt::of(row), 1);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Removes rows of a table by a statement, and takes note of them; returns how many.
    pub(crate) async fn remove(
        &mut self,
        transaction: &mut Transaction,
        table: Table,
        mut statement: Statement,
    ) -> Result<u64, StoreError> {
        match table {
            Table::Events => return transaction.execute(statement).await,
            Table::Deliveries => statement.push(" RETURNING ").push(DELIVERIES),
            Table::Attempts => statement.push(" RETURNING ").push(Attempt::COLUMNS),
        };
        let rows = transaction.fetch(statement).await?;
        self.count(table, &rows, -1)?;
        Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
    }

    fn count(&mut self, table: Table, rows: &[Row], by: i64) -> Result<(), StoreError> {
        for row in rows {
            match table {
                Table::Events => {}
                Table::Deliveries => {
                    let (endpoint, id, state) = delivery(row)?;
                    self.delivery((endpoint, id), state, by);
                }
                Table::Attempts => self.attempt(&Attempt::read(row)?, by),
            }
        }
        Ok(())
    }

    /// What changes: the columns of each key, and by how much.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Vec<Value>, i64)> + Send {
        let changed = self.0.iter().filter(|(_, by)| **by != 0);
        changed.map(|(key, by)| (key.values(), *by))
    }

    /// Writes what was noted. A count of which nothing is left is removed, so that the table is the
    /// same whatever was there in between.
    pub(crate) async fn write(self, transaction: &mut Transaction) -> Result<(), StoreError> {
        let head = "INSERT INTO fanfare_counts AS c (endpoint, grain, begun, what, value, count) \
            VALUES ";
        let tail = " ON CONFLICT (endpoint, grain, begun, what, value) \
            DO UPDATE SET count = c.count + excluded.count";
        let rows = self.rows().map(|(mut values, by)| {
            values.push(by.into());
            values
        });
        write(transaction, (head, tail), rows).await?;
        let fewer: Vec<&Key> = self.0.iter().filter(|(_, by)| **by < 0).map(|it| it.0).collect();
        for some in portions(&fewer) {
            let mut statement = Statement::new(
                "DELETE FROM fanfare_counts WHERE count = 0 \
                 AND (endpoint, grain, begun, what, value) IN (VALUES ",
            );
            for (index, key) in some.iter().enumerate() {
                if index > 0 {
                    statement.push(", ");
                }
                statement.bind_list(key.values());
            }
            statement.push(")");
            transaction.execute(statement).await?;
        }
        Ok(())
    }
}

/// Counts all rows that are there.
pub(crate) async fn fill(transaction: &mut Transaction) -> Result<(), StoreError> {
    let mut after = [0; 16];
    loop {
        let mut statement = Statement::new("SELECT ");
        statement.push(DELIVERIES).push(" FROM fanfare_deliveries WHERE id > ").bind(&after);
        statement.push(" ORDER BY id LIMIT ").bind(PAGE);
        let rows = transaction.fetch(statement).await?;
        let Some(last) = rows.last() else { break };
        after = id(last, 1, "id")?;
        add(transaction, Table::Deliveries, &rows).await?;
    }
    let mut after = ([0; 16], 0);
    loop {
        let mut statement = Statement::new("SELECT ");
        statement.push(Attempt::COLUMNS).push(", delivery, number FROM fanfare_attempts ");
        statement.push("WHERE (delivery, number) > (").bind(&after.0).push(", ").bind(after.1);
        statement.push(") ORDER BY delivery, number LIMIT ").bind(PAGE);
        let rows = transaction.fetch(statement).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (id(last, 7, "delivery")?, required(last, 8, "number")?);
        add(transaction, Table::Attempts, &rows).await?;
    }
}

async fn add(transaction: &mut Transaction, table: Table, rows: &[Row]) -> Result<(), StoreError> {
    let mut tally = Tally::default();
    tally.count(table, rows, 1)?;
    tally.write(transaction).await
}

/// Asks for rows of some deliveries.
async fn among(
    transaction: &mut Transaction,
    question: &'static str,
    ids: &[DeliveryId],
) -> Result<Vec<Row>, StoreError> {
    let mut found = Vec::new();
    for some in portions(ids) {
        let mut statement = Statement::new(question);
        statement.bind_list(some.iter().map(|id| Value::from(id.as_bytes())));
        found.extend(transaction.fetch(statement).await?);
    }
    Ok(found)
}

/// Reads [`DELIVERIES`].
fn delivery(row: &Row) -> Result<(EndpointId, DeliveryId, State), StoreError> {
    let state = row.text(2)?.as_deref().and_then(State::from_name);
    Ok((
        EndpointId::from_bytes(id(row, 0, "endpoint")?),
        DeliveryId::from_bytes(id(row, 1, "id")?),
        state.ok_or(StoreError::Malformed { what: "state" })?,
    ))
}

fn required(row: &Row, column: usize, what: &'static str) -> Result<i64, StoreError> {
    row.integer(column)?.ok_or(StoreError::Malformed { what })
}
