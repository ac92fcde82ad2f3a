//! Requests on their way: what a worker is given, and what it gives back.

use std::sync::Arc;

use fanfare_domain::{DeliveryId, EndpointId, Record, Timestamp, fact::InFlight};
use tokio::task::AbortHandle;

use crate::{
    attempt::{self, Desk, Job, batch},
    feeds::Fed,
    lanes::{Flight, Kind},
    memory,
    messages::MessageKey,
    permits::Permit,
    progress::Progress,
};

/// An attempt that waits in its lane.
pub(crate) struct Waiting {
    pub(super) job: Job,
    pub(super) origin: Origin,
    pub(super) place: memory::Place,
}

/// What asked for an attempt.
pub(crate) enum Origin {
    /// A message.
    Message(MessageKey),
    /// A feed.
    Feed(Fed),
    /// A command.
    Order,
}

/// A request that is begun, for the worker that makes it.
pub(crate) struct Begun {
    pub(super) desk: Arc<Desk>,
    pub(super) flight: Flight,
    pub(super) waiting: Waiting,
    /// Those that go with it.
    pub(super) more: Vec<Waiting>,
    /// Whether it is a batch, also of one.
    pub(super) is_batch: bool,
    pub(super) permit: Permit,
}

/// A request that is being made.
pub(super) struct Flying {
    pub(super) delivery: DeliveryId,
    /// The other deliveries that it may carry.
    more: Vec<DeliveryId>,
    attempt: u32,
    pub(super) endpoint: EndpointId,
    pub(super) kind: Kind,
    pub(super) progress: Arc<Progress>,
    pub(super) worker: Option<AbortHandle>,
}

/// A request that was made, or found to be impossible or needless.
pub(crate) struct Finished {
    pub(crate) flight: Flight,
    /// What came of the attempts in it.
    pub(crate) parts: Vec<Part>,
    /// Those that are to be sent in another request.
    pub(super) left: Vec<Waiting>,
}

/// What came of one attempt.
pub(crate) struct Part {
    pub(crate) delivery: DeliveryId,
    pub(super) origin: Origin,
    pub(super) place: memory::Place,
    pub(crate) records: Vec<Record>,
}

impl Flying {
    /// A request that is about to be made.
    pub(super) fn of(waiting: &Waiting, more: &[Waiting]) -> Self {
        let job = &waiting.job;
        Self {
            delivery: job.delivery.id,
            more: more.iter().map(|waiting| waiting.job.delivery.id).collect(),
            attempt: job.attempt,
            endpoint: job.delivery.endpoint,
            kind: job.kind(),
            progress: Arc::clone(&job.progress),
            worker: None,
        }
    }

    /// The deliveries that are in flight with it, until that time at the latest.
    pub(super) fn requests(&self, ends_by: Timestamp) -> Vec<InFlight> {
        let Self { delivery: request, attempt, endpoint, .. } = *self;
        let in_flight = |delivery: &DeliveryId| InFlight {
            delivery: *delivery,
            attempt,
            endpoint,
            ends_by,
            request,
        };
        std::iter::once(&request).chain(&self.more).map(in_flight).collect()
    }
}

/// Makes a request.
pub(super) async fn make(begun: Begun) -> Finished {
    let Begun { desk, flight, waiting, more, is_batch, permit } = begun;
    let (parts, left) = if is_batch {
        Box::pin(make_batch(&desk, waiting, more)).await
    } else {
        let Waiting { job, origin, place } = waiting;
        let delivery = job.delivery.id;
        let records = attempt::make(&desk, job).await;
        (vec![Part { delivery, origin, place, records }], more)
    };
    drop(permit);
    Finished { flight, parts, left }
}

async fn make_batch(
    desk: &Arc<Desk>,
    waiting: Waiting,
    more: Vec<Waiting>,
) -> (Vec<Part>, Vec<Waiting>) {
    let progress = Arc::clone(&waiting.job.progress);
    let tagged = |Waiting { job, origin, place }| {
        let tag = (job.delivery.id, origin, place);
        (job, tag)
    };
    let jobs = std::iter::once(waiting).chain(more).map(tagged).collect();
    let made = batch::make(desk, jobs, &progress).await;
    let part = |((delivery, origin, place), records)| Part { delivery, origin, place, records };
    let left = |(job, (_, origin, place))| Waiting { job, origin, place };
    (made.done.into_iter().map(part).collect(), made.left.into_iter().map(left).collect())
}
