//! One attempt: look at the endpoint's state, build, send, judge, and say what happened.
//!
//! An attempt returns the facts about it and never fails: whatever goes wrong is a fact. Several
//! attempts of one endpoint can be one request: see [`batch`].

pub(crate) mod batch;
mod exchange;
mod facts;
mod fed;
mod handshake;
mod spans;
pub(crate) mod trial;

use std::{borrow::Cow, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Conclusion, DeliveryId, DeliveryRef, Endpoint, EndpointId, Fact, Fault, Outcome, Record,
    RetryDue, Timestamp, TraceContext,
    endpoint::Ordering,
    fact::{ConclusionReason, DeferReason, DeliveryParked, InBatch},
    profile::{Attempt, Breaker, Profile},
    retry::StatusSet,
    seal::Keyring,
    trace::span::Moments,
};
use fanfare_egress::Wanted;
use fanfare_event_log::{EventLog, FeedsView};
use fanfare_service::{Clock, Traces, delivery_line};
use http::{HeaderValue, Method};

pub(crate) use self::fed::FeedCount;
use self::{
    exchange::exchange,
    facts::{Made, Reply, cancelled, concluded},
    fed::Around,
};
use crate::{
    Settings,
    counters::Counters,
    guard::Guard,
    lanes::{Kind, Load, Rules, Signal, Urgency},
    memory::{Limits, Memory},
    permits::Permits,
    progress::Progress,
    registry::{Permission, Registry},
    runtime::{Ready, Readying},
    shard::deferred,
    strain::Arrivals,
    task_event::TaskEvent,
};

/// How long a delivery is put off whose event cannot be read at the moment: a tenth of its age,
/// between these.
const EVENT_WAIT: Duration = Duration::from_secs(5);
const EVENT_WAIT_MAX: Duration = Duration::from_hours(1);

/// An attempt that is to be made.
#[derive(Debug)]
pub(crate) struct Job {
    /// The delivery.
    pub(crate) delivery: DeliveryRef,
    /// The attempt's number, counted from 1.
    pub(crate) attempt: u32,
    /// The time that its tenant's rate limit keeps for it.
    pub(crate) not_before: Option<Timestamp>,
    /// The event, if it came with the task.
    event: Option<Arc<TaskEvent>>,
    /// The event's trace, where the event did not come with it.
    trace: TraceContext,
    /// What it failed with before.
    pub(crate) batch: Option<InBatch>,
    /// How far it is.
    pub(crate) progress: Arc<Progress>,
}

impl Job {
    /// The first attempt of a delivery.
    pub(crate) fn first(
        delivery: DeliveryRef,
        not_before: Option<Timestamp>,
        event: Arc<TaskEvent>,
    ) -> Self {
        let (trace, progress) = (TraceContext::default(), Arc::default());
        let event = Some(event);
        Self { delivery, attempt: 1, not_before, event, trace, batch: None, progress }
    }

    /// What kind of attempt it is.
    pub(crate) const fn kind(&self) -> Kind {
        if self.attempt > 1 { Kind::Retry } else { Kind::First }
    }

    /// Whether it came with a task, and its event with it.
    pub(crate) const fn is_first_of_task(&self) -> bool {
        self.event.is_some() && self.attempt == 1
    }

    /// A later attempt, or a first one that was put off.
    pub(crate) fn later(retry: RetryDue) -> Self {
        let RetryDue { delivery, attempt, due_at: _, journal_sequence: _, trace, batch } = retry;
        let (not_before, progress) = (None, Arc::default());
        Self { delivery, attempt, not_before, event: None, trace, batch, progress }
    }

    /// What a lane has to know of it to put it together with others.
    pub(crate) fn load(&self) -> Load {
        let bytes = self.event.as_ref().map_or(0, |event| event.bytes());
        // A replay comes after what has just happened.
        let is_fresh = self.is_first_of_task() && self.delivery.generation == 0;
        let urgency = if is_fresh { Urgency::Fresh } else { Urgency::Late };
        Load { attempt: self.attempt, batch: self.batch, bytes, urgency }
    }

    /// The trace of the event.
    pub(crate) fn trace(&self) -> TraceContext {
        let trace = self.event.as_ref().map(|event| event.trace());
        trace.unwrap_or(&self.trace).clone()
    }
}

/// What every attempt needs.
pub(crate) struct Desk {
    guard: Guard,
    log: EventLog,
    clock: Arc<dyn Clock>,
    client: fanfare_egress::Client,
    readying: Readying,
    retention: Duration,
    permits: Arc<Permits>,
    memory: Arc<Memory>,
    arrivals: Arrivals,
    counters: Arc<Counters>,
    fed: Around,
    traces: Traces,
}

impl Desk {
    /// Prepares to send.
    pub(crate) fn new(
        (guard, feeds): (Guard, FeedsView),
        log: EventLog,
        clock: Arc<dyn Clock>,
        (keyring, settings): (Keyring, &Settings),
        (counters, traces): (Arc<Counters>, Traces),
    ) -> Result<Self> {
        let profiles = fanfare_service::load_profiles(settings.profiles_dir.as_deref())
            .context("load the profiles")?;
        let client =
            fanfare_egress::Client::new(&settings.egress).context("make an HTTP client")?;
        let (readying, retention) = (Readying::new(profiles, keyring), settings.log.retention);
        let permits = Permits::new(settings.in_flight_max);
        let (deliveries, bytes) = (settings.queued_max, settings.queued_bytes_max);
        let memory = Memory::new(Limits { deliveries, bytes });
        let fed = Around::new(feeds);
        Ok(Self {
            guard,
            log,
            clock,
            client,
            readying,
            retention,
            permits,
            memory,
            arrivals: Arrivals::default(),
            counters,
            fed,
            traces,
        })
    }

    /// The present instant.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The revision of CONFIG that [`Self::rules`] are of, or a later one.
    pub(crate) fn revision(&self) -> u64 {
        self.guard.view().revision()
    }

    /// What the endpoint's owner and its profile say about how it is sent to.
    pub(crate) fn rules(&self, id: EndpointId) -> Rules {
        self.guard.view().read(|registry: &Registry| {
            // What is only to be cancelled waits for nothing.
            let found = registry.endpoint(id).filter(|_| registry.is_served(id));
            let endpoint = found.as_ref().map(|(endpoint, _)| endpoint);
            let concurrency = endpoint.and_then(|endpoint| endpoint.concurrency);
            let profile = found.as_ref().and_then(|(_, profile)| self.profile(*profile));
            Rules {
                concurrency: concurrency.unwrap_or(Endpoint::CONCURRENCY),
                rate: endpoint.and_then(|it| it.security.bound(it.rate_limit)),
                breaker: profile.is_some_and(|profile| profile.health.breaker == Breaker::On),
                ordering: endpoint.map(|endpoint| endpoint.ordering).unwrap_or_default(),
                // What is not to be sent does not wait for others either.
                batch: endpoint
                    .filter(|endpoint| endpoint.ordering == Ordering::None)
                    .and_then(|endpoint| endpoint.batch)
                    .filter(|_| profile.is_some_and(|profile| profile.has_batches()))
                    .filter(|_| registry.is_active(id)),
            }
        })
    }

    /// How long a request to the endpoint may take.
    pub(crate) fn timeout(&self, endpoint: EndpointId) -> Duration {
        self.guard.view().read(|registry: &Registry| {
            let found = registry.endpoint(endpoint);
            let own = found.as_ref().and_then(|(endpoint, _)| endpoint.timeout);
            let profile = found.and_then(|(_, profile)| self.profile(profile));
            own.or_else(|| profile.map(|profile| profile.attempt.timeout)).unwrap_or_default()
        })
    }

    /// What the facts about an attempt say about its endpoint.
    pub(crate) fn signal<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Signal {
        let made = records.into_iter().find_map(|record| record.fact.attempt_made());
        let Some(made) = made else { return Signal::default() };
        self.guard.view().read(|registry: &Registry| {
            let profile = self.profile(registry.profile_of(made.delivery.endpoint));
            let none = StatusSet::default();
            let slow_down = profile.map_or(&none, |profile| &profile.health.slow_down);
            Signal::of(&made.outcome, made.duration, slow_down)
        })
    }

    /// Whether attempts may begin at present, as far as it is up to us.
    pub(crate) fn may_send(&self) -> bool {
        self.guard.is_held()
    }

    /// The permits that all shards of the process share.
    pub(crate) fn permits(&self) -> &Arc<Permits> {
        &self.permits
    }

    /// How long events take to arrive at the process.
    pub(crate) fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// What is counted.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The memory that all shards of the process share.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn profile(&self, name: Option<&str>) -> Option<&Arc<Profile>> {
        self.readying.profile(name.unwrap_or_default())
    }

    /// The log, to read from.
    pub(crate) fn log(&self) -> &EventLog {
        &self.log
    }

    /// What tells how many names of hosts are being looked up.
    pub(crate) fn lookups(&self) -> impl Fn() -> usize + Send + Sync + 'static + use<> {
        self.client.lookups()
    }

    /// Tells later whether an attempt may still begin.
    fn wanted(self: &Arc<Self>, delivery: &DeliveryRef) -> Wanted {
        let (desk, endpoint) = (Arc::clone(self), delivery.endpoint);
        let accepted_at = delivery.accepted_at;
        Arc::new(move || {
            let permission = desk.guard.view().read(|it| it.permit(endpoint, accepted_at));
            desk.guard.is_held() && matches!(permission, Permission::Go { .. })
        })
    }

    fn permit(&self, delivery: &DeliveryRef) -> Permission {
        self.guard.view().read(|registry| registry.permit(delivery.endpoint, delivery.accepted_at))
    }
}

/// Makes an attempt, unless it must not be made; returns the facts about it. None if the job was
/// [closed](Progress::close) before anything was sent.
pub(crate) async fn make(desk: &Arc<Desk>, mut job: Job) -> Vec<Record> {
    let event = match job.event.take() {
        Some(event) => event,
        None => match fetch(desk, &job).await {
            Ok(event) => event,
            Err(record) => return vec![*record],
        },
    };
    let trace = event.trace().clone();
    let facts = loop {
        match try_once(desk, job, &event).await {
            Ok(facts) => break facts,
            Err(withdrawn) => job = withdrawn,
        }
    };
    let recorded_at = desk.now();
    let record = |fact| Record { recorded_at, trace: trace.clone(), fact };
    facts.into_iter().map(record).collect()
}

/// The name of a profile, the revision of an endpoint, and the time at which they were looked at.
type Looked<'a> = (&'a str, u64, Timestamp);

/// Looks and sends; returns the job if it was no longer permitted once a connection was made.
async fn try_once(desk: &Arc<Desk>, job: Job, event: &TaskEvent) -> Result<Vec<Fact>, Job> {
    // The last look before the request: nothing below waits until it is sent, but for the making
    // of a connection, after which it is looked again.
    desk.guard.held().await;
    let mut permission = desk.permit(&job.delivery);
    if !matches!(permission, Permission::Go { .. }) {
        // That is final, and the view may be some moments behind: the endpoint may just have been
        // made or resumed.
        desk.guard.view_confirmed().await;
        permission = desk.permit(&job.delivery);
    }
    match permission {
        Permission::Cancelled(reason) => Ok(vec![cancelled(job, reason)]),
        Permission::Hold => {
            let Job { delivery, attempt, .. } = job;
            Ok(vec![Fact::DeliveryParked(DeliveryParked { delivery, attempt })])
        }
        Permission::Go { endpoint, revision, profile } => {
            let now = desk.now();
            match desk.readying.ready(job.delivery.endpoint, &endpoint, (revision, &profile, now)) {
                Ok(ready) => send(desk, job, event, (&ready, revision, now)).await,
                Err(unready) => {
                    let facts = facts::unsendable(desk, job, (&profile, revision, now), &unready);
                    desk.tell(&facts, event.trace(), &Moments::default());
                    Ok(facts)
                }
            }
        }
    }
}

/// Reads the event that a due retry refers to.
async fn fetch(desk: &Desk, job: &Job) -> Result<Arc<TaskEvent>, Box<Record>> {
    let now = desk.now();
    match desk.log.event(job.delivery.event_sequence).await {
        Ok(Some(stored)) if stored.event.id == job.delivery.event => {
            let memory = desk.memory.count(stored.event.data.len());
            Ok(Arc::new(TaskEvent::new(stored, Arc::new(memory))))
        }
        Ok(_) => Err(event_gone(desk, job).await),
        // It will not be readable any more: nothing waits for ever.
        Err(_) if now.since(job.delivery.accepted_at) > desk.retention => {
            Err(event_gone(desk, job).await)
        }
        Err(error) => {
            delivery_line!(
                warn, (job.delivery, job.trace), "an event could not be read",
                %error, attempt = job.attempt,
            );
            let wait = (now.since(job.delivery.accepted_at) / 10).clamp(EVENT_WAIT, EVENT_WAIT_MAX);
            let put_off = (now.saturating_add(wait), DeferReason::EventUnavailable);
            let attempt = (job.delivery.clone(), job.attempt, job.batch);
            Err(Box::new(deferred(attempt, put_off, now, job.trace())))
        }
    }
}

/// Ends a delivery whose event is gone. Where that is because its tenant is expunged, its endpoint
/// is deleted: then it is cancelled as any other.
async fn event_gone(desk: &Desk, job: &Job) -> Box<Record> {
    desk.guard.view_confirmed().await;
    let ending = match desk.permit(&job.delivery) {
        Permission::Cancelled(reason) => (Conclusion::Cancelled, reason),
        Permission::Go { .. } | Permission::Hold => {
            (Conclusion::Exhausted, ConclusionReason::EventGone)
        }
    };
    let fact = concluded(job.delivery.clone(), job.attempt.saturating_sub(1), ending);
    Box::new(Record { recorded_at: desk.now(), trace: job.trace(), fact })
}

async fn send(
    desk: &Arc<Desk>,
    job: Job,
    event: &TaskEvent,
    (ready, revision, now): (&Ready, u64, Timestamp),
) -> Result<Vec<Fact>, Job> {
    let mut made = Made {
        job,
        now,
        revision,
        outcome: Outcome::Failed(Fault::RequestInvalid),
        detail: Cow::Borrowed(""),
        url: Arc::clone(&ready.url_text),
        signature: String::new(),
        reply: None,
        batch: None,
        trace_sampled: None,
    };
    let give_up_at = ready.policy().give_up_at(made.job.delivery.accepted_at, desk.retention);
    if now > give_up_at {
        return Ok(vec![facts::expired(made.job)]);
    }
    let mut moments = Moments::default();
    match build(ready, event, made.job.delivery.id, (made.job.attempt, now)) {
        Ok((mut request, signature)) => {
            made.signature = signature;
            let about = (&made.job.delivery, made.job.attempt);
            let trace = (ready, event.trace());
            made.trace_sampled = desk.say_trace(trace, about, &mut request.headers);
            let wanted = desk.wanted(&made.job.delivery);
            if !made.job.progress.begin(now.saturating_add(ready.timeout)) {
                return Ok(Vec::new());
            }
            let Some(exchanged) = exchange(&desk.client, ready, request, wanted).await else {
                let may_go_on = made.job.progress.withdraw();
                return if may_go_on { Err(made.job) } else { Ok(Vec::new()) };
            };
            (made.outcome, made.detail) = exchanged.judge(&ready.profile, desk.now());
            moments = exchanged.answer.moments;
            made.reply = Some(Reply::of(exchanged, ready));
        }
        Err(detail) => made.detail = Cow::Owned(detail),
    }
    let facts = made.conclude(ready.policy(), desk.now(), give_up_at);
    desk.tell(&facts, event.trace(), &moments);
    Ok(facts)
}

/// Builds and signs the request; returns it with its signature.
fn build(
    ready: &Ready,
    event: &TaskEvent,
    delivery: DeliveryId,
    (number, at): (u32, Timestamp),
) -> Result<(fanfare_egress::Request, String), String> {
    let attempt = Attempt { delivery, number, at };
    let rendered = event.render(&ready.profile)?;
    address(ready, rendered.request(&ready.signer, &attempt))
}

/// Addresses a request to its endpoint; returns it with its signature.
fn address(
    ready: &Ready,
    request: fanfare_domain::Request,
) -> Result<(fanfare_egress::Request, String), String> {
    let signature = String::from(request.signature());
    let mut headers = ready.headers(request.headers.len());
    for (name, value) in request.headers {
        let value = HeaderValue::from_maybe_shared(value.into_bytes());
        headers.insert(ready.name(&name)?, value.map_err(|error| error.to_string())?);
    }
    let (url, body, deadline) = (ready.url.clone(), request.body, ready.timeout);
    let (method, identity) = (Method::POST, ready.identity.clone());
    Ok((fanfare_egress::Request { method, url, headers, body, deadline, identity }, signature))
}
