//! Takes over: claims the shard, reads what is known of it, and catches up with the journal.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use anyhow::Context as _;
use fanfare_domain::{Shard, Timestamp};
use fanfare_event_log::{Column, EventLog, JournalFilter, JournalWriter, journal::From};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{
    Desk, Tools,
    saving::{NAME, Saved},
    setting::Setting,
    sweeping::Sweeping,
    telling::Telling,
};
use crate::{agenda::Agenda, counters::Gauges};

/// Without a snapshot, operators count as told of what happened longer ago.
const TOLD_AFTER: Duration = Duration::from_hours(24);

impl Desk {
    /// Takes over a shard and catches up, without acting on anything yet: only once the journal
    /// is read to its end is it known what has been done already.
    pub(crate) async fn open(tools: Tools, shard: Shard) -> anyhow::Result<Self> {
        let begun = tools.now();
        let writer = tools.claim(shard).await?;
        let known = snapshot(&tools.log, shard).await?;
        // After the claim: nobody else can add a plan behind it.
        let last = tools.log.journal_last().await.context("find the journal's end")?;
        tools.view.confirm().await.context("confirm the configuration")?;
        let agenda = known.unwrap_or_else(|| Agenda::new(shard));
        // So that all of them keep to the limit, also where this process owns every shard.
        let shards = usize::from(tools.log.shards().get());
        let in_flight_max = tools.settings.in_flight_max.div_ceil(shards);
        let from = From::Sequence(agenda.checkpoint() + 1);
        let reader = tools.log.journal(JournalFilter::Shard(shard), from).await;
        let mut desk = Self {
            shard,
            saved: Saved::new(agenda.checkpoint()),
            agenda,
            plans: VecDeque::new(),
            writing: 0,
            writer: Some(writer),
            gauges: Gauges::of(&tools.counters, shard),
            // What goes to DEAD is of attempts that failed, and these come whole.
            reader: reader.context("read the journal")?.brief(),
            position: 0,
            jobs: JoinSet::new(),
            in_flight_max,
            alarms: 0,
            recalls: BTreeSet::new(),
            recalling: 0,
            stalled: BTreeSet::new(),
            stops: VecDeque::new(),
            stopping: 0,
            setting: Setting::default(),
            disabling: BTreeSet::new(),
            telling: Telling::new(begun),
            sweeping: Sweeping::new(begun),
            tools,
        };
        let batches = desk.catch_up(last, begun).await?;
        desk.sweeping = Sweeping::new(desk.tools.now());
        let duties = desk.recalls.len();
        info!(%shard, batches, last, duties, "caught up with the journal");
        Ok(desk)
    }

    /// Folds the journal up to a sequence, and notes about which facts there is something to do.
    async fn catch_up(&mut self, last: u64, now: Timestamp) -> anyhow::Result<usize> {
        let mut batches = 0;
        while let Some(batch) = self.reader.next_until(last).await.context("read the journal")? {
            if batches == 0 && self.agenda.checkpoint() == 0 {
                self.begin(batch.sequence, now);
            }
            batches += 1;
            self.saved.note_change();
            let agenda = &mut self.agenda;
            self.tools.view.read(|directory| {
                agenda.apply(batch.sequence, &batch.facts, directory);
            });
        }
        self.position = last;
        self.agenda.reach(last);
        self.recalls.extend(self.agenda.idle());
        Ok(batches)
    }

    /// Tells an agenda that begins with nothing where the journal begins.
    fn begin(&mut self, first: u64, now: Timestamp) {
        let told_before = now.saturating_sub(TOLD_AFTER);
        self.agenda.begin(first, told_before);
        self.agenda.announced = self.tools.view.read(|directory| {
            directory.disabled_before(told_before).max(directory.keys_before(told_before))
        });
    }
}

impl Tools {
    async fn claim(&self, shard: Shard) -> anyhow::Result<JournalWriter> {
        let claim = self.log.claim(shard, Column::Plans, &self.owner, self.now());
        claim.await.with_context(|| format!("claim shard {shard}"))
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
