//! Several attempts of one endpoint in one request.
//!
//! ```text
//! jobs ─▶ events ─▶ permitted? ─▶ one body, one signature ─▶ POST ─▶ a fact for each
//!            └──────────┴──▶ facts of those that are not to be sent
//! ```
//!
//! Each delivery is looked at by itself until the request is sent: one that is cancelled, parked,
//! expired or cannot be read does not hold up the others. What does not fit the request is left,
//! and is sent in another. Within the body the events are in the order of EVENTS, so that the same
//! ones sent again make the same body.

use std::{borrow::Cow, sync::Arc};

use fanfare_domain::{
    Batch, Fact, Fault, Outcome, Record, Timestamp,
    batch::Fit,
    fact::{DeliveryParked, InBatch},
    trace::span::Moments,
};
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;

use super::{
    Desk, Job,
    exchange::exchange,
    facts::{Made, Reply, cancelled, expired, unsendable},
    fetch,
};
use crate::{
    progress::Progress,
    registry::Permission,
    runtime::{Ready, Unready},
    task_event::TaskEvent,
};

/// How many events are read at a time.
const READS_MAX: usize = 16;

/// What came of the attempts; `T` is what the caller knows them by.
pub(crate) struct Batched<T> {
    /// The facts about each. None if nothing was sent because the flight was
    /// [closed](Progress::close).
    pub(crate) done: Vec<(T, Vec<Record>)>,
    /// Those that are to be sent in another request.
    pub(crate) left: Vec<(Job, T)>,
    /// When the parts of the request were done.
    moments: Moments,
}

/// One of the attempts.
struct Member<T> {
    job: Job,
    event: Arc<TaskEvent>,
    tag: T,
}

/// Makes attempts of one endpoint in one request, but for those that must not be made; `progress`
/// is the request's.
pub(crate) async fn make<T>(
    desk: &Arc<Desk>,
    jobs: Vec<(Job, T)>,
    progress: &Progress,
) -> Batched<T> {
    let mut batched = Batched { done: Vec::new(), left: Vec::new(), moments: Moments::default() };
    let mut members = gather(desk, jobs, &mut batched).await;
    while !members.is_empty() {
        members = try_once(desk, members, progress, &mut batched).await;
    }
    batched
}

/// Reads the events that are not at hand, as many as a request can carry.
async fn gather<T>(
    desk: &Arc<Desk>,
    mut jobs: Vec<(Job, T)>,
    batched: &mut Batched<T>,
) -> Vec<Member<T>> {
    jobs.sort_by_key(|(job, _)| (job.delivery.event_sequence, job.delivery.id));
    let number = jobs.first().map_or(1, |(job, _)| job.attempt);
    let (mut members, mut bytes) = (Vec::with_capacity(jobs.len()), 0);
    let mut jobs = jobs.into_iter();
    while bytes < Batch::BYTES_MAX {
        let some: Vec<_> = jobs.by_ref().take(READS_MAX).collect();
        if some.is_empty() {
            break;
        }
        let read = async |(mut job, tag): (Job, T)| {
            let event = match job.event.take() {
                Some(event) => Ok(event),
                None => fetch(desk, &job).await,
            };
            (job, tag, event)
        };
        let mut reading = stream::iter(some).map(read).buffered(READS_MAX);
        while let Some((job, tag, event)) = reading.next().await {
            match event {
                Ok(event) if job.attempt == number => {
                    bytes += event.bytes();
                    members.push(Member { job, event, tag });
                }
                Ok(event) => batched.leave(Member { job, event, tag }),
                Err(record) => batched.done.push((tag, vec![*record])),
            }
        }
    }
    batched.left.extend(jobs);
    members
}

/// Looks and sends; returns those that are to be looked at again.
async fn try_once<T>(
    desk: &Arc<Desk>,
    members: Vec<Member<T>>,
    progress: &Progress,
    batched: &mut Batched<T>,
) -> Vec<Member<T>> {
    desk.guard.held().await;
    let mut permissions = permit(desk, &members);
    if !permissions.iter().all(|permission| matches!(permission, Permission::Go { .. })) {
        // That is final, and the view may be some moments behind.
        desk.guard.view_confirmed().await;
        permissions = permit(desk, &members);
    }
    let (now, mut go, mut config) = (desk.now(), Vec::new(), None);
    for (member, permission) in members.into_iter().zip(permissions) {
        match permission {
            Permission::Cancelled(reason) => {
                batched.record(desk, member, |job| vec![cancelled(job, reason)]);
            }
            Permission::Hold => batched.record(desk, member, |job| {
                let Job { delivery, attempt, .. } = job;
                vec![Fact::DeliveryParked(DeliveryParked { delivery, attempt })]
            }),
            Permission::Go { endpoint, revision, profile } => {
                let id = member.job.delivery.endpoint;
                config = Some((id, endpoint, revision, profile));
                go.push(member);
            }
        }
    }
    let Some((id, endpoint, revision, profile)) = config else { return Vec::new() };
    match desk.readying.ready(id, &endpoint, (revision, &profile, now)) {
        Ok(ready) => {
            let sending = Sending { desk, ready: &ready, revision, now, progress };
            sending.send(go, batched).await
        }
        Err(unready) => {
            refuse(desk, go, (&profile, revision, now), &unready, batched);
            Vec::new()
        }
    }
}

/// Looks at all of them at one moment, so that all see the endpoint alike.
fn permit<T>(desk: &Desk, members: &[Member<T>]) -> Vec<Permission> {
    desk.guard.view().read(|registry| {
        let permit = |member: &Member<T>| {
            let delivery = &member.job.delivery;
            registry.permit(delivery.endpoint, delivery.accepted_at)
        };
        members.iter().map(permit).collect()
    })
}

fn refuse<T>(
    desk: &Desk,
    members: Vec<Member<T>>,
    looked: super::Looked<'_>,
    unready: &Unready,
    batched: &mut Batched<T>,
) {
    for member in members {
        batched.record(desk, member, |job| unsendable(desk, job, looked, unready));
    }
}

/// A request that is about to be sent.
struct Sending<'a> {
    desk: &'a Arc<Desk>,
    ready: &'a Ready,
    revision: u64,
    now: Timestamp,
    progress: &'a Progress,
}

impl Sending<'_> {
    async fn send<T>(&self, members: Vec<Member<T>>, batched: &mut Batched<T>) -> Vec<Member<T>> {
        let number = members.first().map_or(1, |member| member.job.attempt);
        let Some(body) = Batch::new(&self.ready.profile, number, self.now) else {
            // The lanes will know better once they have seen the configuration.
            for member in members {
                batched.leave(member);
            }
            return Vec::new();
        };
        let (body, members) = self.fill(body, members, batched);
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let batch = InBatch { id: body.id(), size };
        let Some(request) = body.request(&self.ready.signer) else { return Vec::new() };
        let _memory = self.desk.memory().count(request.body.len());
        let oldest = members.iter().map(|member| &member.job.delivery);
        let Some(oldest) = oldest.min_by_key(|delivery| delivery.accepted_at) else {
            return Vec::new();
        };
        // What cancels any of them cancels the oldest.
        let wanted = self.desk.wanted(oldest);
        let mut trace_sampled = None;
        let (outcome, detail, signature, reply) = match super::address(self.ready, request) {
            Err(detail) => {
                let failed = Outcome::Failed(Fault::RequestInvalid);
                (failed, Cow::Owned(detail), String::new(), None)
            }
            Ok((mut request, signature)) => {
                trace_sampled = self.say_trace(&members, number, &mut request.headers);
                if !self.progress.begin(self.now.saturating_add(self.ready.timeout)) {
                    return batched.close(members);
                }
                let exchanged = exchange(&self.desk.client, self.ready, request, wanted).await;
                let Some(exchanged) = exchanged else {
                    let may_go_on = self.progress.withdraw();
                    return if may_go_on { members } else { batched.close(members) };
                };
                let (outcome, detail) = exchanged.judge(&self.ready.profile, self.desk.now());
                batched.moments = exchanged.answer.moments;
                (outcome, detail, signature, Some(Reply::of(exchanged, self.ready)))
            }
        };
        let made = |job, reply| Made {
            job,
            now: self.now,
            revision: self.revision,
            outcome: outcome.clone(),
            detail: detail.clone(),
            url: Arc::clone(&self.ready.url_text),
            signature: signature.clone(),
            reply,
            batch: Some(batch),
            trace_sampled,
        };
        self.conclude(members, reply, made, batched);
        Vec::new()
    }

    /// Says in a request which attempt it is. It has one place in one trace: that of the first
    /// delivery whose event came with one, or of the first where none did.
    fn say_trace<T>(
        &self,
        members: &[Member<T>],
        number: u32,
        headers: &mut HeaderMap,
    ) -> Option<bool> {
        let traced = members.iter().find(|member| !member.event.trace().is_empty());
        let told = traced.or(members.first())?;
        let about = (&told.job.delivery, number);
        self.desk.say_trace((self.ready, told.event.trace()), about, headers)
    }

    /// Adds what fits; returns those that are in it.
    fn fill<T>(
        &self,
        mut body: Batch,
        members: Vec<Member<T>>,
        batched: &mut Batched<T>,
    ) -> (Batch, Vec<Member<T>>) {
        let mut added = Vec::with_capacity(members.len());
        for member in members {
            if self.now > self.give_up_at(&member.job) {
                batched.record(self.desk, member, |job| vec![expired(job)]);
                continue;
            }
            match body.add(member.event.event(), member.job.delivery.id) {
                Ok(Fit::Added) => added.push(member),
                Ok(Fit::TooLarge) => batched.leave(member),
                Err(refused) => batched.record(self.desk, member, |job| {
                    let give_up_at = self.give_up_at(&job);
                    let made = Made {
                        job,
                        now: self.now,
                        revision: self.revision,
                        outcome: Outcome::Failed(Fault::RequestInvalid),
                        detail: Cow::Owned(refused.to_string()),
                        url: Arc::clone(&self.ready.url_text),
                        signature: String::new(),
                        reply: None,
                        batch: None,
                        trace_sampled: None,
                    };
                    made.conclude(self.ready.policy(), self.now, give_up_at)
                }),
            }
        }
        (body, added)
    }

    /// Puts the one outcome on record for each. The first keeps all of the answer.
    fn conclude<T>(
        &self,
        members: Vec<Member<T>>,
        reply: Option<Reply>,
        made: impl Fn(Job, Option<Reply>) -> Made,
        batched: &mut Batched<T>,
    ) {
        let ended_at = self.desk.now();
        let excerpt = reply.as_ref().map(Reply::excerpt);
        let replies = std::iter::once(reply).chain(std::iter::repeat(excerpt));
        for (member, reply) in members.into_iter().zip(replies) {
            let give_up_at = self.give_up_at(&member.job);
            batched.record(self.desk, member, |job| {
                made(job, reply).conclude(self.ready.policy(), ended_at, give_up_at)
            });
        }
    }

    fn give_up_at(&self, job: &Job) -> Timestamp {
        self.ready.policy().give_up_at(job.delivery.accepted_at, self.desk.retention)
    }
}

impl<T> Batched<T> {
    /// Notes the facts about one.
    fn record(&mut self, desk: &Desk, member: Member<T>, facts: impl FnOnce(Job) -> Vec<Fact>) {
        let Member { job, event, tag } = member;
        let (recorded_at, trace) = (desk.now(), event.trace().clone());
        let record = |fact| Record { recorded_at, trace: trace.clone(), fact };
        let facts = facts(job);
        desk.tell(&facts, event.trace(), &self.moments);
        let facts = facts.into_iter().map(record).collect();
        self.done.push((tag, facts));
    }

    /// Leaves one for another request, with its event.
    fn leave(&mut self, member: Member<T>) {
        let Member { mut job, event, tag } = member;
        job.event = Some(event);
        self.left.push((job, tag));
    }

    /// Says nothing of those that were not sent, and will not be.
    fn close(&mut self, members: Vec<Member<T>>) -> Vec<Member<T>> {
        self.done.extend(members.into_iter().map(|member| (member.tag, Vec::new())));
        Vec::new()
    }
}
