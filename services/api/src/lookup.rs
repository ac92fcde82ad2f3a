//! How deliveries stand at this moment, however old they are.
//!
//! ```text
//! the delivery log ─▶ how it stood, up to where of the journal ─▶ the journal from there on ─▶ how it stands
//! ```
//!
//! What the delivery log has not folded yet is read from the journal and folded by the same rules, so
//! that nothing is missed that was on record when the request came. Where there is no delivery log,
//! the journal is read from the time on that the id carries. How much of it one request reads is
//! bounded: what is beyond is refused, and the refusal says what would help.

mod owner;

use std::collections::{BTreeMap, BTreeSet};

use fanfare_delivery_log::{
    Changes, DeliveryRow, EventRow, Known, KnownEvent, Place as Folded, State, Store, StoreError,
};
use fanfare_domain::{DeliveryId, EndpointId, EventId, Record, TenantId, Timestamp, chain};
use fanfare_event_log::journal::From;
use tokio::time::{Duration, Instant};
use tracing::debug;

use crate::{
    app::App,
    error::{ApiError, Code, why_unreadable},
    scan::{self, Budget, FoundEvent, Routed, SKEW, Seen, Span},
    shares::{Holder, Share},
};

pub(crate) use self::owner::{Wanted, owner};

/// How long a request waits until it may read the journal.
const PERMIT_WAIT: Duration = Duration::from_secs(10);

/// Why a delivery log says nothing that has more than the streams.
const RESTORED: &str =
    "the delivery log has more of the journal than there is: its streams were restored";

/// Up to where the delivery log says how things stand.
#[derive(Debug)]
struct Basis {
    reach: Reach,
    /// The end of the journal, asked for after that.
    last: u64,
}

#[derive(Debug)]
enum Reach {
    /// To this message of the journal, for events since then.
    Folded { journal: u64, kept_since: Timestamp },
    /// It says nothing, for this reason.
    Nothing { why: String },
}

/// Finds a tenant's delivery.
pub(crate) async fn delivery(
    app: &App,
    tenant: &TenantId,
    id: DeliveryId,
) -> Result<Option<DeliveryRow>, ApiError> {
    let (mut rows, basis) = known(app, tenant, &BTreeSet::from([id])).await?;
    let row = rows.remove(&id);
    let is_settled = match &row {
        Some(row) => row.standing.has_ended() || basis.is_current(),
        None => basis.is_current() && !basis.has_forgotten(id.time()),
    };
    if is_settled {
        return Ok(row);
    }
    let _permit = permit(app, tenant).await?;
    let read = behind(app, (tenant, id), row, &basis).await;
    read.map_err(|error| basis.explain(error, id.time()))
}

/// Folds what the journal says of a delivery behind what the log has.
async fn behind(
    app: &App,
    (tenant, id): (&TenantId, DeliveryId),
    row: Option<DeliveryRow>,
    basis: &Basis,
) -> Result<Option<DeliveryRow>, ApiError> {
    let (mut budget, mut changes) = (Budget::start(app.journal_read_max), Changes::default());
    let (endpoint, span) = if let Some(row) = &row {
        (row.endpoint, basis.rest())
    } else {
        let span = basis.missing(app, id.time()).await?;
        let found = scan::routing(&app.log, (tenant, id), span, &mut budget).await?;
        let Some(routing) = found else { return Ok(None) };
        let place = Folded::of(routing.place.sequence, routing.place.index);
        changes.record(place, &routing.record);
        let from = From::Sequence(routing.place.sequence);
        (routing.endpoint, Span { from, last: basis.last })
    };
    scan::fold(&app.log, (endpoint, id), span, (&mut changes, &mut budget)).await?;
    Ok(merged(row, changes.delivery(id)))
}

/// Finds those of some deliveries of a tenant that have ended, and how they ended.
pub(crate) async fn ended(
    app: &App,
    tenant: &TenantId,
    wanted: &BTreeSet<DeliveryId>,
) -> Result<BTreeMap<DeliveryId, DeliveryRow>, ApiError> {
    let (mut rows, basis) = known(app, tenant, wanted).await?;
    let has_ended = |row: &DeliveryRow| row.standing.has_ended();
    let open: BTreeSet<DeliveryId> =
        wanted.iter().copied().filter(|id| !rows.get(id).is_some_and(has_ended)).collect();
    let forgotten = open.iter().any(|id| basis.has_forgotten(id.time()));
    if let Some(first) = open.first()
        && (forgotten || !basis.is_current())
    {
        let _permit = permit(app, tenant).await?;
        let (mut budget, mut changes) = (Budget::start(app.journal_read_max), Changes::default());
        let is_known = open.iter().any(|id| rows.contains_key(id)) && !forgotten;
        let span = if is_known { basis.rest() } else { basis.missing(app, first.time()).await? };
        let read = scan::ends(&app.log, (tenant, &open), span, (&mut changes, &mut budget)).await;
        read.map_err(|error| basis.explain(error, first.time()))?;
        for id in open {
            if let Some(row) = merged(rows.remove(&id), changes.delivery(id)) {
                rows.insert(id, row);
            }
        }
    }
    rows.retain(|_, row| has_ended(row));
    Ok(rows)
}

/// Finds what becomes of a tenant's event, if it has been routed, at the endpoints behind one: those
/// with the lowest ids are among them, `limit` if there are so many.
pub(crate) async fn event(
    app: &App,
    tenant: &TenantId,
    id: EventId,
    (after, limit): (Option<EndpointId>, usize),
) -> Result<Option<FoundEvent>, ApiError> {
    let asked = match store(app).await? {
        Ok(store) => store.known_of_event(tenant, id, (after, limit)).await,
        Err(cause) => Err(cause),
    };
    let basis = Basis::of(app, asked.as_ref().map(|asked| &asked.deliveries)).await?;
    let asked = asked.ok().filter(|_| basis.says_something());
    let mut found = FoundEvent::default();
    let (is_routed, event) = match asked {
        Some(KnownEvent { deliveries, is_routed, event }) => {
            found.event_sequence = event.as_ref().map_or(0, |event| event.sequence);
            for row in &deliveries.rows {
                found.add(row.endpoint, Routed::of(row), row.event_sequence);
            }
            (is_routed, event)
        }
        None => (false, None),
    };
    if is_routed && basis.is_current() {
        return Ok(Some(found));
    }
    let _permit = permit(app, tenant).await?;
    let found = event_behind(app, (tenant, id), (found, is_routed, event), &basis).await;
    found.map_err(|error| basis.explain(error, id.time()))
}

async fn event_behind(
    app: &App,
    about: (&TenantId, EventId),
    (mut found, is_routed, event): (FoundEvent, bool, Option<EventRow>),
    basis: &Basis,
) -> Result<Option<FoundEvent>, ApiError> {
    let (_, id) = about;
    let mut budget = Budget::start(app.journal_read_max);
    if is_routed {
        // The parts of a routing come one after the other: what is far behind the first is none.
        let seen = scan::event(&app.log, about, basis.rest(), (&mut found, &mut budget)).await;
        return Ok((unless_too_long(seen)? != Some(Seen::Beginning)).then_some(found));
    }
    let span = basis.missing(app, id.time()).await?;
    match scan::event(&app.log, about, span, (&mut found, &mut budget)).await? {
        Seen::All | Seen::End => return Ok(Some(found)),
        Seen::Beginning => return Ok(None),
        Seen::Nothing => {}
    }
    let Some(event) = event else { return Ok(None) };
    // It was routed to nobody, which the log does not keep, or not at all.
    found.event_sequence = event.sequence;
    let span = Span { from: by_time(id.time()), last: basis.last };
    let mut budget = Budget::start(app.journal_read_max);
    let seen = scan::event(&app.log, about, span, (&mut found, &mut budget)).await;
    Ok((unless_too_long(seen)? != Some(Seen::Nothing)).then_some(found))
}

/// The fact by which a delivery stands as it does, and when it was stored; `None` if it is gone.
pub(crate) async fn fact(
    app: &App,
    row: &DeliveryRow,
) -> Result<Option<(Record, Timestamp)>, ApiError> {
    let (sequence, index) = row.standing.fact().parts();
    let Some(batch) = app.log.journal_batch(sequence).await? else { return Ok(None) };
    let is_about = |record: &Record| match scan::routed_fact(record) {
        Some(routed) => DeliveryId::of(routed.event, row.endpoint, routed.generation) == row.id,
        None => record.fact.delivery().is_some_and(|own| own.id == row.id),
    };
    let found = batch.facts.into_iter().nth(index).filter(is_about);
    Ok(found.map(|record| (record, batch.stored_at)))
}

/// The part of the journal in which a delivery's facts are, from about its routing on.
pub(crate) async fn span_of(app: &App, row: &DeliveryRow) -> Result<Span, ApiError> {
    let made_at = match row.generation {
        0 => None,
        generation => app.jobs.read(|jobs| {
            let mut replays = jobs.of_tenant(&row.tenant);
            let own = replays.find(|stored| stored.generation() == generation);
            own.map(|stored| stored.replay.created_at)
        }),
    };
    let from = by_time(made_at.unwrap_or(row.id.time()).max(row.id.time()));
    Ok(Span { from, last: app.log.journal_last().await? })
}

/// Waits until the journal may be read: a few requests at once, so that they do not starve what
/// else the service does, and not all of them about one tenant.
pub(crate) async fn permit(app: &App, tenant: &TenantId) -> Result<Share, ApiError> {
    permit_for(app, &Holder::Tenant(tenant.clone())).await
}

async fn permit_for(app: &App, holder: &Holder) -> Result<Share, ApiError> {
    app.scans.take(holder, 1, Instant::now() + PERMIT_WAIT).await
}

/// Asks the delivery log.
async fn known(
    app: &App,
    tenant: &TenantId,
    ids: &BTreeSet<DeliveryId>,
) -> Result<(BTreeMap<DeliveryId, DeliveryRow>, Basis), ApiError> {
    let asked = match store(app).await? {
        Ok(store) => store.known(tenant, ids).await,
        Err(cause) => Err(cause),
    };
    let basis = Basis::of(app, asked.as_ref()).await?;
    let rows = asked.ok().filter(|_| basis.says_something()).map(|known| known.rows);
    let rows = rows.unwrap_or_default().into_iter().map(|row| (row.id, row)).collect();
    Ok((rows, basis))
}

/// The delivery log, or why it cannot be read.
async fn store(app: &App) -> Result<Result<Store, StoreError>, ApiError> {
    match app.delivery_log().await {
        Ok(store) => Ok(Ok(store)),
        Err(ApiError::DeliveryLog(cause)) => Ok(Err(cause)),
        Err(error) => Err(error),
    }
}

impl Basis {
    /// Takes what the delivery log said, or why it said nothing.
    async fn of(app: &App, asked: Result<&Known, &StoreError>) -> Result<Self, ApiError> {
        let last = app.log.journal_last().await?;
        let reach = match asked {
            Ok(known) if known.journal <= last => {
                Reach::Folded { journal: known.journal, kept_since: known.kept_since }
            }
            Ok(_) => Reach::Nothing { why: String::from(RESTORED) },
            Err(cause) => {
                debug!(error = chain(cause), "the journal is read without the delivery log");
                Reach::Nothing { why: why_unreadable(cause) }
            }
        };
        Ok(Self { reach, last })
    }

    fn says_something(&self) -> bool {
        match self.reach {
            Reach::Folded { .. } => true,
            Reach::Nothing { .. } => false,
        }
    }

    /// Tells whether the journal has nothing that the log has not.
    fn is_current(&self) -> bool {
        match self.reach {
            Reach::Folded { journal, kept_since: _ } => journal >= self.last,
            Reach::Nothing { .. } => false,
        }
    }

    /// Tells whether the log has forgotten what is of events of that time.
    fn has_forgotten(&self, time: Timestamp) -> bool {
        match self.reach {
            Reach::Folded { journal: _, kept_since } => time < kept_since,
            Reach::Nothing { .. } => false,
        }
    }

    /// The journal behind what the log has.
    fn rest(&self) -> Span {
        let folded = match self.reach {
            Reach::Folded { journal, kept_since: _ } => journal,
            Reach::Nothing { .. } => 0,
        };
        Span { from: From::Sequence(folded.saturating_add(1)), last: self.last }
    }

    /// Where that may be which the log does not know, of an event of that time.
    async fn missing(&self, app: &App, time: Timestamp) -> Result<Span, ApiError> {
        let by_time = Span { from: by_time(time), last: self.last };
        if !self.says_something() || self.has_forgotten(time) {
            return Ok(by_time);
        }
        let rest = self.rest();
        let From::Sequence(next) = rest.from else { return Ok(rest) };
        let count = usize::try_from(self.last.saturating_sub(next)).unwrap_or(usize::MAX);
        if count >= app.journal_read_max
            && let Some(batch) = app.log.journal_batch(next).await?
            && batch.stored_at < time.saturating_sub(SKEW)
        {
            return Ok(by_time);
        }
        Ok(rest)
    }

    /// Says what would help where there was too much to read about an event of that time.
    fn explain(&self, error: ApiError, time: Timestamp) -> ApiError {
        if error.code() != Code::JournalTooLong {
            return error;
        }
        match &self.reach {
            Reach::Folded { kept_since, .. } if time < *kept_since => {
                let detail = format!(
                    "the delivery log has forgotten events accepted before {kept_since}, and the \
                     journal is too long to read for one request since then"
                );
                ApiError::detailed(Code::JournalTooLong, detail)
            }
            Reach::Folded { journal, kept_since: _ } => {
                let behind = self.last.saturating_sub(*journal);
                let detail = format!(
                    "the delivery log is {behind} messages behind the journal, which are too many \
                     to read for one request: ask again once the projector has caught up"
                );
                ApiError::detailed(Code::JournalTooLong, detail)
            }
            Reach::Nothing { why } => {
                let detail = format!(
                    "{why}; and without it the journal is too long to read for one request since \
                     then: ask again once the delivery log can be read"
                );
                ApiError::detailed(Code::DeliveryLogUnavailable, detail)
            }
        }
    }
}

impl Routed {
    /// What a delivery's row says of its routing. One that was held and is made by now is delivered.
    fn of(row: &DeliveryRow) -> Self {
        let standing = &row.standing;
        if standing.state == State::Skipped {
            Self::Skipped
        } else if standing.state == State::Parked && standing.is_routed_only() {
            Self::Held
        } else {
            Self::Target
        }
    }
}

fn merged(row: Option<DeliveryRow>, more: Option<&DeliveryRow>) -> Option<DeliveryRow> {
    match (row, more) {
        (Some(mut row), Some(more)) => {
            row.merge(more.clone());
            Some(row)
        }
        (row, more) => row.or_else(|| more.cloned()),
    }
}

fn by_time(time: Timestamp) -> From {
    From::Time(time.saturating_sub(SKEW))
}

fn unless_too_long(seen: Result<Seen, ApiError>) -> Result<Option<Seen>, ApiError> {
    match seen {
        Ok(seen) => Ok(Some(seen)),
        Err(error) if error.code() == Code::JournalTooLong => Ok(None),
        Err(error) => Err(error),
    }
}
