//! The statements that find events, and the types that a text is in. As in [`walk`].

use fanfare_domain::{EventType, TenantId, TypePattern};

use super::{
    filter::{Cursor, EventFilter, Meant},
    walk::{self, Span, Types},
};
use crate::{
    database::{Row, Statement, StoreError, Value},
    store::{EVENT, Store},
};

/// How many types are walked along, each by itself; more are looked at on the way.
const TYPES_MAX: usize = 500;
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

/// What is looked for, made ready.
pub(super) struct Search<'a> {
    filter: &'a EventFilter,
    /// What the text means.
    meant: Option<Meant>,
    types: Types,
    span: Span,
}

/// A walk: a type, unless all of them count.
type Walk = Option<EventType>;

impl<'a> Search<'a> {
    /// Makes it ready; `None` if nothing can be found.
    pub(super) fn new(
        filter: &'a EventFilter,
        types: Types,
        after: Option<Cursor>,
    ) -> Option<Self> {
        let meant = filter.text.as_deref().map(Meant::by);
        // Deliveries are no events.
        if matches!(meant, Some(Meant::Delivery(_))) {
            return None;
        }
        let span = walk::span((filter.since, filter.until), meant.as_ref(), after)?;
        let types = types.only(filter.event_type.as_ref(), filter.text.as_deref())?;
        Some(Self { filter, meant, types, span })
    }

    /// All walks that there can be.
    pub(super) fn walks(&self) -> Vec<Walk> {
        match &self.types {
            Types::Few(types) => types.iter().cloned().map(Some).collect(),
            Types::Any | Types::Many(_) | Types::Like(_) => vec![None],
        }
    }

    /// Asks which walks begin latest; [`begins`] reads the answer.
    pub(super) fn beginnings(&self, limit: usize) -> Statement {
        let mut statement = Statement::new(
            "SELECT event_type, newest FROM (SELECT t.event_type AS event_type, \
             (SELECT id FROM fanfare_events WHERE tenant = ",
        );
        statement.bind(self.filter.tenant.as_str()).push(" AND event_type = t.event_type");
        self.within(&mut statement, 1);
        statement.push(") AS newest FROM fanfare_types AS t WHERE t.tenant = ");
        statement.bind(self.filter.tenant.as_str());
        if let Types::Few(types) = &self.types {
            let types = types.iter().map(|event_type| Value::from(event_type.as_str()));
            statement.push(" AND t.event_type IN ").bind_list(types);
        }
        statement.push(") AS beginnings ORDER BY newest DESC NULLS LAST LIMIT ");
        statement.bind(walk::rows(limit));
        statement
    }

    /// Finds a page's events.
    pub(super) fn page(&self, walks: &[Walk], limit: usize) -> Statement {
        let mut statement = Statement::new("SELECT ");
        statement.push(EVENT).push(" FROM fanfare_events WHERE id IN (SELECT id FROM (");
        for (index, event_type) in walks.iter().enumerate() {
            if index > 0 {
                statement.push(" UNION ALL ");
            }
            statement.push("SELECT id FROM (SELECT id FROM fanfare_events WHERE tenant = ");
            statement.bind(self.filter.tenant.as_str());
            if let Some(event_type) = event_type {
                statement.push(" AND event_type = ").bind(event_type.as_str());
            }
            walk::on_the_way(&mut statement, &self.types);
            match &self.meant {
                Some(Meant::Event(id)) => drop(statement.push(" AND id = ").bind(id.as_bytes())),
                Some(Meant::Events(first, last)) => {
                    statement.push(" AND id >= ").bind(first.as_bytes());
                    statement.push(" AND id <= ").bind(last.as_bytes());
                }
                Some(Meant::Delivery(_) | Meant::Type) | None => {}
            }
            self.within(&mut statement, limit);
            statement.push(") AS walk");
        }
        statement.push(") AS walks ORDER BY id DESC LIMIT ").bind(walk::rows(limit));
        statement.push(") ORDER BY id DESC");
        statement
    }

    fn within(&self, statement: &mut Statement, limit: usize) {
        let (low, high) = &self.span;
        statement.push(" AND id >= ").bind(low).push(" AND id <= ").bind(high);
        statement.push(" ORDER BY id DESC LIMIT ").bind(walk::rows(limit));
    }
}

/// Reads which types to walk along.
pub(super) fn begins(row: &Row) -> Result<Option<EventType>, StoreError> {
    if row.bytes(1)?.is_none() { Ok(None) } else { event_type(row).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_sql_is_taken_for_itself() {
        assert_eq!(pattern(" Order_50%! "), "%order!_50!%!!%");
    }
}
