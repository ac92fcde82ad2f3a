//! The statement that finds deliveries: one walk for each state and type, merged.

use fanfare_domain::{EventType, Timestamp};

use super::filter::{Cursor, Filter, Meant, highest, lowest};
use crate::{
    database::{Statement, Value},
    rows::State,
};

/// The first of the four columns of the last attempt's outcome.
pub(super) const OUTCOME: usize = 15;

const COLUMNS: &str = "id, tenant, event, event_sequence, endpoint, generation, event_type, \
    accepted_at, attempts, step, place, state, reason, next_attempt_at, since";

const HEAD: &str = "SELECT d.id, d.tenant, d.event, d.event_sequence, d.endpoint, d.generation, \
    d.event_type, d.accepted_at, d.attempts, d.step, d.place, d.state, d.reason, \
    d.next_attempt_at, d.since, a.outcome, a.status, a.fault, a.retry_after FROM (";

const TAIL: &str = ") AS d LEFT JOIN fanfare_attempts AS a \
    ON a.delivery = d.id AND a.number = d.attempts ORDER BY d.id DESC LIMIT ";

/// The first and the last id that count, if there can be any.
type Span = ([u8; 16], [u8; 16]);

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

/// Makes the statement; `None` if nothing can be found. `types` are those that the text is in, if
/// it is text for types.
pub(super) fn deliveries(
    filter: &Filter,
    types: Types,
    after: Option<Cursor>,
    limit: usize,
) -> Option<Statement> {
    let meant = filter.text.as_deref().map(Meant::by);
    let span = span((filter.since, filter.until), meant.as_ref(), after)?;
    let types = types.only(filter.event_type.as_ref(), filter.text.as_deref())?;
    let mut statement = Statement::new(HEAD);
    let event = match (&meant, filter.event) {
        (Some(Meant::Event(named)), Some(event)) if *named != event => return None,
        (Some(Meant::Event(event)), _) => Some(*event),
        (_, event) => event,
    };
    if let Some(Meant::Delivery(id)) = &meant {
        begin(&mut statement);
        statement.push("id = ").bind(id.as_bytes());
        if let Some(event) = event {
            statement.push(" AND CASE WHEN event = ").bind(event.as_bytes());
            statement.push(" THEN 1 ELSE 0 END = 1");
        }
        look_at(&mut statement, filter, &types);
        within(&mut statement, span, limit);
    } else if let Some(event) = event {
        begin(&mut statement);
        statement.push("event = ").bind(event.as_bytes());
        look_at(&mut statement, filter, &types);
        within(&mut statement, span, limit);
    } else {
        walks(&mut statement, filter, (&types, meant), (span, limit));
    }
    statement.push(TAIL).bind(rows(limit));
    Some(statement)
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

/// One walk for each state, and for each type if they are few.
fn walks(
    statement: &mut Statement,
    filter: &Filter,
    (types, meant): (&Types, Option<Meant>),
    (span, limit): (Span, usize),
) {
    let states = if filter.states.is_empty() { &State::ALL[..] } else { &filter.states };
    let along: Vec<Option<&EventType>> = match types {
        Types::Few(types) => types.iter().map(Some).collect(),
        Types::Any | Types::Many(_) | Types::Like(_) => vec![None],
    };
    let each = states.iter().flat_map(|state| along.iter().map(move |one| (state, *one)));
    for (index, (state, event_type)) in each.enumerate() {
        if index > 0 {
            statement.push(" UNION ALL ");
        }
        begin(statement);
        match filter.endpoint {
            Some(endpoint) => {
                statement.push("endpoint = ").bind(endpoint.as_bytes());
                // The tenant's index must not be taken for it.
                statement.push(" AND tenant || '' = ").bind(filter.tenant.as_str());
            }
            None => drop(statement.push("tenant = ").bind(filter.tenant.as_str())),
        }
        statement.push(" AND state = ").bind(state.as_str());
        if let Some(event_type) = event_type {
            statement.push(" AND event_type = ").bind(event_type.as_str());
        }
        on_the_way(statement, types);
        if let Some(Meant::Events(low, high)) = &meant {
            statement.push(" AND event >= ").bind(low.as_bytes());
            statement.push(" AND event <= ").bind(high.as_bytes());
        }
        within(statement, span, limit);
    }
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
    statement.push("SELECT * FROM (SELECT ").push(COLUMNS);
    statement.push(" FROM fanfare_deliveries WHERE ");
}

/// Adds conditions that no index is to be taken for: few rows are left.
fn look_at(statement: &mut Statement, filter: &Filter, types: &Types) {
    statement.push(" AND tenant || '' = ").bind(filter.tenant.as_str());
    if !filter.states.is_empty() {
        let states = filter.states.iter().map(|state| Value::from(state.as_str()));
        statement.push(" AND state || '' IN ").bind_list(states);
    }
    if let Some(endpoint) = filter.endpoint {
        statement.push(" AND CASE WHEN endpoint = ").bind(endpoint.as_bytes());
        statement.push(" THEN 1 ELSE 0 END = 1");
    }
    match types {
        Types::Any => {}
        Types::Few(types) | Types::Many(types) => among(statement, types),
        Types::Like(pattern) => like(statement, pattern),
    }
}

fn within(statement: &mut Statement, (low, high): Span, limit: usize) {
    statement.push(" AND id >= ").bind(&low).push(" AND id <= ").bind(&high);
    statement.push(" ORDER BY id DESC LIMIT ").bind(rows(limit)).push(") AS walk");
}

pub(super) fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
