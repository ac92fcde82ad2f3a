//! What every handler shares, and the one way in which the configuration is changed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::anyhow;
use fanfare_delivery_log::{Database, Store, StoreError, Streams};
use fanfare_domain::{
    Change, EndpointId, Timestamp, UrlPolicy,
    profile::{HistoryRule, HttpsRule, Profile, Profiles},
    seal::Keyring,
};
use fanfare_event_log::{ConfigView, EventLog, JobsView, Publisher};
use fanfare_service::{Clock, Health, Metrics, Traces};

use crate::{
    caller::Caller,
    counters::Counters,
    directory::{Configured, Directory, Expunging, Revised},
    errands::Errands,
    error::{ApiError, Code},
    etag::IfMatch,
    live::Live,
    pace::Paces,
    rates::Rates,
    settings::{EndpointHttps, Origin},
    shares::Shares,
    trust::TraceTrust,
    url_rules::{Https, UrlRules},
    uses::Uses,
};

/// How many bytes a body may have beyond what the servers take in one message: everything beside
/// an event's data, with each of its bytes written as `\u00xx`.
const BODY_EXTRA_BYTES: usize = 256 << 10;
/// How long a body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request may take, its body included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the servers may take to say how far CONFIG has come.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// How old the directory may be where events are published: a question to the servers for each
/// would cost more than what is gained.
const LATELY: Duration = Duration::from_secs(1);
/// How often an edit is repeated when others change the same thing at the same time.
const EDITS_MAX: usize = 8;

/// The state of the service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

/// What an [`App`] is made of.
pub(crate) struct Parts {
    /// Where changes are written and facts are read.
    pub(crate) log: EventLog,
    /// Where commands are written.
    pub(crate) publisher: Publisher,
    /// Replays, and how far they are.
    pub(crate) jobs: JobsView,
    /// Held by who writes what is [counted](crate::counted).
    pub(crate) counted: tokio::sync::Mutex<()>,
    /// What is configured.
    pub(crate) directory: ConfigView<Directory>,
    /// Where deliveries are searched for, and what the tables there have to be folded from, once
    /// that was asked.
    pub(crate) tables: (Database, Mutex<Option<Streams>>),
    /// Seals secrets.
    pub(crate) keyring: Keyring,
    /// The profiles that tenants can have.
    pub(crate) profiles: Profiles,
    /// Whether endpoints need HTTPS.
    pub(crate) endpoint_https: EndpointHttps,
    /// In whose name endpoints are asked whether they may be sent to.
    pub(crate) webhook_origin: Option<Origin>,
    /// Which URLs endpoints may have, apart from that.
    pub(crate) urls: UrlPolicy,
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What `/healthz` and `/readyz` answer.
    pub(crate) health: Health,
    /// What `/metrics` answers.
    pub(crate) metrics: Metrics,
    /// Counts.
    pub(crate) counters: Arc<Counters>,
    /// How many requests may read the journal at once.
    pub(crate) scans: Shares,
    /// How many messages of the journal one request reads at most.
    pub(crate) journal_read_max: usize,
    /// How many bytes of bodies may be in memory at once.
    pub(crate) bodies: Shares,
    /// How many batches of events may be on their way to ingest at once.
    pub(crate) batches: Shares,
    /// How often what is costly may be done.
    pub(crate) paces: Paces,
    /// Those who watch deliveries.
    pub(crate) live: Live,
    /// When keys were last used.
    pub(crate) uses: Uses,
    /// Where spans go.
    pub(crate) traces: Traces,
    /// Whose traces requests continue.
    pub(crate) trace_trust: TraceTrust,
    /// How often callers may ask.
    pub(crate) rates: Rates,
    /// Requests that run to their end, whoever waits for them.
    pub(crate) errands: Errands,
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What an edit comes to.
pub(crate) enum Edited<T> {
    /// The thing as it shall be.
    Changed(T),
    /// It is as it shall be.
    Unchanged,
}

/// What an edit wants written.
pub(crate) enum Revision<T> {
    /// The thing as it shall be, with the revision that it is made from, and the change that makes
    /// it so.
    Wanted(Revised<T>, Change),
    /// Nothing: it is as it shall be, or not there.
    Needless(Option<Revised<T>>),
}

impl App {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The largest body, in bytes: every event fits that NATS would take.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.log.payload_max().saturating_add(BODY_EXTRA_BYTES)
    }

    /// Returns the current instant.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits until all that was acknowledged before is in the directory.
    pub(crate) async fn confirm(&self) -> Result<(), ApiError> {
        let confirmed = tokio::time::timeout(CONFIRM_TIMEOUT, self.directory.confirm()).await;
        let silent = || ApiError::Unavailable(anyhow!("CONFIG did not answer in time"));
        confirmed.map_err(|_elapsed| silent())??;
        Ok(())
    }

    /// Waits until all that was acknowledged a second ago is in the directory.
    pub(crate) async fn confirm_lately(&self) -> Result<(), ApiError> {
        let confirmed_at = self.directory.confirmed_at();
        if confirmed_at.is_some_and(|at| at.elapsed() < LATELY) {
            Ok(())
        } else {
            self.confirm().await
        }
    }

    /// Returns the delivery log, if there is one that can be read.
    pub(crate) async fn delivery_log(&self) -> Result<Store, ApiError> {
        let (database, known_streams) = &self.tables;
        let known = known_streams.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            match Store::attach(database, &known).await {
                // The streams may have been replaced since.
                Err(StoreError::Foreign) => {}
                attached => return Ok(attached?),
            }
        }
        let marks = tokio::time::timeout(CONFIRM_TIMEOUT, self.log.marks()).await;
        let silent = || ApiError::Unavailable(anyhow!("the streams did not answer in time"));
        let marks = marks.map_err(|_elapsed| silent())??;
        let streams = Streams {
            events: marks.events.stream,
            journal: marks.journal.stream,
            config: marks.config.stream,
            inbox: String::from(self.log.inbox_identity()),
        };
        *known_streams.lock().unwrap_or_else(PoisonError::into_inner) = Some(streams.clone());
        Ok(Store::attach(database, &streams).await?)
    }

    /// Tells whether an endpoint was deleted with its history: then that is not shown any more.
    pub(crate) fn is_erased(&self, endpoint: EndpointId) -> bool {
        self.directory.read(|directory| {
            let profile = directory.profile_of_deleted(endpoint);
            let profile = profile.and_then(|name| self.profiles.get(name));
            profile.is_some_and(|profile| profile.history == HistoryRule::Delete)
        })
    }

    /// Returns a tenant's profile.
    pub(crate) fn profile(&self, name: &str) -> Result<&Arc<Profile>, ApiError> {
        let missing = || ApiError::Internal(anyhow!("the profile {name} is not loaded here"));
        self.profiles.get(name).ok_or_else(missing)
    }

    /// Returns which URLs the endpoints of a profile may have.
    pub(crate) fn url_rules(&self, profile: &Profile) -> UrlRules {
        let https = match (self.endpoint_https, profile.endpoint.https) {
            (EndpointHttps::Required, _) => Https::Always,
            (EndpointHttps::ByProfile, HttpsRule::Required) => Https::ButForAllowed,
            (EndpointHttps::ByProfile, HttpsRule::Optional) | (EndpointHttps::Optional, _) => {
                Https::Never
            }
        };
        UrlRules { https, policy: self.urls.clone() }
    }

    /// Writes a change made from a revision, and returns the new one once the directory has it.
    pub(crate) async fn write(&self, change: Change, expected: u64) -> Result<u64, ApiError> {
        let revision = self.log.change(&change, expected).await?;
        self.confirm().await?;
        Ok(revision)
    }

    /// Changes a thing from what it is: again from the start if others change it meanwhile, unless
    /// the caller named the version that it wants to change.
    pub(crate) async fn edit<T>(
        &self,
        caller: &Caller,
        if_match: &IfMatch,
        find: impl Fn(&Directory) -> Option<Revised<T>> + Send,
        edit: impl Fn(&T) -> Result<Edited<T>, ApiError> + Send,
    ) -> Result<Option<Revised<T>>, ApiError>
    where
        T: Configured,
    {
        for _ in 0..EDITS_MAX {
            let (next, change) = match self.revise(caller, if_match, &find, &edit)? {
                Revision::Wanted(next, change) => (next, change),
                Revision::Needless(current) => return Ok(current),
            };
            match self.write(change, next.revision).await {
                Ok(revision) => return Ok(Some(Revised { revision, ..next })),
                Err(ApiError::Plain(Code::ChangedMeanwhile)) => self.confirm().await?,
                Err(other) => return Err(other),
            }
        }
        Err(Code::ChangedMeanwhile.into())
    }

    /// Looks what an edit comes to at this moment.
    pub(crate) fn revise<T>(
        &self,
        caller: &Caller,
        if_match: &IfMatch,
        find: impl Fn(&Directory) -> Option<Revised<T>>,
        edit: impl Fn(&T) -> Result<Edited<T>, ApiError>,
    ) -> Result<Revision<T>, ApiError>
    where
        T: Configured,
    {
        let Some(current) = self.directory.read(find) else { return Ok(Revision::Needless(None)) };
        if_match.admit(current.revision)?;
        let value = match edit(&current.value)? {
            Edited::Changed(value) => Arc::new(value),
            Edited::Unchanged => return Ok(Revision::Needless(Some(current))),
        };
        let change = caller.change(T::entity(Arc::clone(&value)), false);
        Ok(Revision::Wanted(Revised { value, ..current }, change))
    }

    /// Deletes a thing; returns whether it was there.
    pub(crate) async fn delete<T>(
        &self,
        caller: &Caller,
        if_match: &IfMatch,
        find: impl Fn(&Directory) -> Option<Revised<T>> + Send,
    ) -> Result<bool, ApiError>
    where
        T: Configured,
    {
        let deletion = |value: &Arc<T>| caller.change(T::entity(Arc::clone(value)), true);
        self.remove(if_match, find, deletion).await
    }

    /// Takes back what was made for a tenant that was deleted meanwhile, and leaves nothing of what it
    /// said.
    pub(crate) async fn withdraw<T>(
        &self,
        caller: &Caller,
        find: impl Fn(&Directory) -> Option<Revised<T>> + Send,
    ) -> Result<(), ApiError>
    where
        T: Configured,
    {
        let deletion = |value: &Arc<T>| caller.change(T::entity(value.redacted().into()), true);
        self.remove(&IfMatch::Absent, find, deletion).await?;
        Ok(())
    }

    /// Deletes a thing, and leaves nothing in the record of it that its tenant said; returns whether
    /// it was there.
    pub(crate) async fn strike<T>(
        &self,
        by: &Expunging,
        find: impl Fn(&Directory) -> Option<Revised<T>> + Send,
    ) -> Result<bool, ApiError>
    where
        T: Configured,
    {
        let deletion = |value: &Arc<T>| by.deletion(T::entity(value.redacted().into()));
        self.remove(&IfMatch::Absent, find, deletion).await
    }

    /// Writes a thing's deletion: again from the start if others change it meanwhile. Returns
    /// whether it was there.
    async fn remove<T>(
        &self,
        if_match: &IfMatch,
        find: impl Fn(&Directory) -> Option<Revised<T>> + Send,
        deletion: impl Fn(&Arc<T>) -> Change + Send,
    ) -> Result<bool, ApiError>
    where
        T: Configured,
    {
        for _ in 0..EDITS_MAX {
            let Some(current) = self.directory.read(&find) else { return Ok(false) };
            if_match.admit(current.revision)?;
            let change = deletion(&current.value);
            match self.write(change, current.revision).await {
                Ok(_) => return Ok(true),
                Err(ApiError::Plain(Code::ChangedMeanwhile)) => self.confirm().await?,
                Err(other) => return Err(other),
            }
        }
        Err(Code::ChangedMeanwhile.into())
    }
}
