//! What was asked for in one call, and what has become of it. A job knows nothing of workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ipc_core::{Parts, Wait};

use super::TaskError;

/// How one task ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// How many items it stands for.
    pub(super) count: usize,
    pub(super) result: Result<Parts, TaskError>,
}

/// Outcomes by the index of their first item.
pub(super) type Outcomes = BTreeMap<usize, Outcome>;

/// What is done with the outcomes of a job that nobody waits for.
pub(super) type Callback = Box<dyn FnOnce(Outcomes) + Send>;

/// What has to be done about a job once the pool is unlocked.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) notify: Vec<Arc<Job>>,
    pub(super) wakers: Vec<Waker>,
    pub(super) callbacks: Vec<(Callback, Outcomes)>,
    /// Items of tasks that have ended.
    pub(super) completed: u64,
}

pub(super) struct Job {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether its tasks are parts of one whole, for which a worker may be given several ahead.
    pub(super) batch: bool,
    /// Mean time of a task in nanoseconds, zero while unknown. A hint: relaxed.
    mean_ns: AtomicU64,
}

#[derive(Default)]
struct State {
    outcomes: Outcomes,
    /// Items that the tasks so far stand for, and those of tasks that ended.
    submitted: usize,
    resolved: usize,
    /// Nothing will be added.
    sealed: bool,
    /// The outcomes of all have been taken out.
    spent: bool,
    wanted: Option<Wanted>,
    waker: Option<Waker>,
    callback: Option<Callback>,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The end of all tasks.
    All,
    /// The task that begins with this item.
    At(usize),
    /// Any task.
    Any,
    /// The end of this many items, if there will be so many.
    Ended(usize),
}

impl State {
    /// The outcomes of a job that is done. Whoever asks again learns that there are none any more.
    fn spend(&mut self) -> Outcomes {
        if std::mem::replace(&mut self.spent, true) {
            let result = Err(TaskError::Cancelled);
            return Outcomes::from([(0, Outcome { count: 1, result })]);
        }
        std::mem::take(&mut self.outcomes)
    }

    fn is_done(&self) -> bool {
        self.sealed && self.resolved == self.submitted
    }

    fn has(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::All => self.is_done(),
            Wanted::At(index) => self.outcomes.contains_key(&index),
            Wanted::Any => !self.outcomes.is_empty(),
            Wanted::Ended(items) => self.resolved >= items || self.is_done(),
        }
    }
}

impl Job {
    pub(super) fn new(batch: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            batch,
            mean_ns: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task that stands for so many items is about to be submitted.
    pub(super) fn expect(&self, count: usize) {
        self.state().submitted += count;
    }

    /// No more tasks will be submitted.
    pub(super) fn seal(self: &Arc<Self>, effects: &mut Effects) {
        let mut state = self.state();
        state.sealed = true;
        self.after_change(&mut state, effects);
    }

    /// A task has ended.
    pub(super) fn resolve(self: &Arc<Self>, first: usize, outcome: Outcome, effects: &mut Effects) {
        let mut state = self.state();
        state.resolved += outcome.count;
        effects.completed += outcome.count as u64;
        state.outcomes.insert(first, outcome);
        self.after_change(&mut state, effects);
    }

    fn after_change(self: &Arc<Self>, state: &mut State, effects: &mut Effects) {
        if state.wanted.is_some_and(|wanted| state.has(wanted)) {
            state.wanted = None;
            effects.notify.push(Arc::clone(self));
        }
        if state.is_done() {
            effects.wakers.extend(state.waker.take());
            if let Some(callback) = state.callback.take() {
                effects.callbacks.push((callback, state.spend()));
            }
        }
    }

    pub(super) fn notify(&self) {
        // The change was made under the lock: a waiter has seen it, or sleeps by now.
        self.changed.notify_all();
    }

    /// Waits; false when the wait was over first.
    pub(super) fn wait(&self, wanted: Wanted, wait: Wait) -> bool {
        let mut state = self.state();
        while !state.has(wanted) {
            let left = wait.remaining().unwrap_or(Duration::MAX);
            if left.is_zero() {
                state.wanted = None;
                return false;
            }
            state.wanted = Some(wanted);
            state = match wait {
                Wait::Forever => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                _ => {
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        true
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Outcomes> {
        // Outside of the lock, as is its predecessor's end: both are code of others, and the end of
        // a waker may be that of all a task of a runtime holds, a pool among it.
        let waker = context.waker().clone();
        let mut state = self.state();
        if state.is_done() {
            return Poll::Ready(state.spend());
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Has the outcomes passed to `callback` once all are there.
    pub(super) fn then(self: &Arc<Self>, callback: Callback, effects: &mut Effects) {
        let mut state = self.state();
        state.callback = Some(callback);
        self.after_change(&mut state, effects);
    }

    pub(super) fn is_done(&self) -> bool {
        self.state().is_done()
    }

    pub(super) fn take_all(&self) -> Outcomes {
        self.state().spend()
    }

    pub(super) fn take(&self, wanted: Wanted) -> Option<(usize, Outcome)> {
        let mut state = self.state();
        match wanted {
            Wanted::At(index) => state.outcomes.remove_entry(&index),
            Wanted::Any | Wanted::All | Wanted::Ended(_) => state.outcomes.pop_first(),
        }
    }

    /// Items that have ended, and items so far.
    pub(super) fn progress(&self) -> (usize, usize) {
        let state = self.state();
        (state.resolved, state.submitted)
    }

    pub(super) fn mean(&self) -> Option<Duration> {
        match self.mean_ns.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Duration::from_nanos(ns)),
        }
    }

    /// A task took so long.
    pub(super) fn took(&self, ns: u64) {
        let ns = ns.max(1);
        let mean = match self.mean_ns.load(Ordering::Relaxed) {
            0 => ns,
            mean => mean - mean / 8 + ns / 8,
        };
        self.mean_ns.store(mean.max(1), Ordering::Relaxed);
    }
}
