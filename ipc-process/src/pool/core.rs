//! The state of a pool, under one lock of this process. What changes it is in files of its own:
//! [`dispatch`](super::dispatch), [`events`](super::events), [`lives`](super::lives), and
//! [`direct`](super::direct). None of it waits, calls code of the user, or takes another lock
//! than that of a job.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::builder::Options;
use super::job::Job;
use super::restarts::Restarts;
use super::slot::{Slot, Worker};
use super::task::Task;
use super::{BuildError, TaskError};
use crate::reap::Child;

/// How long a worker that was asked to end has for its exit hooks, and one that has closed its
/// socket for its end.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// With so many tasks ahead in every busy worker, the manager lets answers gather.
const BULK: usize = 16;

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Open,
    /// No more tasks will be submitted; workers end when there is nothing to do.
    Closed,
    /// Every task has ended or ends with this error.
    Ended(TaskError),
}

pub(super) struct Core {
    pub(super) options: Arc<Options>,
    pub(super) epoll: Arc<OwnedFd>,
    pub(super) phase: Phase,
    pub(super) slots: Vec<Slot>,
    pub(super) queue: VecDeque<Task>,
    /// Numbers of the next task and of the next worker.
    pub(super) next_id: u64,
    pub(super) next_generation: u32,
    /// Counts the answers of all workers.
    pub(super) answers: u64,
    pub(super) restarts: Restarts,
    pub(super) effects: Effects,
    /// Whether `build` is over, and until then the first failure of a worker to become ready.
    pub(super) built: bool,
    pub(super) build_failure: Option<BuildError>,
    /// When the manager will wake of its own accord, `None` for not.
    pub(super) manager_wakes: Option<Instant>,
}

/// What has to be done once the pool is unlocked.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) jobs: super::job::Effects,
    /// Time passes differently now, or a slot is vacant: the manager must look again.
    pub(super) wake_manager: bool,
    /// A worker has become ready or has ended, or the pool has.
    pub(super) settled: bool,
    /// Processes that nobody wants: dropping one kills it.
    pub(super) unwanted: Vec<crate::Process<Result<(), String>>>,
}

/// What the manager does next.
pub(super) enum Rest {
    Quit,
    /// Let answers gather for a moment.
    Nap,
    /// Until an event, or this time.
    Until(Option<Instant>),
}

impl Core {
    pub(super) fn new(options: Arc<Options>, epoll: Arc<OwnedFd>) -> Self {
        let (limit, period) = options.restart_intensity;
        let now = Instant::now();
        Self {
            phase: Phase::Open,
            slots: (0..options.processes).map(|_| Slot::Vacant(now)).collect(),
            options,
            epoll,
            queue: VecDeque::new(),
            // Zero stands for none.
            next_id: 1,
            next_generation: 0,
            answers: 0,
            restarts: Restarts::new(limit, period),
            effects: Effects::default(),
            built: false,
            build_failure: None,
            manager_wakes: None,
        }
    }

    pub(super) fn worker(&mut self, slot: usize) -> Option<&mut Worker> {
        match self.slots.get_mut(slot) {
            Some(Slot::Live(worker)) => Some(worker),
            _ => None,
        }
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Live(worker) => Some(&**worker),
            _ => None,
        })
    }

    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Live(worker) => Some(&mut **worker),
            _ => None,
        })
    }

    pub(super) fn set_slot(&mut self, index: usize, slot: Slot) {
        if let Some(place) = self.slots.get_mut(index) {
            *place = slot;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Ended(_))
    }

    pub(super) fn all_ready(&self) -> bool {
        self.slots
            .iter()
            .all(|slot| matches!(slot, Slot::Live(worker) if worker.ready))
    }

    pub(super) fn is_gone(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot, Slot::Gone))
    }

    pub(super) fn rest(&mut self) -> Rest {
        if self.is_gone() {
            return Rest::Quit;
        }
        let bulk = |worker: &Worker| worker.in_flight.len() >= BULK;
        let all_or_none = |worker: &Worker| worker.in_flight.is_empty() || bulk(worker);
        if self.workers().any(bulk) && self.workers().all(all_or_none) {
            return Rest::Nap;
        }
        self.manager_wakes = self.next_time();
        Rest::Until(self.manager_wakes)
    }

    /// Ends the tasks of a job that wait and, if `running` too, with their workers, those that
    /// run.
    pub(super) fn cancel(&mut self, job: &Arc<Job>, running: bool) {
        let queue = std::mem::take(&mut self.queue);
        let (mut cancelled, kept): (Vec<Task>, Vec<Task>) = queue
            .into_iter()
            .partition(|task| Arc::ptr_eq(&task.job, job));
        self.queue = VecDeque::from(kept);
        if running {
            let kill_at = Instant::now() + self.options.grace;
            for worker in self.workers_mut() {
                let of_job = |task: &mut Task| Arc::ptr_eq(&task.job, job);
                let in_flight = worker.in_flight.iter_mut();
                let its: Vec<Task> = in_flight.filter_map(|f| f.task.take_if(of_job)).collect();
                if !its.is_empty() {
                    worker.end_softly(kill_at);
                }
                cancelled.extend(its);
            }
            self.effects.wake_manager = true;
        }
        for task in cancelled {
            task.resolve(Err(TaskError::Cancelled), &mut self.effects.jobs);
        }
    }

    /// Nothing more will be submitted.
    pub(super) fn close(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closed;
        }
        self.dispatch();
        self.effects.wake_manager = true;
    }

    /// Ends everything: tasks with this error, workers by SIGKILL.
    pub(super) fn end(&mut self, error: &TaskError) {
        if !self.is_open() {
            return;
        }
        self.phase = Phase::Ended(error.clone());
        for task in std::mem::take(&mut self.queue) {
            task.resolve(Err(error.clone()), &mut self.effects.jobs);
        }
        self.end_tasks_in_flight(error);
        for slot in &mut self.slots {
            match slot {
                Slot::Live(worker) => worker.kill(),
                Slot::Vacant(_) => *slot = Slot::Gone,
                Slot::Starting | Slot::Gone => {}
            }
        }
        self.effects.wake_manager = true;
        self.effects.settled = true;
    }

    pub(super) fn end_tasks_in_flight(&mut self, error: &TaskError) {
        let in_flight = self.workers_mut().flat_map(|w| w.in_flight.iter_mut());
        let tasks: Vec<Task> = in_flight.filter_map(|f| f.task.take()).collect();
        for task in tasks {
            task.resolve(Err(error.clone()), &mut self.effects.jobs);
        }
    }

    /// The pids of the workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.workers().map(|worker| worker.child.pid).collect()
    }
}

/// A worker in the hands of a caller, who talks to it, with the task it runs for him.
pub(super) struct Lent {
    pub(super) slot: usize,
    pub(super) link: super::link::Link,
    pub(super) child: Arc<Child>,
    pub(super) id: u64,
    pub(super) task: Task,
    /// When the task has to be over.
    pub(super) deadline: Option<Instant>,
}
