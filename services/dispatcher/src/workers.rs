//! Tasks that make attempts, one at a time each, and are kept for the next one.
//!
//! An attempt is a large future (connecting, sending, reading, all in one state). Making a task for
//! each costs an allocation of that size and some copies of it; a worker that waits for its next
//! attempt costs a place to put it in. Not a channel: that has room for 32 at least.

use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use tokio::{
    sync::{Notify, mpsc},
    task::{self, AbortHandle, Id, JoinError, JoinSet},
};

/// The most results that wait to be taken; then workers wait too.
const RESULTS_MAX: usize = 256;

/// How many workers are kept however long they have nothing to do: each takes some 10 KB.
const IDLE_KEPT: usize = 32;

/// Workers of one shard. They end when this is dropped, whatever they are doing.
pub(crate) struct Workers<W, R> {
    hired: HashMap<Id, (Arc<Tray<W>>, AbortHandle)>,
    /// Those who have nothing to do; the last one had something last.
    idle: Vec<Id>,
    /// The fewest who had nothing to do at once, since that was last looked at.
    spare: usize,
    tasks: JoinSet<()>,
    /// What workers are given to tell their results by.
    teller: mpsc::Sender<(Id, R)>,
    results: mpsc::Receiver<(Id, R)>,
}

/// Where a worker finds what it is to do next.
struct Tray<W> {
    next: Mutex<Option<Next<W>>>,
    filled: Notify,
}

enum Next<W> {
    Work(W),
    Leave,
}

impl<W> Tray<W> {
    /// Puts something in, for the one worker that waits for it.
    fn put(&self, next: Next<W>) {
        let before = self.next.lock().unwrap_or_else(PoisonError::into_inner).replace(next);
        debug_assert!(before.is_none(), "an idle worker's tray is empty");
        self.filled.notify_one();
    }

    /// Waits for something. Cancel safe.
    async fn take(&self) -> Next<W> {
        loop {
            self.filled.notified().await;
            let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(next) = next {
                return next;
            }
        }
    }
}

impl<W: Send + 'static, R: Send + 'static> Workers<W, R> {
    /// Has no workers yet.
    pub(crate) fn new() -> Self {
        let (teller, results) = mpsc::channel(RESULTS_MAX);
        let (hired, tasks) = (HashMap::default(), JoinSet::new());
        Self { hired, idle: Vec::new(), spare: 0, tasks, teller, results }
    }

    /// Has a piece of work done, by `perform` of the worker that takes it. Returns what stops the
    /// worker in the middle of it.
    pub(crate) fn begin<F>(
        &mut self,
        work: W,
        perform: impl Fn(W) -> F + Send + 'static,
    ) -> Option<AbortHandle>
    where
        F: Future<Output = R> + Send,
    {
        let worker = self.idle.pop().unwrap_or_else(|| self.hire(perform));
        self.spare = self.spare.min(self.idle.len());
        let (tray, stop) = self.hired.get(&worker)?;
        tray.put(Next::Work(work));
        Some(stop.clone())
    }

    /// How many are at work.
    pub(crate) fn busy(&self) -> usize {
        self.hired.len() - self.idle.len()
    }

    /// Waits until one is done, and returns what came of it; for ever if none is at work. Fails if
    /// a worker panicked or was stopped. Cancel safe.
    pub(crate) async fn done(&mut self) -> Result<R, JoinError> {
        loop {
            tokio::select! {
                biased;
                Some((worker, result)) = self.results.recv() => {
                    self.idle.push(worker);
                    return Ok(result);
                }
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    // Who was sent away is not among them any more.
                    if let Err(failed) = ended {
                        self.hired.remove(&failed.id());
                        self.idle.retain(|worker| *worker != failed.id());
                        return Err(failed);
                    }
                }
            }
        }
    }

    /// Returns what came of one that is done already.
    pub(crate) fn done_already(&mut self) -> Option<R> {
        let (worker, result) = self.results.try_recv().ok()?;
        self.idle.push(worker);
        Some(result)
    }

    /// Sends away those who have had nothing to do since this was last called, but for some. Hiring
    /// costs more than keeping, so that it is called now and then only.
    pub(crate) fn let_go(&mut self) {
        let needless = self.spare.saturating_sub(IDLE_KEPT).min(self.idle.len());
        for worker in self.idle.drain(..needless) {
            if let Some((tray, _)) = self.hired.remove(&worker) {
                tray.put(Next::Leave);
            }
        }
        self.spare = self.idle.len();
    }

    fn hire<F>(&mut self, perform: impl Fn(W) -> F + Send + 'static) -> Id
    where
        F: Future<Output = R> + Send,
    {
        let tray = Arc::new(Tray { next: Mutex::new(None), filled: Notify::new() });
        let (results, own) = (self.teller.clone(), Arc::clone(&tray));
        let stop = self.tasks.spawn(async move {
            while let Next::Work(work) = own.take().await {
                let result = perform(work).await;
                if results.send((task::id(), result)).await.is_err() {
                    return;
                }
            }
        });
        let worker = stop.id();
        self.hired.insert(worker, (tray, stop));
        worker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_are_kept_for_the_next_piece_of_work() {
        let mut workers = Workers::new();
        for round in 0..3 {
            for number in 0..4 {
                workers.begin(number, async |number: u32| number * 10);
            }
            assert_eq!(workers.busy(), 4);
            let mut results = Vec::new();
            while workers.busy() > 0 {
                results.push(workers.done().await.unwrap());
                results.extend(workers.done_already());
            }
            results.sort_unstable();
            assert_eq!(results, [0, 10, 20, 30], "round {round}");
        }
        assert_eq!(workers.hired.len(), 4);
    }

    #[tokio::test]
    async fn workers_with_nothing_to_do_leave() {
        let mut workers = Workers::new();
        let work = async |workers: &mut Workers<usize, usize>, count: usize| {
            for number in 0..count {
                workers.begin(number, async |number| number);
            }
            for _ in 0..count {
                workers.done().await.unwrap();
            }
        };
        let all = IDLE_KEPT + 10;
        for round in 1..=3 {
            work(&mut workers, all).await;
            workers.let_go();
            assert_eq!((workers.busy(), workers.hired.len()), (0, all), "round {round}");
        }
        work(&mut workers, all - 3).await;
        workers.let_go();
        assert_eq!(workers.hired.len(), all, "no more than three had nothing to do");
        workers.let_go();
        assert_eq!((workers.busy(), workers.hired.len()), (0, IDLE_KEPT));
        while workers.tasks.len() > IDLE_KEPT {
            assert!(workers.tasks.join_next().await.unwrap().is_ok());
        }
        work(&mut workers, all).await;
        assert_eq!(workers.hired.len(), all);
    }

    #[tokio::test]
    async fn a_worker_that_is_stopped_is_not_at_work() {
        let mut workers = Workers::new();
        let stop = workers.begin((), async |()| std::future::pending::<()>().await).unwrap();
        assert_eq!(workers.busy(), 1);
        stop.abort();
        assert!(workers.done().await.unwrap_err().is_cancelled());
        assert_eq!(workers.busy(), 0);
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let mut workers = Workers::new();
        workers.begin(0, async |number: u32| 1 / number);
        assert!(workers.done().await.unwrap_err().is_panic());
    }
}
