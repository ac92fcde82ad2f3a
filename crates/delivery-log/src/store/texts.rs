//! SQL by which accounts of the same event become one, as [`crate::rows`] has it.
//!
//! Text is compared by its bytes, as Rust does, whatever the database's language.

use crate::database::Dialect;

/// The statements that compare text, for one database.
pub(super) struct Texts {
    /// What is done with an event that is there.
    pub(super) event: &'static str,
    /// What is done with a delivery that is there.
    pub(super) delivery: &'static str,
    /// Deliveries learn from the events in the table. What follows is a list of events.
    pub(super) learn: &'static str,
}

impl Texts {
    pub(super) const fn of(dialect: Dialect) -> &'static Self {
        match dialect {
            Dialect::Sqlite => &SQLITE,
            Dialect::Postgres => &POSTGRES,
        }
    }
}

/// Whether the fact to be written has a higher rank than the one that is there.
macro_rules! ranks {
    () => {
        "(excluded.step, excluded.place) > (d.step, d.place)"
    };
}

/// Sets what a row has from its event to the other's account where that is the lesser one.
macro_rules! earlier {
    ($bytewise:literal; $head:literal, $tail:literal; $other:literal, $own:literal) => {
        concat!(
            "event_type = CASE WHEN ",
            $head,
            $bytewise,
            $tail,
            " THEN ",
            $other,
            ".event_type ELSE ",
            $own,
            ".event_type END, accepted_at = CASE WHEN ",
            $head,
            $bytewise,
            $tail,
            " THEN ",
            $other,
            ".accepted_at ELSE ",
            $own,
            ".accepted_at END"
        )
    };
}

macro_rules! texts {
    ($bytewise:literal) => {
        Texts {
            event: concat!(
                " ON CONFLICT (id) DO UPDATE SET ",
                earlier!(
                    $bytewise;
                    "excluded.accepted_at < e.accepted_at OR (excluded.accepted_at = e.accepted_at \
                     AND excluded.event_type", " < e.event_type)";
                    "excluded", "e"
                ),
                ", tenant = CASE WHEN excluded.sequence < e.sequence \
                    THEN excluded.tenant ELSE e.tenant END, \
                occurred_at = CASE WHEN excluded.sequence < e.sequence \
                    THEN excluded.occurred_at ELSE e.occurred_at END, \
                data_bytes = CASE WHEN excluded.sequence < e.sequence \
                    THEN excluded.data_bytes ELSE e.data_bytes END, \
                ordering_key = CASE WHEN excluded.sequence < e.sequence \
                    THEN excluded.ordering_key ELSE e.ordering_key END, \
                trace_id = CASE WHEN excluded.sequence < e.sequence \
                    THEN excluded.trace_id ELSE e.trace_id END, \
                sequence = CASE WHEN excluded.sequence < e.sequence \
                    THEN excluded.sequence ELSE e.sequence END \
                WHERE excluded.sequence <> e.sequence OR excluded.accepted_at <> e.accepted_at \
                    OR excluded.event_type <> e.event_type"
            ),
            delivery: concat!(
                " ON CONFLICT (id) DO UPDATE SET ",
                earlier!(
                    $bytewise;
                    "d.event_type IS NULL OR excluded.accepted_at < d.accepted_at \
                     OR (excluded.accepted_at = d.accepted_at AND excluded.event_type",
                    " < d.event_type)";
                    "excluded", "d"
                ),
                ", event_sequence = CASE WHEN excluded.event_sequence < d.event_sequence \
                    THEN excluded.event_sequence ELSE d.event_sequence END, \
                attempts = CASE WHEN excluded.attempts > d.attempts \
                    THEN excluded.attempts ELSE d.attempts END, \
                step = CASE WHEN ",
                ranks!(),
                " THEN excluded.step ELSE d.step END, place = CASE WHEN ",
                ranks!(),
                " THEN excluded.place ELSE d.place END, state = CASE WHEN ",
                ranks!(),
                " THEN excluded.state ELSE d.state END, reason = CASE WHEN ",
                ranks!(),
                " THEN excluded.reason ELSE d.reason END, next_attempt_at = CASE WHEN ",
                ranks!(),
                " THEN excluded.next_attempt_at ELSE d.next_attempt_at END, since = CASE WHEN ",
                ranks!(),
                " THEN excluded.since ELSE d.since END"
            ),
            learn: concat!(
                "UPDATE fanfare_deliveries AS d SET ",
                earlier!(
                    $bytewise;
                    "d.event_type IS NULL OR e.accepted_at < d.accepted_at \
                     OR (e.accepted_at = d.accepted_at AND e.event_type", " < d.event_type)";
                    "e", "d"
                ),
                ", event_sequence = CASE WHEN e.sequence < d.event_sequence \
                    THEN e.sequence ELSE d.event_sequence END \
                FROM fanfare_events AS e WHERE e.id = d.event AND (d.event_type IS NULL \
                    OR e.sequence < d.event_sequence OR e.accepted_at < d.accepted_at \
                    OR (e.accepted_at = d.accepted_at AND e.event_type",
                $bytewise,
                " < d.event_type)) AND d.event IN "
            ),
        }
    };
}

const SQLITE: Texts = texts!("");
const POSTGRES: Texts = texts!(" COLLATE \"C\"");
