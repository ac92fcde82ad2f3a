//! Configuration: views read their own writes, also over restarts, and writers exclude each other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::stream;
use fanfare_domain::{Change, Entity, Tenant, Timestamp, TraceContext, config::ProfileSource};
use fanfare_event_log::{ChangeError, ConfigFold, ConfigView, EventLog, Settings};
use fanfare_testkit::Proxy;
use futures_util::future::try_join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    FOR_EVER, log, outsider, overhear, patient, server, settings, time, wait_until,
};

/// Names by id, and everything that was ever applied.
#[derive(Default)]
struct Names {
    now: BTreeMap<String, String>,
    revisions: Vec<u64>,
    stored_at: Vec<Timestamp>,
}

impl ConfigFold for Names {
    fn apply(&mut self, revision: u64, stored_at: Timestamp, change: &Change) {
        let Entity::Tenant(tenant) = &change.entity else { return };
        self.revisions.push(revision);
        self.stored_at.push(stored_at);
        if change.deleted {
            self.now.remove(tenant.id.as_str());
        } else {
            self.now.insert(tenant.id.as_str().to_owned(), tenant.name.clone());
        }
    }
}

fn change(id: &str, name: &str, deleted: bool) -> Change {
    let tenant = Tenant {
        id: id.parse().expect("a tenant's id"),
        name: name.to_owned(),
        profile: String::from("standard-webhooks"),
        unknown_types: fanfare_domain::tenant::UnknownTypes::Allowed,
        plan: None,
        endpoints_max: None,
        created_at: time(0),
        rate_limit: None,
        expunge: None,
    };
    Change {
        entity: Entity::Tenant(Arc::new(tenant)),
        deleted,
        actor: String::from("test"),
        reason: String::new(),
        trace: TraceContext::default(),
    }
}

/// A view, followed until the set is dropped.
async fn view(log: &EventLog, tasks: &mut JoinSet<()>) -> Result<ConfigView<Names>> {
    let (view, follow) = ConfigView::<Names>::start(log, CancellationToken::new()).await?;
    tasks.spawn(async { follow.await.expect("it follows until it is dropped") });
    Ok(view)
}

fn name(view: &ConfigView<Names>, id: &str) -> Option<String> {
    view.read(|names| names.now.get(id).cloned())
}

#[tokio::test]
async fn a_view_begins_with_all_there_is_and_follows() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let first = log.change(&change("acme", "one", false), 0).await?;
    let second = log.change(&change("acme", "two", false), first).await?;
    let view = view(&log, &mut tasks).await?;
    assert_eq!(view.revision(), second);
    assert_eq!(name(&view, "acme").as_deref(), Some("two"));
    assert_eq!(view.read(|names| names.revisions.clone()), [first, second]);
    assert!(view.read(|names| names.stored_at.is_sorted() && names.stored_at[0] > time(0)));
    let third = log.change(&change("acme", "two", true), second).await?;
    assert_eq!(view.confirm().await?, third);
    assert_eq!(name(&view, "acme"), None);
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_before_is_seen_after_confirming() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let (writer, reader) = (log(&server).await?, log(&server).await?);
    let view = view(&reader, &mut tasks).await?;
    let mut revision = 0;
    for number in 0..200 {
        let before = Instant::now();
        revision = writer.change(&change("acme", &number.to_string(), false), revision).await?;
        let asked = Instant::now();
        view.confirm().await?;
        assert_eq!(name(&view, "acme"), Some(number.to_string()));
        let confirmed_at = view.confirmed_at().unwrap();
        assert!(confirmed_at >= asked && asked >= before, "the question was sent after the call");
    }
    Ok(())
}

#[tokio::test]
async fn calls_at_the_same_time_share_questions() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = patient(&settings(&server)).await?;
    let view = view(&log, &mut tasks).await?;
    let asked = async || -> Result<u64> {
        let account = outsider(&server).await?.query_account().await?;
        Ok(account.requests.total)
    };
    let before = asked().await?;
    try_join_all((0..1_000).map(|_| view.confirm())).await?;
    let after = asked().await?;
    assert!(after - before < 10, "{} questions for 1,000 calls", after - before);
    Ok(())
}

#[tokio::test]
async fn of_writers_at_the_same_time_one_is_taken() -> Result<()> {
    let server = server().await?;
    let logs = [log(&server).await?, log(&server).await?];
    let writes = (0..20).map(|number| {
        let log = &logs[number % 2];
        async move { log.change(&change("acme", &number.to_string(), false), 0).await }
    });
    let results = futures_util::future::join_all(writes).await;
    let revisions: Vec<u64> =
        results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
    let [revision] = revisions.as_slice() else { panic!("{revisions:?} were taken") };
    for result in &results {
        if let Err(error) = result {
            let ChangeError::Conflict { expected: 0, actual } = error else { panic!("{error:?}") };
            assert_eq!(actual, revision);
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_writers_who_saw_the_same_configuration_one_is_taken_whatever_they_write() -> Result<()>
{
    let server = server().await?;
    let logs = [log(&server).await?, log(&server).await?];
    for round in 0..3 {
        let last = logs[0].config_last().await?;
        let writes = (0..20).map(|number| {
            let (log, name) = (&logs[number % 2], format!("tenant-{round}-{number}"));
            async move { log.change_at(&change(&name, "", false), (0, last)).await }
        });
        let results = try_join_all(writes).await?;
        let taken: Vec<u64> = results.into_iter().flatten().collect();
        assert_eq!(taken, [last + 1]);
    }
    // Also where the thing is not as it was, or another is gone, and nothing comes behind that.
    let [log, _] = &logs;
    let last = log.config_last().await?;
    assert_eq!(log.change_at(&change("tenant-9", "", false), (7, last)).await?, None);
    assert_eq!(log.change_at(&change("tenant-9", "", false), (0, last - 1)).await?, None);
    assert_eq!(log.change_at(&change("tenant-9", "", false), (0, last)).await?, Some(last + 1));
    Ok(())
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_known_again_by_who_made_it() -> Result<()> {
    let server = server().await?;
    let proxy = Proxy::to(server.client_address()).await?;
    let writer = patient(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let other = log(&server).await?;
    for others_come in [false, true] {
        let last = other.config_last().await?;
        proxy.swallow_answers();
        let mine = change(&format!("mine-{last}"), "", false);
        let (written, cut) = tokio::join!(writer.change_at(&mine, (0, last)), async {
            let stored = async || Ok(other.config_last().await? == last + 1);
            wait_until("the change to be stored", stored).await?;
            if others_come {
                other.change(&change("theirs", "", false), 0).await?;
            }
            proxy.cut();
            anyhow::Ok(())
        });
        cut?;
        assert_eq!(written?, Some(last + 1));
    }
    Ok(())
}

#[tokio::test]
async fn a_deleted_thing_is_made_again_from_its_deletion() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let made = log.change(&change("acme", "one", false), 0).await?;
    let deleted = log.change(&change("acme", "one", true), made).await?;
    let refused = log.change(&change("acme", "two", false), 0).await.unwrap_err();
    let ChangeError::Conflict { expected: 0, actual } = refused else { panic!("{refused:?}") };
    assert_eq!(actual, deleted);
    assert!(log.change(&change("acme", "two", false), actual).await? > deleted);
    // Things of other kinds and names have revisions of their own.
    let profile = ProfileSource { name: String::from("own"), toml: String::new() };
    let profile =
        Change { entity: Entity::Profile(Arc::new(profile)), ..change("acme", "", false) };
    log.change(&profile, 0).await?;
    Ok(())
}

#[tokio::test]
async fn views_and_writers_survive_a_killed_server() -> Result<()> {
    let (mut server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let view = view(&log, &mut tasks).await?;
    let mut revision = log.change(&change("acme", "0", false), 0).await?;
    for round in 1..=3 {
        view.confirm().await?;
        server.kill().await?;
        let meanwhile = timeout(Duration::from_millis(300), view.confirm()).await;
        assert!(meanwhile.is_err(), "nobody could confirm it: {meanwhile:?}");
        let changed = change("acme", &round.to_string(), false);
        let (written, restarted) = tokio::join!(log.change(&changed, revision), server.restart());
        restarted?;
        revision = written?;
        assert!(timeout(Duration::from_secs(20), view.confirm()).await?? >= revision);
        assert_eq!(name(&view, "acme"), Some(round.to_string()));
    }
    let applied = view.read(|names| names.revisions.clone());
    assert!(applied.is_sorted_by(|one, other| one < other), "{applied:?}");
    Ok(())
}

#[tokio::test]
async fn a_view_whose_consumer_is_gone_goes_on() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let view = view(&log, &mut tasks).await?;
    let context = outsider(&server).await?;
    let mut revision = 0;
    for number in 0..3 {
        let stream = context.get_stream("FANFARE_CONFIG").await?;
        let consumer = wait_for_consumer(&stream).await?;
        stream.delete_consumer(&consumer).await?;
        revision = log.change(&change("acme", &number.to_string(), false), revision).await?;
        timeout(Duration::from_secs(20), view.confirm()).await??;
        assert_eq!(name(&view, "acme"), Some(number.to_string()));
    }
    Ok(())
}

async fn wait_for_consumer(stream: &stream::Stream) -> Result<String> {
    use futures_util::TryStreamExt as _;

    let mut found = None;
    wait_until("the view has a consumer", async || {
        found = stream.consumer_names().try_next().await?;
        Ok(found.is_some())
    })
    .await?;
    found.context("it was waited for")
}

#[tokio::test]
async fn what_cannot_be_read_is_passed_over() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let view = view(&log, &mut tasks).await?;
    let context = outsider(&server).await?;
    context.publish("fanfare.config.tenant.x.x", "no protobuf".into()).await?.await?;
    let revision = log.change(&change("acme", "one", false), 0).await?;
    assert_eq!(view.confirm().await?, revision);
    assert_eq!(name(&view, "acme").as_deref(), Some("one"));
    Ok(())
}

#[tokio::test]
async fn a_view_that_nobody_follows_cannot_be_confirmed() -> Result<()> {
    let server = server().await?;
    let log = log(&server).await?;
    let stop = CancellationToken::new();
    let (view, follow) = ConfigView::<Names>::start(&log, stop.clone()).await?;
    let mut following = JoinSet::new();
    following.spawn(follow);
    stop.cancel();
    let ended = timeout(Duration::from_secs(5), following.join_next()).await?;
    ensure!(matches!(ended, Some(Ok(Ok(())))), "stopping is no failure");
    assert!(view.confirm().await.is_err());
    // Dropping the future counts as well: an aborted task must not leave anybody waiting.
    let (view, follow) = ConfigView::<Names>::start(&log, CancellationToken::new()).await?;
    drop(follow);
    assert!(timeout(Duration::from_secs(5), view.confirm()).await?.is_err());
    Ok(())
}

/// What the leader of CONFIG is asked for its last message.
const QUESTION: &str = "$JS.API.STREAM.MSG.GET.FANFARE_CONFIG";

#[tokio::test]
async fn a_confirmation_under_way_is_asked_for_again_when_the_connection_is_lost() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let proxy = Proxy::to(server.client_address()).await?;
    let log = patient(&Settings { url: proxy.url(), ..settings(&server) }).await?;
    let view = view(&log, &mut tasks).await?;
    let writer = self::log(&server).await?;
    for number in 0..3 {
        let mut questions = overhear(&server, QUESTION).await?;
        proxy.swallow_answers();
        let revision = writer.change(&change("acme", "x", false), view.revision()).await?;
        let mut confirming = JoinSet::new();
        let confirmed = view.clone();
        confirming.spawn(async move { confirmed.confirm().await });
        questions.next().await?;
        assert!(confirming.try_join_next().is_none(), "its answer vanished");
        proxy.cut();
        let confirmed = timeout(FOR_EVER / 60, confirming.join_next()).await?;
        assert_eq!(confirmed.context("it was spawned")???, revision, "round {number}");
    }
    Ok(())
}

#[tokio::test]
async fn a_view_is_confirmed_with_one_question_to_the_leader() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = patient(&settings(&server)).await?;
    let view = view(&log, &mut tasks).await?;
    let changed = log.change(&change("acme", "one", false), 0).await?;
    // Where the view is behind, it has to be asked how far.
    wait_until("the view to have the change", async || Ok(view.revision() == changed)).await?;
    let mut questions = overhear(&server, "$JS.API.>").await?;
    view.confirm().await?;
    let mut asked = questions.all().await?;
    // Asking for more changes to read is not about this one.
    asked.retain(|subject| !subject.starts_with("$JS.API.CONSUMER."));
    assert_eq!(asked, [QUESTION]);
    Ok(())
}

#[tokio::test]
async fn a_view_is_confirmed_though_the_last_changes_were_removed() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let kept = log.change(&change("acme", "one", false), 0).await?;
    log.change(&change("other", "two", false), 0).await?;
    let stream = outsider(&server).await?.get_stream("FANFARE_CONFIG").await?;
    stream.purge().filter("fanfare.config.tenant.other.*").await?;
    // One that begins after it, and one that is there while all the rest goes, too.
    let view = timeout(Duration::from_secs(20), view(&log, &mut tasks)).await??;
    assert_eq!(view.confirm().await?, kept);
    stream.purge().await?;
    assert_eq!(timeout(Duration::from_secs(20), view.confirm()).await??, kept);
    Ok(())
}

#[tokio::test]
async fn a_view_does_not_wait_for_what_it_does_not_read() -> Result<()> {
    let (server, mut tasks) = (server().await?, JoinSet::new());
    let log = log(&server).await?;
    let view = view(&log, &mut tasks).await?;
    let context = outsider(&server).await?;
    let found = context.get_stream("FANFARE_CONFIG").await?.cached_info().config.clone();
    let subjects = [found.subjects.clone(), vec![String::from("notes.>")]].concat();
    context.update_stream(stream::Config { subjects, ..found }).await?;
    let revision = log.change(&change("acme", "one", false), 0).await?;
    context.publish("notes.x", "by an operator".into()).await?.await?;
    assert_eq!(timeout(Duration::from_secs(20), view.confirm()).await??, revision);
    Ok(())
}
