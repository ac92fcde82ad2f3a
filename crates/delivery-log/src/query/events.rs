//! The statement that finds events, and the types that a text is in.

use fanfare_domain::{EventType, TenantId, TypePattern};

use super::{
    filter::{Cursor, EventFilter, Meant},
    walk::{self, Types},
};
use crate::{
    database::{Row, Statement, StoreError},
    store::{EVENT, Store},
};

/// How many types are walked along, each by itself; more are looked at on the way.
const TYPES_MAX: usize = 16;
/// How many types of a tenant a pattern is held against, and how many it may choose.
const KNOWN_MAX: usize = 10_000;
const CHOSEN_MAX: usize = 1_000;

impl Store {
    /// Finds the types of a tenant that a text is in, if it is a text for types, and that a pattern
    /// chooses.
    pub(super) async fn types_of(
        &self,
        tenant: &TenantId,
        (text, pattern): (Option<&str>, Option<&TypePattern>),
    ) -> Result<Types, StoreError> {
        let Some(pattern) = pattern.filter(|pattern| pattern.as_str() != ">") else {
            return self.types_like(tenant, text).await;
        };
        let text = text.filter(|text| Meant::by(text) == Meant::Type);
        let text = text.unwrap_or_default().trim().to_lowercase();
        let mut statement = Statement::new("SELECT event_type FROM fanfare_types WHERE tenant = ");
        statement.bind(tenant.as_str());
        statement.push(" ORDER BY event_type LIMIT ").bind(walk::rows(KNOWN_MAX + 1));
        let rows = self.database.fetch(statement).await?;
        let known = rows.iter().map(event_type).collect::<Result<Vec<EventType>, _>>()?;
        let all_known = known.len() <= KNOWN_MAX;
        let chosen = known.into_iter().filter(|known| {
            pattern.matches(known) && known.as_str().to_lowercase().contains(&text)
        });
        let chosen: Vec<EventType> = chosen.collect();
        match chosen.len() {
            count if count > CHOSEN_MAX || !all_known => Err(StoreError::TooManyTypes),
            count if count > TYPES_MAX => Ok(Types::Many(chosen)),
            _ => Ok(Types::Few(chosen)),
        }
    }

    /// Finds the types of a tenant that a text is in, if it is a text for types.
    async fn types_like(&self, tenant: &TenantId, text: Option<&str>) -> Result<Types, StoreError> {
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
        rows.iter().map(event_type).collect::<Result<_, _>>().map(Types::Few)
    }
}

fn event_type(row: &Row) -> Result<EventType, StoreError> {
    let parsed = row.text(0)?.and_then(|text| text.parse().ok());
    parsed.ok_or(StoreError::Malformed { what: "event_type" })
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
        Types::Any | Types::Many(_) | Types::Like(_) => vec![None],
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
        walk::on_the_way(&mut statement, &types);
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
