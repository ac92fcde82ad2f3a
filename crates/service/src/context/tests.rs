//! The order of a stop, and what becomes of a task that does not keep to it.

use std::sync::Mutex;

use anyhow::anyhow;
use tokio::{sync::mpsc, time::sleep};

use super::*;

const GRACE: Duration = Duration::from_secs(30);

/// Notes what happened, in order.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<&'static str>>>);

impl Story {
    fn tell(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn told(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

/// Stop requests that a test makes.
struct Pressed(mpsc::Receiver<()>);

impl StopRequests for Pressed {
    async fn next(&mut self) {
        match self.0.recv().await {
            Some(()) => {}
            None => std::future::pending().await,
        }
    }
}

fn keyboard() -> (mpsc::Sender<()>, Pressed) {
    let (press, pressed) = mpsc::channel(2);
    (press, Pressed(pressed))
}

/// Tells when it is dropped, as a connection or a child process would be.
struct Told(Story, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.tell(self.1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_early_fails_the_process() {
    let mut context = Context::new("ingest");
    context.spawn("short", async { Ok(()) });
    let failure = context.run_until_cancelled(GRACE).await.unwrap_err();
    assert!(matches!(failure, Failure::EndedEarly { task } if task == "ingest/short"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_is_named_with_its_chain_of_causes() {
    let mut context = Context::new("ingest");
    context.service("fan-out").spawn("routing", async {
        Err(anyhow!("no responders").context("publish").context("record a task"))
    });
    let failure = context.run_until_cancelled(GRACE).await.unwrap_err();
    assert!(matches!(&failure, Failure::Failed { task, .. } if task == "fan-out/routing"));
    let said = "task fan-out/routing failed: record a task: publish: no responders";
    assert_eq!(format!("{:#}", anyhow::Error::from(failure)), said);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_task_is_named_and_its_siblings_are_stopped_in_order() {
    let (mut context, story) = (Context::new("ingest"), Story::default());
    let (stop, told) = (context.stop(), story.clone());
    context.spawn("writer", async move {
        stop.cancelled().await;
        told.tell("writer finished");
        Ok(())
    });
    context.service("dispatcher").spawn("lanes", async { panic!("a lane is gone") });
    let health = context.health();
    let failure = context.run_until_cancelled(GRACE).await.unwrap_err();
    assert!(matches!(failure, Failure::Panicked { task, message }
        if task == "dispatcher/lanes" && message == "a lane is gone"));
    assert_eq!(story.told(), ["writer finished"]);
    assert!(!health.is_live());
}

#[tokio::test(start_paused = true)]
async fn work_in_flight_is_finished_before_support_ends() {
    let (mut context, story) = (Context::new("up"), Story::default());
    let (stop, told) = (context.stop(), story.clone());
    context.spawn("worker", async move {
        stop.cancelled().await;
        told.tell("intake ended");
        sleep(GRACE / 2).await;
        told.tell("work finished");
        Ok(())
    });
    let (stop, told) = (context.support_stop(), story.clone());
    context.spawn_support("broker", async move {
        stop.cancelled().await;
        told.tell("broker stopped");
        Ok(())
    });
    context.stop().cancel();
    context.run_until_cancelled(GRACE).await.unwrap();
    assert_eq!(story.told(), ["intake ended", "work finished", "broker stopped"]);
}

#[tokio::test(start_paused = true)]
async fn work_that_outlasts_the_grace_period_is_aborted() {
    let (mut context, story) = (Context::new("up"), Story::default());
    let held = Told(story.clone(), "connection dropped");
    context.spawn("stuck", async move {
        let _held = held;
        std::future::pending().await
    });
    let (stop, told) = (context.support_stop(), story.clone());
    context.spawn_support("broker", async move {
        stop.cancelled().await;
        told.tell("broker stopped");
        Ok(())
    });
    context.stop().cancel();
    let begun = tokio::time::Instant::now();
    context.run_until_cancelled(GRACE).await.unwrap();
    assert_eq!(begun.elapsed(), GRACE);
    assert_eq!(story.told(), ["connection dropped", "broker stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_work_in_flight_at_once() {
    let (mut context, story) = (Context::new("up"), Story::default());
    let (press, pressed) = keyboard();
    let (stop, held) = (context.stop(), Told(story.clone(), "connection dropped"));
    context.spawn("stuck", async move {
        let _held = held;
        stop.cancelled().await;
        press.send(()).await?;
        std::future::pending().await
    });
    let begun = tokio::time::Instant::now();
    context.stop().cancel();
    let failure = context.supervise(pressed, GRACE).await.unwrap_err();
    assert!(matches!(failure, Failure::Interrupted));
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(story.told(), ["connection dropped"]);
}

#[tokio::test(start_paused = true)]
async fn one_signal_stops_everything_without_a_failure() {
    let mut context = Context::new("up");
    let (press, pressed) = keyboard();
    let (stop, health) = (context.stop(), context.health());
    context.spawn("worker", async move {
        press.send(()).await?;
        stop.cancelled().await;
        sleep(GRACE / 2).await;
        Ok(())
    });
    context.supervise(pressed, GRACE).await.unwrap();
    assert!(health.is_live() && !health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_process_is_ready_only_between_start_and_stop() {
    let mut context = Context::new("api");
    let (stop, health) = (context.stop(), context.health());
    let log = context.readiness("log");
    assert_eq!(health.report().conditions[0].name, "api/log");
    log.ready();
    assert!(!health.is_ready());
    let (seen, asked) = (health.clone(), context.stop());
    context.spawn("worker", async move {
        anyhow::ensure!(seen.is_ready(), "running and all conditions hold");
        asked.cancel();
        stop.cancelled().await;
        sleep(Duration::from_secs(1)).await;
        anyhow::ensure!(!seen.is_ready(), "stopping");
        Ok(())
    });
    context.run_until_cancelled(GRACE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_stopping_is_a_failure() {
    let mut context = Context::new("up");
    let stop = context.stop();
    context.spawn("flush", async move {
        stop.cancelled().await;
        Err(anyhow!("not flushed"))
    });
    context.stop().cancel();
    let failure = context.run_until_cancelled(GRACE).await.unwrap_err();
    assert!(matches!(failure, Failure::Failed { task, .. } if task == "up/flush"));
}

#[tokio::test(start_paused = true)]
async fn a_context_without_tasks_has_nothing_to_do() {
    let failure = Context::new("up").run_until_cancelled(GRACE).await.unwrap_err();
    assert!(matches!(failure, Failure::NothingToDo));
    Context::new("up").shut_down(GRACE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_started_is_stopped_in_order_when_a_later_start_fails() {
    let (mut context, story) = (Context::new("ingest"), Story::default());
    let (stop, told) = (context.stop(), story.clone());
    context.spawn("writer", async move {
        stop.cancelled().await;
        told.tell("writer finished");
        Ok(())
    });
    context.shut_down(GRACE).await.unwrap();
    assert_eq!(story.told(), ["writer finished"]);
}

#[tokio::test(start_paused = true)]
async fn telemetry_that_ends_or_panics_stops_nothing() {
    let mut context = Context::new("ingest");
    let (stop, story) = (context.stop(), Story::default());
    context.spawn_telemetry("short", async {});
    context.spawn_telemetry("broken", async { panic!("a bug of a library") });
    let done = story.clone();
    context.spawn("work", async move {
        sleep(Duration::from_mins(1)).await;
        done.tell("worked");
        stop.cancel();
        Ok(())
    });
    context.run_until_cancelled(GRACE).await.unwrap();
    assert_eq!(story.told(), ["worked"]);
}
