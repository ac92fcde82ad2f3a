//! The statements that find deliveries: one walk for each state and type, merged.
//!
//! Walks read ids alone, which the indexes have; the rows are looked up for a page's ids. Where there
//! would be many walks, it is asked first where each would begin: a page's rows are in those walks that
//! begin latest, as many as the page has rows.

use std::collections::BTreeSet;

use fanfare_domain::{EventId, EventType, Timestamp};

use super::filter::{Cursor, Filter, Meant, highest, lowest};
use crate::{
    database::{Row, Statement, StoreError, Value},
    rows::State,
};

/// The first of the four columns of the last attempt's outcome.
pub(super) const OUTCOME: usize = 15;

/// So many walks are made without a question before.
pub(super) const WALKS_MAX: usize = 16;

/// Where there would be more, a page has no more rows than this, and so no more walks: SQLite takes 500
/// in a statement.
pub(super) const PAGE_MAX: usize = 400;

const HEAD: &str = "SELECT d.id, d.tenant, d.event, d.event_sequence, d.endpoint, d.generation, \
    d.event_type, d.accepted_at, d.attempts, d.step, d.place, d.state, d.reason, \
    d.next_attempt_at, d.since, a.outcome, a.status, a.fault, a.retry_after FROM (SELECT id FROM (";

const MIDDLE: &str = ") AS walks ORDER BY id DESC LIMIT ";

const TAIL: &str = ") AS page JOIN fanfare_deliveries AS d ON d.id = page.id \
    LEFT JOIN fanfare_attempts AS a ON a.delivery = d.id AND a.number = d.attempts \
    ORDER BY d.id DESC";

/// The first and the last id that count, if there can be any.
pub(super) type Span = ([u8; 16], [u8; 16]);

/// Which types count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Types {
    /// Any.
    Any,
    /// These.
    Few(Vec<EventType>),
    /// These: too many to walk along each.
    Many(Vec<EventType>),
    /// Those that are like this pattern of SQL, in lower case: too many to walk along each.
    Like(String),
}

impl Types {
    /// Keeps only one of them; `None` if it is not among them. `text` is what is in all of them.
    pub(super) fn only(self, one: Option<&EventType>, text: Option<&str>) -> Option<Self> {
        let found = match (self, one) {
            (found, None) => found,
            (Self::Any, Some(one)) => Self::Few(vec![one.clone()]),
            (Self::Few(mut some) | Self::Many(mut some), Some(one)) => {
                some.retain(|known| known == one);
                Self::Few(some)
            }
            (Self::Like(_), Some(one)) => {
                let text = text.unwrap_or_default().trim().to_lowercase();
                let is_in = one.as_str().to_lowercase().contains(&text);
                Self::Few(if is_in { vec![one.clone()] } else { Vec::new() })
            }
        };
        (found != Self::Few(Vec::new())).then_some(found)
    }
}

/// What is looked for, made ready.
pub(super) struct Search<'a> {
    filter: &'a Filter,
    /// What the text means.
    meant: Option<Meant>,
    types: Types,
    span: Span,
    /// The event that all of it is of, if one is named.
    event: Option<EventId>,
}

/// A walk: a state, and a type unless all of them count.
pub(super) type Walk = (State, Option<EventType>);

impl<'a> Search<'a> {
    /// Makes it ready; `None` if nothing can be found. `types` are those that the text is in, if it is
    /// text for types.
    pub(super) fn new(filter: &'a Filter, types: Types, after: Option<Cursor>) -> Option<Self> {
        let meant = filter.text.as_deref().map(Meant::by);
        let span = span((filter.since, filter.until), meant.as_ref(), after)?;
        let types = types.only(filter.event_type.as_ref(), filter.text.as_deref())?;
        let event = match (&meant, filter.event) {
            (Some(Meant::Event(named)), Some(event)) if *named != event => return None,
            (Some(Meant::Event(event)), _) => Some(*event),
            (_, event) => event,
        };
        Some(Self { filter, meant, types, span, event })
    }

    /// All walks that there can be; none where what is looked for is found without.
    pub(super) fn walks(&self) -> Vec<Walk> {
        if self.event.is_some() || matches!(self.meant, Some(Meant::Delivery(_))) {
            return Vec::new();
        }
        let along: Vec<Option<&EventType>> = match &self.types {
            Types::Few(types) => types.iter().map(Some).collect(),
            Types::Any | Types::Many(_) | Types::Like(_) => vec![None],
        };
        let of_state = |state| along.iter().map(move |one| (state, one.cloned()));
        self.states().into_iter().flat_map(of_state).collect()
    }

    /// Asks which walks begin latest; [`begins`] reads the answer.
    pub(super) fn beginnings(&self, limit: usize) -> Statement {
        let mut statement = Statement::new(
            "SELECT state, event_type, newest FROM (SELECT s.state AS state, \
             t.event_type AS event_type, (SELECT id FROM fanfare_deliveries WHERE ",
        );
        self.whose(&mut statement);
        statement.push(" AND state = s.state AND event_type = t.event_type");
        self.within(&mut statement, 1);
        statement.push(") AS newest FROM fanfare_types AS t CROSS JOIN (");
        for (index, state) in self.states().into_iter().enumerate() {
            statement.push(if index > 0 { " UNION ALL SELECT " } else { "SELECT " });
            statement.bind(state.as_str()).push(" AS state");
        }
        statement.push(") AS s WHERE t.tenant = ").bind(self.filter.tenant.as_str());
        if let Types::Few(types) = &self.types {
            let types = types.iter().map(|event_type| Value::from(event_type.as_str()));
            statement.push(" AND t.event_type IN ").bind_list(types);
        }
        statement.push(") AS beginnings ORDER BY newest DESC NULLS LAST LIMIT ");
        statement.bind(rows(limit));
        statement
    }

    /// Finds a page's deliveries.
    pub(super) fn page(&self, walks: &[Walk], limit: usize) -> Statement {
        let mut statement = Statement::new(HEAD);
        if let Some(Meant::Delivery(id)) = &self.meant {
            begin(&mut statement);
            statement.push("id = ").bind(id.as_bytes());
            if let Some(event) = self.event {
                statement.push(" AND CASE WHEN event = ").bind(event.as_bytes());
                statement.push(" THEN 1 ELSE 0 END = 1");
            }
            self.look_at(&mut statement);
            self.end(&mut statement, limit);
        } else if let Some(event) = self.event {
            begin(&mut statement);
            statement.push("event = ").bind(event.as_bytes());
            self.look_at(&mut statement);
            self.end(&mut statement, limit);
        } else {
            for (index, walk) in walks.iter().enumerate() {
                if index > 0 {
                    statement.push(" UNION ALL ");
                }
                self.walk(&mut statement, walk, limit);
            }
        }
        statement.push(MIDDLE).bind(rows(limit)).push(TAIL);
        statement
    }

    fn states(&self) -> BTreeSet<State> {
        if self.filter.states.is_empty() {
            return State::ALL.into();
        }
        self.filter.states.clone()
    }

    fn walk(&self, statement: &mut Statement, (state, event_type): &Walk, limit: usize) {
        begin(statement);
        self.whose(statement);
        statement.push(" AND state = ").bind(state.as_str());
        if let Some(event_type) = event_type {
            statement.push(" AND event_type = ").bind(event_type.as_str());
        }
        on_the_way(statement, &self.types);
        if let Some(Meant::Events(low, high)) = &self.meant {
            statement.push(" AND event >= ").bind(low.as_bytes());
            statement.push(" AND event <= ").bind(high.as_bytes());
        }
        self.end(statement, limit);
    }

    fn whose(&self, statement: &mut Statement) {
        match self.filter.endpoint {
            Some(endpoint) => {
                statement.push("endpoint = ").bind(endpoint.as_bytes());
                // The tenant's index must not be taken for it.
                statement.push(" AND tenant || '' = ").bind(self.filter.tenant.as_str());
            }
            None => drop(statement.push("tenant = ").bind(self.filter.tenant.as_str())),
        }
    }

    /// Adds conditions that no index is to be taken for: few rows are left.
    fn look_at(&self, statement: &mut Statement) {
        let filter = self.filter;
        statement.push(" AND tenant || '' = ").bind(filter.tenant.as_str());
        if !filter.states.is_empty() {
            let states = filter.states.iter().map(|state| Value::from(state.as_str()));
            statement.push(" AND state || '' IN ").bind_list(states);
        }
        if let Some(endpoint) = filter.endpoint {
            statement.push(" AND CASE WHEN endpoint = ").bind(endpoint.as_bytes());
            statement.push(" THEN 1 ELSE 0 END = 1");
        }
        match &self.types {
            Types::Any => {}
            Types::Few(types) | Types::Many(types) => among(statement, types),
            Types::Like(pattern) => like(statement, pattern),
        }
    }

    fn end(&self, statement: &mut Statement, limit: usize) {
        self.within(statement, limit);
        statement.push(") AS walk");
    }

    fn within(&self, statement: &mut Statement, limit: usize) {
        let (low, high) = &self.span;
        statement.push(" AND id >= ").bind(low).push(" AND id <= ").bind(high);
        statement.push(" ORDER BY id DESC LIMIT ").bind(rows(limit));
    }
}

/// Reads which walks there are to make.
pub(super) fn begins(row: &Row) -> Result<Option<Walk>, StoreError> {
    if row.bytes(2)?.is_none() {
        return Ok(None);
    }
    let state = row.text(0)?.as_deref().and_then(State::from_name);
    let state = state.ok_or(StoreError::Malformed { what: "state" })?;
    let event_type = row.text(1)?.and_then(|text| text.parse().ok());
    Ok(Some((state, Some(event_type.ok_or(StoreError::Malformed { what: "event_type" })?))))
}

/// Ids of deliveries carry the time of their event, to the millisecond, as those of events do.
pub(super) fn span(
    (since, until): (Option<Timestamp>, Option<Timestamp>),
    meant: Option<&Meant>,
    after: Option<Cursor>,
) -> Option<Span> {
    let mut low = since.map_or([0; 16], lowest);
    let mut high = [0xff; 16];
    if let Some(until) = until {
        high = below(lowest(until))?;
    }
    if let Some(Meant::Events(first, last)) = meant {
        low = low.max(lowest(first.time()));
        high = high.min(highest(last.time()));
    }
    if let Some(Cursor(after)) = after {
        high = high.min(below(after)?);
    }
    (low <= high).then_some((low, high))
}

/// The id right below one.
fn below(id: [u8; 16]) -> Option<[u8; 16]> {
    u128::from_be_bytes(id).checked_sub(1).map(u128::to_be_bytes)
}

/// Adds the condition on types that are not walked along.
pub(super) fn on_the_way(statement: &mut Statement, types: &Types) {
    match types {
        Types::Any | Types::Few(_) => {}
        Types::Many(types) => among(statement, types),
        Types::Like(pattern) => like(statement, pattern),
    }
}

/// Adds a condition on the type that takes no index.
fn among(statement: &mut Statement, types: &[EventType]) {
    let types = types.iter().map(|event_type| Value::from(event_type.as_str()));
    statement.push(" AND event_type || '' IN ").bind_list(types);
}

/// Adds a condition on the type that takes no index.
pub(super) fn like(statement: &mut Statement, pattern: &str) {
    statement.push(" AND lower(event_type) LIKE ").bind(pattern).push(" ESCAPE '!'");
}

fn begin(statement: &mut Statement) {
    statement.push("SELECT id FROM (SELECT id FROM fanfare_deliveries WHERE ");
}

pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
