//! The statement that finds events, and the types that a text is in.

use fanfare_domain::{EventType, TenantId};

use super::{
    filter::{Cursor, EventFilter, Meant},
    walk::{self, Types},
};
use crate::{
    database::{Statement, StoreError},
    store::{EVENT, Store},
};

/// How many types are walked along, each by itself; more are looked at on the way.
const TYPES_MAX: usize = 16;

impl Store {
    /// Finds the types of a tenant that a text is in, if it is a text for types.
    pub(super) async fn types_like(
        &self,
        tenant: &TenantId,
        text: Option<&str>,
    ) -> Result<Types, StoreError> {
        let Some(text) = text.filter(|text| Meant::by(text) == Meant::Type) else {
            return Ok(Types::Any);
        };
        let pattern = pattern(text);
        let mut statement = Statement::new("SELECT event_type FROM fanfare_types WHERE tenant = ");
        statement.bind(tenant.as_str());
        walk::like(&mut statement, &pattern);
        statement.push(" ORDER BY event_type LIMIT ").bind(walk::rows(TYPES_MAX + 1));
        let rows = self.database.fetch(statement).await?;
        if rows.len() > TYPES_MAX {
            return Ok(Types::Like(pattern));
        }
        let types = rows.iter().map(|row| {
            let parsed: Option<EventType> = row.text(0)?.and_then(|text| text.parse().ok());
            parsed.ok_or(StoreError::Malformed { what: "event_type" })
        });
        types.collect::<Result<_, _>>().map(Types::Few)
    }
}

/// Returns the pattern of SQL for what a text is in.
fn pattern(text: &str) -> String {
    let mut pattern = String::from("%");
    for symbol in text.trim().to_lowercase().chars() {
        if matches!(symbol, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(symbol);
    }
    pattern.push('%');
    pattern
}

/// Makes the statement; `None` if nothing can be found.
pub(super) fn statement(
    filter: &EventFilter,
    types: Types,
    after: Option<Cursor>,
    limit: usize,
) -> Option<Statement> {
    let meant = filter.text.as_deref().map(Meant::by);
    // Deliveries are no events.
    if matches!(meant, Some(Meant::Delivery(_))) {
        return None;
    }
    let (low, high) = walk::span((filter.since, filter.until), meant.as_ref(), after)?;
    let types = types.only(filter.event_type.as_ref(), filter.text.as_deref())?;
    let along: Vec<Option<&EventType>> = match &types {
        Types::Few(types) => types.iter().map(Some).collect(),
        Types::Any | Types::Like(_) => vec![None],
    };
    let mut statement = Statement::new("SELECT ");
    statement.push(EVENT).push(" FROM (");
    for (index, event_type) in along.iter().enumerate() {
        if index > 0 {
            statement.push(" UNION ALL ");
        }
        statement.push("SELECT * FROM (SELECT ").push(EVENT);
        statement.push(" FROM fanfare_events WHERE tenant = ").bind(filter.tenant.as_str());
        if let Some(event_type) = event_type {
            statement.push(" AND event_type = ").bind(event_type.as_str());
        }
        if let Types::Like(pattern) = &types {
            walk::like(&mut statement, pattern);
        }
        match &meant {
            Some(Meant::Event(id)) => drop(statement.push(" AND id = ").bind(id.as_bytes())),
            Some(Meant::Events(first, last)) => {
                statement.push(" AND id >= ").bind(first.as_bytes());
                statement.push(" AND id <= ").bind(last.as_bytes());
            }
            Some(Meant::Delivery(_) | Meant::Type) | None => {}
        }
        statement.push(" AND id >= ").bind(&low).push(" AND id <= ").bind(&high);
        statement.push(" ORDER BY id DESC LIMIT ").bind(walk::rows(limit)).push(") AS walk");
    }
    statement.push(") AS e ORDER BY id DESC LIMIT ").bind(walk::rows(limit));
    Some(statement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_sql_is_taken_for_itself() {
        assert_eq!(pattern(" Order_50%! "), "%order!_50!%!!%");
    }
}
