//! The dashboard of an endpoint: its statements, asked of the delivery log as Grafana asks them.

use std::collections::BTreeSet;

use super::{EVENTS, source::Source};
use crate::support::{Scene, boards::Board, scene::TENANT};
use anyhow::{Context as _, Result, ensure};
use fanfare_domain::{DeliveryId, EndpointId, EventId};
use fanfare_testkit::wait_until;
use serde_json::{Value, json};

/// An hour, in milliseconds.
const HOUR: u64 = 3_600_000;

/// The dashboard, with an endpoint chosen.
struct Shown<'a> {
    board: &'a Board,
    source: &'a mut Source,
    endpoint: String,
    key: String,
    /// The time that it shows, in milliseconds.
    range: (u64, u64),
}

/// Checks that the dashboard tells of each endpoint what happened.
pub(super) async fn tell_the_same(scene: &Scene, url: &str) -> Result<()> {
    let mut source = Source::open(url).await?;
    let board = Board::read(source.board())?;
    let seen = scene.hooks.seen();
    let events: BTreeSet<EventId> =
        seen.iter().filter(|seen| seen.path == "/good").filter_map(|seen| seen.event).collect();
    ensure!(events.len() == EVENTS, "each event came: {events:?}");
    for path in ["/good", "/third", "/never", "/hangs"] {
        let found = scene.subscribers.iter().find(|one| one.path == path).context(path)?;
        let mut shown = Shown::of(&board, &mut source, found.id).await?;
        shown.caught_up(path).await;
        shown.all_are_answered().await?;
        shown.is_named(&scene.hooks.url(path)).await?;
        match path {
            "/good" => shown.delivers(1).await?,
            "/third" => {
                shown.delivers(3).await?;
                shown.fails_at_first(&events, found.id).await?;
            }
            "/never" => shown.never_delivers(&events, found.id).await?,
            _ => shown.waits().await?,
        }
    }
    source.close().await
}

impl<'a> Shown<'a> {
    async fn of(board: &'a Board, source: &'a mut Source, endpoint: EndpointId) -> Result<Self> {
        let now = endpoint.time().as_millis();
        let range = (now - HOUR, now + HOUR);
        let endpoint = endpoint.to_string();
        let mut shown = Self { board, source, endpoint, key: String::new(), range };
        shown.key = shown.source.text(shown.filled(board.variable("key")?)).await?;
        ensure!(shown.key.len() == 32, "the key is {}", shown.key);
        Ok(shown)
    }

    /// A statement with the variables' values, as Grafana fills them in.
    fn filled(&self, statement: &str) -> String {
        statement
            .replace("${__from}", &self.range.0.to_string())
            .replace("${__to}", &self.range.1.to_string())
            .replace("$__interval_ms", "60000")
            .replace("${endpoint:sqlstring}", &format!("'{}'", self.endpoint))
            .replace("$key", &self.key)
    }

    /// The rows of a panel.
    async fn rows(&mut self, title: &str) -> Result<Vec<Value>> {
        let statement = self.filled(self.board.statement(title)?);
        ensure!(!statement.contains('$'), "{title}: {statement}");
        self.source.rows(statement).await
    }

    /// The only number of a panel; `None` if there is none.
    async fn number(&mut self, title: &str) -> Result<Option<f64>> {
        let rows = self.rows(title).await?;
        let [row] = rows.as_slice() else { anyhow::bail!("{title}: {rows:?}") };
        let row = row.as_object().context("a row")?;
        Ok(row.values().next().and_then(Value::as_f64))
    }

    /// Waits until the delivery log has all that happened.
    async fn caught_up(&mut self, path: &str) {
        let wanted = match path {
            "/good" => json!([{"state": "delivered", "deliveries": 6, "attempts": 6}]),
            "/third" => json!([{"state": "delivered", "deliveries": 6, "attempts": 18}]),
            "/never" => json!([{"state": "exhausted", "deliveries": 6, "attempts": 18}]),
            // It may have been given up meanwhile, and waits for its retry.
            _ => Value::Null,
        };
        wait_until("the delivery log to have all", async || {
            let rows = self.rows("Deliveries").await.map_err(|error| format!("{error:#}"))?;
            let is_there = wanted == json!(rows) || (wanted.is_null() && rows.len() == 1);
            if is_there { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    }

    async fn all_are_answered(&mut self) -> Result<()> {
        for title in self.board.titles()? {
            self.rows(title).await?;
        }
        Ok(())
    }

    async fn is_named(&mut self, url: &str) -> Result<()> {
        let rows = self.rows("Endpoint").await?;
        let [row] = rows.as_slice() else { anyhow::bail!("{rows:?}") };
        let is_there = row["deleted"] == false || row["deleted"] == 0;
        ensure!(row["tenant"] == TENANT && row["url"] == url && is_there, "{row}");
        Ok(())
    }

    /// It takes each event after so many attempts.
    async fn delivers(&mut self, attempts: usize) -> Result<()> {
        let share = 1.0 / f64::from(u32::try_from(attempts)?);
        for (title, wanted) in
            [("Delivered", Some(1.0)), ("Attempts accepted", Some(share)), ("Not ended", Some(0.0))]
        {
            let found = self.number(title).await?;
            let is_same = found.zip(wanted).is_some_and(|(a, b)| (a - b).abs() < 1e-6);
            ensure!(is_same, "{title}: {found:?}, not {wanted:?}");
        }
        for title in ["Answers, p99", "First attempt, p99"] {
            let found = self.number(title).await?;
            ensure!(found > Some(0.0) && found < Some(300.0), "{title}: {found:?}");
        }
        ensure!(self.number("Oldest not ended").await?.is_none(), "all have ended");
        let types = self.rows("Event types").await?;
        let wanted = json!([{"event_type": "order.paid", "deliveries": EVENTS, "failed": 0}]);
        ensure!(json!(types) == wanted, "{types:?}");
        ensure!(self.rows("Failed for good").await?.is_empty(), "none has failed");
        self.over_time("Attempts, by outcome", &[("accepted 200", EVENTS)], attempts > 1).await?;
        self.over_time("Deliveries, by state", &[("delivered", EVENTS)], false).await
    }

    /// Sums up what a panel shows over time; there may be others than those that are named.
    async fn over_time(
        &mut self,
        title: &str,
        wanted: &[(&str, usize)],
        or_others: bool,
    ) -> Result<()> {
        let rows = self.rows(title).await?;
        let value = |row: &Value| {
            let row = row.as_object()?;
            row.iter().find(|(name, _)| *name != "time" && *name != "metric")?.1.as_u64()
        };
        for (metric, count) in wanted {
            let of = rows.iter().filter(|row| row["metric"] == *metric);
            let sum: u64 = of.filter_map(value).sum();
            ensure!(sum == u64::try_from(*count)?, "{title}: {rows:?}");
        }
        let known = |row: &Value| wanted.iter().any(|(metric, _)| row["metric"] == *metric);
        ensure!(or_others || rows.iter().all(known), "{title}: {rows:?}");
        Ok(())
    }

    /// Each event fails twice before it is taken.
    async fn fails_at_first(
        &mut self,
        events: &BTreeSet<EventId>,
        endpoint: EndpointId,
    ) -> Result<()> {
        self.over_time(
            "Attempts, by outcome",
            &[("accepted 200", EVENTS), ("refused 503", 2 * EVENTS)],
            false,
        )
        .await?;
        let failed = self.rows("Latest failed attempts").await?;
        ensure!(failed.len() == 2 * EVENTS, "{failed:?}");
        ensure!(failed.iter().all(|row| row["status"] == 503), "{failed:?}");
        ensure!(ids(&failed, "delivery") == deliveries(events, endpoint), "{failed:?}");
        let came = self.rows("What came of attempts").await?;
        let counts: Vec<_> = came.iter().map(|row| (&row["status"], &row["attempts"])).collect();
        let wanted = [(json!(503), json!(2 * EVENTS)), (json!(200), json!(EVENTS))];
        ensure!(counts == wanted.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>(), "{came:?}");
        Ok(())
    }

    /// Each event is given up after three attempts.
    async fn never_delivers(
        &mut self,
        events: &BTreeSet<EventId>,
        endpoint: EndpointId,
    ) -> Result<()> {
        for title in ["Delivered", "Attempts accepted", "Not ended"] {
            let found = self.number(title).await?;
            ensure!(found == Some(0.0), "{title}: {found:?}");
        }
        let failed = self.rows("Failed for good").await?;
        ensure!(ids(&failed, "delivery") == deliveries(events, endpoint), "{failed:?}");
        let named: BTreeSet<_> = events.iter().map(ToString::to_string).collect();
        ensure!(ids(&failed, "event") == named, "{failed:?}");
        ensure!(failed.iter().all(|row| row["attempts"] == 3), "{failed:?}");
        self.over_time("Attempts, by outcome", &[("refused 500", 3 * EVENTS)], false).await?;
        self.over_time("Deliveries, by state", &[("exhausted", EVENTS)], false).await
    }

    /// One event waits for its answer.
    async fn waits(&mut self) -> Result<()> {
        ensure!(self.number("Not ended").await? == Some(1.0), "one waits");
        let oldest = self.number("Oldest not ended").await?;
        ensure!(oldest > Some(0.0) && oldest < Some(3_600.0), "since {oldest:?}");
        let waiting = self.rows("Waiting").await?;
        ensure!(waiting.len() == 1 && waiting[0]["event_type"] == "hang.now", "{waiting:?}");
        ensure!(self.number("Delivered").await?.is_none(), "nothing has ended");
        Ok(())
    }
}

fn ids(rows: &[Value], column: &str) -> BTreeSet<String> {
    rows.iter().filter_map(|row| row[column].as_str().map(String::from)).collect()
}

fn deliveries(events: &BTreeSet<EventId>, endpoint: EndpointId) -> BTreeSet<String> {
    events.iter().map(|event| DeliveryId::of(*event, endpoint, 0).to_string()).collect()
}
