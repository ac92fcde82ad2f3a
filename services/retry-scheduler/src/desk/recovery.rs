//! Takes over: claims the shards, reads what is known of them, and catches up with the journal.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use anyhow::Context as _;
use fanfare_domain::{Shard, Timestamp};
use fanfare_event_log::{Column, EventLog, JournalFilter, JournalWriter, journal::From};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{
    Desk, ShardDesk, Tools, of_shard,
    saving::{NAME, Saved, Saving},
    sweeping::Sweeping,
    telling::Telling,
};
use crate::agenda::Agenda;

/// How many shards are taken over at once.
const TAKEN_AT_ONCE: usize = 16;
/// Without a snapshot, operators count as told of what happened longer ago.
const TOLD_AFTER: Duration = Duration::from_hours(24);

impl Desk {
    /// Takes over all shards and catches up, without acting on anything yet: only once the
    /// journal is read to its end is it known what has been done already.
    pub(crate) async fn open(tools: Tools) -> anyhow::Result<Self> {
        let begun = tools.now();
        let shards: Vec<Shard> = tools.log.shards().shards().collect();
        let taken: Vec<ShardDesk> = stream::iter(shards)
            .map(async |shard| ShardDesk::take(&tools, shard).await)
            .buffered(TAKEN_AT_ONCE)
            .try_collect()
            .await?;
        // After the claims: nobody else can add a plan behind it.
        let last = tools.log.journal_last().await.context("find the journal's end")?;
        tools.view.confirm().await.context("confirm the configuration")?;
        let from = taken.iter().map(|desk| desk.agenda.checkpoint()).min();
        let reader = tools
            .log
            .journal(JournalFilter::Deliveries, From::Sequence(from.unwrap_or_default() + 1))
            .await
            .context("read the journal")?;
        let mut desk = Self {
            shards: taken,
            reader,
            position: 0,
            jobs: JoinSet::new(),
            alarms: 0,
            recalls: BTreeSet::new(),
            recalling: 0,
            stalled: BTreeSet::new(),
            cancels: VecDeque::new(),
            cancelling: 0,
            disabling: BTreeSet::new(),
            telling: Telling::new(begun),
            sweeping: Sweeping::new(begun),
            saving: Saving::default(),
            tools,
        };
        let batches = desk.catch_up(last, begun).await?;
        desk.sweeping = Sweeping::new(desk.tools.now());
        let duties = desk.recalls.len();
        info!(batches, last, duties, "caught up with the journal");
        Ok(desk)
    }

    /// Folds the journal up to a sequence, and notes about which facts there is something to do.
    async fn catch_up(&mut self, last: u64, now: Timestamp) -> anyhow::Result<usize> {
        let (mut batches, mut first) = (0, None);
        while let Some(batch) = self.reader.next_until(last).await.context("read the journal")? {
            batches += 1;
            if first.is_none() {
                first = Some(batch.sequence);
                self.begin(batch.sequence, now);
            }
            let shard = batch.column.map(|(shard, _)| shard);
            let desk = shard.and_then(|shard| of_shard(&mut self.shards, shard));
            let Some(desk) = desk else { continue };
            desk.saved.note_change();
            self.tools.view.read(|directory| {
                desk.agenda.apply(batch.sequence, &batch.facts, directory);
            });
        }
        self.position = last;
        for desk in &mut self.shards {
            desk.agenda.reach(last);
            let idle = desk.agenda.idle();
            self.recalls.extend(idle.into_iter().map(|sequence| (sequence, desk.shard)));
        }
        Ok(batches)
    }

    /// Tells the agendas that begin with nothing where the journal begins.
    fn begin(&mut self, first: u64, now: Timestamp) {
        let told_before = now.saturating_sub(TOLD_AFTER);
        let announced = self.tools.view.read(|directory| directory.disabled_before(told_before));
        for desk in &mut self.shards {
            if desk.agenda.checkpoint() == 0 {
                desk.agenda.begin(first, told_before);
                desk.agenda.announced = announced;
            }
        }
    }
}

impl Tools {
    async fn claim(&self, shard: Shard) -> anyhow::Result<JournalWriter> {
        let claim = self.log.claim(shard, Column::Plans, &self.owner, self.now());
        claim.await.with_context(|| format!("claim shard {shard}"))
    }
}

impl ShardDesk {
    /// Claims a shard and reads what is known of it.
    async fn take(tools: &Tools, shard: Shard) -> anyhow::Result<Self> {
        let writer = Some(tools.claim(shard).await?);
        let known = snapshot(&tools.log, shard).await?;
        let agenda = known.unwrap_or_else(|| Agenda::new(shard));
        let saved = Saved::new(agenda.checkpoint());
        Ok(Self { shard, agenda, plans: VecDeque::new(), writing: 0, writer, saved })
    }
}

/// Reads what is known of a shard; `None` if the journal has to be read from its beginning.
async fn snapshot(log: &EventLog, shard: Shard) -> anyhow::Result<Option<Agenda>> {
    let Some(snapshot) = log.snapshot(NAME, shard).await.context("read a snapshot")? else {
        return Ok(None);
    };
    match Agenda::decode(shard, &snapshot.state) {
        Ok(agenda) => Ok(Some(agenda)),
        Err(error) => {
            warn!(%error, %shard, "a snapshot is not used: the whole journal is read instead");
            Ok(None)
        }
    }
}
