//! Whose an event or a delivery is, by its id alone: for whoever looks after all tenants.

use fanfare_delivery_log::{KnownOwner, Owner};
use fanfare_domain::{DeliveryId, EventId, Timestamp, fact::EventRouted};

use super::{Basis, permit_for, store};
use crate::{
    app::App,
    error::ApiError,
    scan::{self, Budget},
    shares::Holder,
};

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// A delivery.
    Delivery(DeliveryId),
    /// An event.
    Event(EventId),
}

/// Finds out whose something is. What nobody is shown any more is not found.
pub(crate) async fn owner(app: &App, wanted: Wanted) -> Result<Option<Owner>, ApiError> {
    let found = on_record(app, wanted).await?;
    Ok(found.filter(|owner| is_shown(app, owner)))
}

async fn on_record(app: &App, wanted: Wanted) -> Result<Option<Owner>, ApiError> {
    let asked = match store(app).await? {
        Ok(store) => match wanted {
            Wanted::Delivery(id) => store.owner_of_delivery(id).await,
            Wanted::Event(id) => store.owner_of_event(id).await,
        },
        Err(cause) => Err(cause),
    };
    let basis = Basis::of(app, asked.as_ref().map(|asked| &asked.known)).await?;
    let asked = asked.ok().filter(|_| basis.says_something());
    let (owner, time) = (asked.and_then(|KnownOwner { owner, .. }| owner), wanted.time());
    if owner.is_some() || (basis.is_current() && !basis.has_forgotten(time)) {
        return Ok(owner);
    }
    let _permit = permit_for(app, &Holder::Operator).await?;
    let (span, mut budget) = (basis.missing(app, time).await?, Budget::start(app.journal_read_max));
    let found = scan::anybodys(&app.log, |routed| wanted.of(routed), span, &mut budget).await;
    found.map_err(|error| basis.explain(error, time))
}

/// Tells whether the tenant is there and the event is not of an earlier one of the id, and the endpoint
/// was not deleted with its history.
fn is_shown(app: &App, owner: &Owner) -> bool {
    let tenant = app.directory.read(|directory| directory.tenant(&owner.tenant));
    let is_theirs = tenant.is_some_and(|tenant| {
        let expunge = tenant.value.expunge.as_ref();
        expunge.is_none_or(|expunge| owner.event_sequence > expunge.through)
    });
    is_theirs && !owner.endpoint.is_some_and(|endpoint| app.is_erased(endpoint))
}

impl Wanted {
    /// When the event was accepted, about.
    fn time(self) -> Timestamp {
        match self {
            Self::Delivery(id) => id.time(),
            Self::Event(id) => id.time(),
        }
    }

    /// Takes it from a routing, if it is there.
    fn of(self, routed: &EventRouted) -> Option<Owner> {
        let endpoint = match self {
            Self::Delivery(id) => Some(scan::endpoint_of(routed, id)?),
            Self::Event(id) if routed.event == id => None,
            Self::Event(_) => return None,
        };
        let EventRouted { tenant, event, event_sequence, .. } = routed;
        let (tenant, event, event_sequence) = (tenant.clone(), *event, *event_sequence);
        Some(Owner { tenant, event, event_sequence, endpoint })
    }
}
