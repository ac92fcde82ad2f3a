//! What people ask for, where an endpoint is fed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fanfare_domain::{
    Command, CommandId, Conclusion, DeliveryId, DeliveryRef, EndpointId, EndpointState, Fact,
    RetryDue, Timestamp, TraceContext,
    command::{Aim, Order},
    endpoint::PauseMode,
    fact::{ConclusionReason, DeferReason, DeliveryDeferred, InFlight, ShardReleased},
};
use fanfare_event_log::{
    FeedsView,
    journal::{From, JournalFilter},
};
use fanfare_service::{Clock as _, SystemClock, random_bytes};
use fanfare_testkit::{
    receiver::{Behaviour, Gate},
    wait_at_most,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    health::becomes,
    world::{Running, World},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// More than are taken in hand at once.
const MANY: u64 = 1_100;

async fn command(world: &World, order: fn(Box<Aim>) -> Order, aim: Aim) -> Result<()> {
    let endpoint = aim.delivery.endpoint;
    ask(world, endpoint, order(Box::new(aim))).await
}

async fn ask(world: &World, endpoint: EndpointId, order: Order) -> Result<()> {
    let asked_at = SystemClock.now();
    let shard = world.log.shards().of(endpoint);
    let id = CommandId::new(asked_at, random_bytes());
    let command = Command { id, asked_at, actor: String::from("test"), order };
    world.log.publisher().command(shard, &command).await?.stored().await?;
    Ok(())
}

/// Adds an endpoint of the same shard.
async fn neighbour(world: &World, path: &str) -> Result<EndpointId> {
    let shard = world.log.shards().of(world.endpoint.id);
    for number in 10..=u8::MAX {
        let id = EndpointId::new(world.endpoint.created_at, [number; 10]);
        if world.log.shards().of(id) == shard {
            return world.add_endpoint(number, path).await;
        }
    }
    anyhow::bail!("no number gives the shard")
}

/// Waits until the endpoint is fed: what is told of a feed before that is told to nobody.
async fn fed(world: &World) -> Result<()> {
    let stop = CancellationToken::new();
    let (view, follow) = FeedsView::start(&world.log, stop.clone()).await?;
    let mut following = JoinSet::new();
    following.spawn(follow);
    wait_at_most(PATIENCE, "the feed to be opened", async || {
        let found = view.read(|feeds| feeds.of(world.endpoint.id).is_some());
        if found { Ok(()) } else { Err("none") }
    })
    .await;
    stop.cancel();
    Ok(())
}

/// Runs a dispatcher that feeds the endpoint, which is paused to hold, once its first event is parked.
async fn hold(world: &mut World) -> Result<Running> {
    world.endpoint.state = EndpointState::Paused(PauseMode::Hold);
    world.put_endpoint(false).await?;
    let dispatcher = world.run().await?;
    let parked = world.send(1).await?;
    let target = parked.targets.first().context("a target")?;
    world.story(target.delivery).await?;
    fed(world).await?;
    Ok(dispatcher)
}

/// Waits until deliveries were ended by hand, all without an attempt.
async fn ended(world: &World, wanted: &BTreeSet<DeliveryId>) -> Result<()> {
    let mut journal = world.log.journal(JournalFilter::Deliveries, From::Sequence(1)).await?;
    let mut open = wanted.clone();
    let reading = async {
        while !open.is_empty() {
            for record in journal.next().await?.facts {
                let Fact::DeliveryConcluded(ended) = record.fact else { continue };
                if open.remove(&ended.delivery.id) {
                    let how = (ended.conclusion, ended.reason, ended.attempts);
                    assert_eq!(how, (Conclusion::Cancelled, ConclusionReason::ByHand, 0));
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, reading).await.context("they do not end")?
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_for_an_event_of_a_feed_is_a_hint_to_it() -> Result<()> {
    let mut world = World::new().await?;
    let dispatcher = hold(&mut world).await?;
    // There is no fan-out here that could say how far it has come, or give hints.
    let inside = world.send(2).await?;
    world.endpoint.state = EndpointState::Active;
    world.put_endpoint(false).await?;
    let story = world.story(inside.targets[0].delivery).await?;
    let [Fact::AttemptMade(_), Fact::DeliveryConcluded(ended)] = &*story else {
        anyhow::bail!("{story:?}")
    };
    assert_eq!((ended.conclusion, ended.attempts), (Conclusion::Delivered, 1));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_feed_has_not_come_to_ends_at_once_and_holds_up_no_others() -> Result<()> {
    let mut world = World::new().await?;
    let other = neighbour(&world, "/other").await?;
    world.receiver.answer_at("/other", Behaviour::status(500));
    world.endpoint.state = EndpointState::Paused(PauseMode::Hold);
    world.put_endpoint(false).await?;
    let dispatcher = world.run().await?;
    let fails = world.send_to(other, 1).await?;
    let failed = world.story(fails.targets[0].delivery).await?;
    let [Fact::AttemptMade(failed)] = &*failed else { anyhow::bail!("{failed:?}") };
    // It is parked, and the endpoint is fed from then on.
    let parked = world.send(2).await?;
    world.story(parked.targets[0].delivery).await?;
    fed(&world).await?;

    let journal_sequence = world.log.journal_last().await?;
    let aim = |delivery: DeliveryRef, attempt, untouched| {
        let trace = TraceContext::default();
        Aim { delivery, attempt, untouched, journal_sequence, trace }
    };
    let mut cancelled = BTreeSet::new();
    for number in 0..MANY {
        let stored = world.store(100 + number, String::from("{}")).await?;
        let delivery = world.delivery(&stored);
        cancelled.insert(delivery.id);
        command(&world, Order::Cancel, aim(delivery, 1, true)).await?;
    }
    let parked = world.delivery(&parked.event);
    cancelled.insert(parked.id);
    command(&world, Order::Cancel, aim(parked, 1, false)).await?;
    world.receiver.answer_at("/other", Behaviour::status(200));
    command(&world, Order::RetryNow, aim(failed.delivery.clone(), 2, false)).await?;
    let retried = world.story_after(failed.delivery.id, 1).await?;
    assert!(matches!(retried.last(), Some(Fact::DeliveryConcluded(_))), "{retried:?}");
    ended(&world, &cancelled).await?;

    // Every command is settled once its end is kept with the feed.
    wait_at_most(PATIENCE, "the commands to be settled", async || {
        match world.nats.messages("FANFARE_COMMANDS").await {
            Ok(0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    let stop = CancellationToken::new();
    let (view, _follow) = FeedsView::start(&world.log, stop.clone()).await?;
    let kept = view.read(|feeds| feeds.of(world.endpoint.id).map(|it| it.feed.ended.len()));
    // The one that was parked is not the feed's.
    assert_eq!(kept, Some(usize::try_from(MANY)?));
    stop.cancel();

    // What was not cancelled is delivered once the endpoint is resumed, and nothing else.
    let last = world.store(5_000, String::from("{}")).await?;
    world.endpoint.state = EndpointState::Active;
    world.put_endpoint(false).await?;
    let shard = world.log.shards().of(world.endpoint.id);
    world.log.hint_feeds(shard, &[(world.endpoint.id, last.sequence)]).await;
    world.story(world.delivery(&last).id).await?;
    let requests = world.receiver.requests();
    let to_it: Vec<_> = requests.iter().filter(|request| request.path == "/hook").collect();
    let ids: Vec<_> = to_it.iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(ids, [Some(last.event.id.to_string().as_str())]);
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_feed_has_not_come_to_is_tried_at_once_and_by_the_feed_no_more() -> Result<()> {
    let mut world = World::new().await?;
    // One after the other, so slowly that the feed is far from done.
    world.receiver.answer(Behaviour::status(200).after(Duration::from_millis(200)));
    world.endpoint.concurrency = Some(1);
    let dispatcher = hold(&mut world).await?;
    let mut waiting = Vec::new();
    for number in 0..40 {
        waiting.push(world.store(100 + number, String::from("{}")).await?);
    }
    world.endpoint.state = EndpointState::Active;
    world.put_endpoint(false).await?;
    let (endpoint, shard) = (world.endpoint.id, world.log.shards().of(world.endpoint.id));
    let last = waiting.last().context("some wait")?;
    world.log.hint_feeds(shard, &[(endpoint, last.sequence)]).await;
    world.story(world.delivery(&waiting[0]).id).await?;

    let wanted = world.delivery(last);
    let (journal_sequence, trace) = (world.log.journal_last().await?, TraceContext::default());
    let aim =
        Aim { delivery: wanted.clone(), attempt: 1, untouched: true, journal_sequence, trace };
    command(&world, Order::RetryNow, aim).await?;
    world.story(wanted.id).await?;
    let (id, requests) = (last.event.id.to_string(), world.receiver.requests());
    let place = requests.iter().position(|it| it.header("webhook-id") == Some(&id));
    let place = place.context("it was tried")?;
    assert!(place < 35, "it came before others: {place} were tried");
    // Whoever has the shard next does not make it again either, though it reads it once more.
    wait_at_most(PATIENCE, "the command to be settled", async || {
        match world.nats.messages("FANFARE_COMMANDS").await {
            Ok(0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    dispatcher.crash().await;
    let dispatcher = world.run().await?;
    let made = wait_at_most(PATIENCE, "the others to be tried", async || {
        // Nobody has put their routings on record, from which the feed would know of them.
        world.log.hint_feeds(shard, &[(endpoint, last.sequence)]).await;
        let made = attempts(&world).await.map_err(|error| format!("{error:#}"))?;
        let all = waiting.iter().all(|stored| made.contains_key(&world.delivery(stored).id));
        if all { Ok(made) } else { Err(format!("{} were", made.len())) }
    })
    .await;
    assert_eq!(made.get(&wanted.id), Some(&1));
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_turn_is_tried_next() -> Result<()> {
    let (mut world, gate) = (World::new().await?, Gate::default());
    world.receiver.answer(Behaviour::status(200).behind(&gate));
    world.endpoint.concurrency = Some(1);
    world.put_endpoint(false).await?;
    let dispatcher = world.run().await?;
    let mut waiting = Vec::new();
    for number in 0..6 {
        waiting.push(world.delivery(&world.send(number).await?.event));
    }
    becomes(&world, |health| health.in_flight == 1 && health.held == 5).await?;
    let (journal_sequence, untouched) = (world.log.journal_last().await?, true);
    let aim = |delivery: &DeliveryRef| {
        let (delivery, trace) = (delivery.clone(), TraceContext::default());
        Aim { delivery, attempt: 1, untouched, journal_sequence, trace }
    };
    command(&world, Order::RetryNow, aim(&waiting[5])).await?;
    // Commands are carried out in their order, and of this one it shows.
    command(&world, Order::Cancel, aim(&waiting[4])).await?;
    ended(&world, &BTreeSet::from([waiting[4].id])).await?;
    gate.open();
    for delivery in [&waiting[3], &waiting[5]] {
        world.story(delivery.id).await?;
    }
    let requests = world.receiver.requests();
    let tried: Vec<_> = requests.iter().filter_map(|it| it.header("webhook-id")).collect();
    let expected = [0, 5, 1, 2, 3].map(|number: usize| waiting[number].event.to_string());
    assert_eq!(tried, expected);
    wait_at_most(PATIENCE, "the commands to be settled", async || {
        match world.nats.messages("FANFARE_COMMANDS").await {
            Ok(0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    dispatcher.stop().await
}

/// How many attempts of each delivery are on record.
async fn attempts(world: &World) -> Result<BTreeMap<DeliveryId, usize>> {
    let mut made = BTreeMap::new();
    for fact in crate::hand_over::facts(world).await? {
        if let Fact::AttemptMade(attempt) = fact {
            *made.entry(attempt.delivery.id).or_default() += 1;
        }
    }
    Ok(made)
}

/// The deliveries that have an alarm clock, and those that have ended.
async fn alarms_and_ends(
    world: &World,
    deliveries: &BTreeSet<DeliveryId>,
) -> Result<(BTreeSet<DeliveryId>, BTreeMap<DeliveryId, usize>)> {
    let (shard, clocks) = (world.log.shards().of(world.endpoint.id), world.log.schedules());
    let mut set = BTreeSet::new();
    for delivery in deliveries {
        if clocks.get(shard, *delivery).await?.is_some() {
            set.insert(*delivery);
        }
    }
    let mut ends = BTreeMap::new();
    for fact in crate::hand_over::facts(world).await? {
        if let Fact::DeliveryConcluded(ended) = fact {
            *ends.entry(ended.delivery.id).or_default() += 1;
        }
    }
    Ok((set, ends))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_has_not_ended_is_without_an_alarm_clock_also_where_a_shard_is_given_away()
-> Result<()> {
    let world = World::new().await?;
    let (shard, clocks) = (world.log.shards().of(world.endpoint.id), world.log.schedules());
    let mut waiting = BTreeSet::new();
    for number in 0..300 {
        let delivery = world.delivery(&world.store(number, String::from("{}")).await?);
        waiting.insert(delivery.id);
        let due_at = SystemClock.now().saturating_add(Duration::from_hours(1));
        let (attempt, journal_sequence, trace) = (2, 1, TraceContext::default());
        let retry = RetryDue { delivery, attempt, due_at, journal_sequence, trace, batch: None };
        clocks.put(shard, &retry).await?.stored().await?;
    }
    let dispatcher = world.run().await?;
    let (tenant, endpoint) = (world.endpoint.tenant.clone(), world.endpoint.id);
    ask(&world, endpoint, Order::CancelAll { tenant, endpoint }).await?;
    wait_at_most(PATIENCE, "an alarm clock to be stopped", async || {
        match world.nats.messages("FANFARE_RETRIES").await {
            Ok(left) if left < 300 => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    dispatcher.stop().await?;
    let (set, ends) = alarms_and_ends(&world, &waiting).await?;
    let forgotten = waiting.iter().filter(|id| !set.contains(id) && !ends.contains_key(id));
    assert_eq!(forgotten.count(), 0, "they have neither an end nor an alarm clock");

    // Whoever has the shard next ends the rest, and nothing twice.
    let dispatcher = world.run().await?;
    wait_at_most(PATIENCE, "the command to be settled", async || {
        match world.nats.messages("FANFARE_COMMANDS").await {
            Ok(0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    let (set, ends) = alarms_and_ends(&world, &waiting).await?;
    assert!(set.is_empty(), "{} alarm clocks are left", set.len());
    assert_eq!(ends, waiting.iter().map(|id| (*id, 1)).collect());
    dispatcher.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_made_where_what_an_owner_left_of_it_is_never_reported() -> Result<()> {
    let world = World::new().await?;
    let delivery = world.delivery(&world.store(1, String::from("{}")).await?);
    let (endpoint, now) = (world.endpoint.id, SystemClock.now());
    let ends_by = now.saturating_add(Duration::from_secs(2));
    let deferred = DeliveryDeferred {
        delivery: delivery.clone(),
        attempt: 2,
        until: now.saturating_add(Duration::from_hours(1)),
        reason: DeferReason::LaneFull,
        batch: None,
    };
    let id = delivery.id;
    let released = ShardReleased {
        shard: world.log.shards().of(endpoint),
        epoch: 1,
        limits_since: Timestamp::EPOCH,
        in_flight: vec![InFlight { delivery: id, attempt: 2, endpoint, ends_by, request: id }],
        limits: Vec::new(),
        part: 0,
        parts: 1,
    };
    let facts = vec![Fact::DeliveryDeferred(deferred), Fact::ShardReleased(Box::new(released))];
    crate::hand_over::write_as_before(&world, facts).await?;
    let (journal_sequence, trace) = (world.log.journal_last().await?, TraceContext::default());
    let aim = Aim { delivery, attempt: 2, untouched: false, journal_sequence, trace };
    command(&world, Order::RetryNow, aim).await?;
    let dispatcher = world.run().await?;
    let made = wait_at_most(PATIENCE, "an attempt to be made", async || {
        let facts = crate::hand_over::facts(&world).await.map_err(|error| format!("{error:#}"))?;
        let made = |fact: &Fact| {
            let Fact::AttemptMade(made) = fact else { return None };
            Some((made.attempt, made.started_at >= ends_by))
        };
        facts.iter().find_map(made).ok_or_else(|| format!("{facts:?}"))
    })
    .await;
    assert_eq!(made, (2, true));
    assert_eq!(world.receiver.count(), 1);
    dispatcher.stop().await
}
