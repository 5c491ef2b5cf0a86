//! Which task goes to which worker, and when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TaskError;
use super::core::{Core, FAREWELL, Phase};
use super::job::Job;
use super::link::Kind;
use super::slot::{InFlight, Slot, Worker};
use super::task::Task;

/// A worker is given as many tasks of one job ahead as it runs in this time.
const AHEAD: Duration = Duration::from_micros(400);

/// At most so many: their answers must fit into the socket's buffer, or the worker would wait.
const MOST_AHEAD: usize = 128;

/// Tasks shorter than this are given one ahead at least, since the way to and fro would show.
const SHORT: Duration = Duration::from_millis(2);

impl Core {
    /// Puts tasks into the queue, or ends them at once if the pool has ended.
    pub(super) fn submit(&mut self, tasks: impl IntoIterator<Item = Task>) {
        for task in tasks {
            match &self.phase {
                Phase::Ended(error) => task.resolve(Err(error.clone()), &mut self.effects.jobs),
                _ => self.queue.push_back(task),
            }
        }
        self.dispatch();
    }

    /// Gives waiting tasks to workers that have too few.
    pub(super) fn dispatch(&mut self) {
        while let Some(next) = self.queue.front() {
            let depth = self.depth(&next.job);
            // Early enough that it does not run dry, and not for each single one.
            let few = depth - depth / 4;
            let wants_more =
                |worker: &Worker| worker.in_flight.len() < few && may_follow(worker, next);
            let Some(slot) = self
                .most_recent_idle()
                .or_else(|| self.position(wants_more))
            else {
                break;
            };
            self.fill(slot, depth);
        }
        if self.options.max_tasks.is_some() || matches!(self.phase, Phase::Closed) {
            self.retire_the_idle();
        }
        if self.options.deadline.is_some() {
            let sooner = |next| self.manager_wakes.is_none_or(|wakes| next < wakes);
            self.effects.wake_manager |= self.next_time().is_some_and(sooner);
        }
    }

    /// Of the workers that wait for a task the one that answered last: it is most likely still
    /// looking.
    pub(super) fn most_recent_idle(&self) -> Option<usize> {
        let idle = |(index, slot): (usize, &Slot)| match slot {
            Slot::Live(worker) if worker.is_idle() && self.may_be_given(worker) => {
                Some((worker.answered, index))
            }
            _ => None,
        };
        let most_recent = self.slots.iter().enumerate().filter_map(idle).max();
        most_recent.map(|(_, index)| index)
    }

    fn position(&self, wanted: impl Fn(&Worker) -> bool) -> Option<usize> {
        self.slots.iter().position(|slot| match slot {
            Slot::Live(worker) => wanted(worker) && self.may_be_given(worker),
            _ => false,
        })
    }

    fn may_be_given(&self, worker: &Worker) -> bool {
        self.options
            .max_tasks
            .is_none_or(|most| worker.given < most)
    }

    /// How many tasks of this job a worker may have at a time.
    fn depth(&self, job: &Job) -> usize {
        // A worker that is ended for one task must not have begun another meanwhile.
        if !job.batch || self.options.deadline.is_some() {
            return 1;
        }
        let Some(mean) = job.mean() else {
            return 1;
        };
        let covering = AHEAD.as_nanos() / mean.as_nanos().max(1);
        let least = if mean < SHORT { 2 } else { 1 };
        let depth = usize::try_from(covering)
            .unwrap_or(usize::MAX)
            .clamp(least, MOST_AHEAD);
        // Not all of what is left to one, so that all have done at about the same time.
        let share = self.queue.len().div_ceil(2 * self.slots.len());
        depth.min(share.max(1))
    }

    /// Gives a worker tasks of one job until it has so many, and sends them.
    fn fill(&mut self, slot: usize, depth: usize) {
        while let Some(next) = self.queue.front()
            && let Some(Slot::Live(worker)) = self.slots.get(slot)
            && self.may_be_given(worker)
            && (worker.in_flight.is_empty()
                || worker.in_flight.len() < depth && may_follow(worker, next))
            && let Some(task) = self.queue.pop_front()
        {
            self.give(slot, task);
        }
        self.flush(slot);
    }

    /// Adds a task to those of a worker, and to what will be sent to it.
    pub(super) fn give(&mut self, slot: usize, mut task: Task) {
        let id = self.next_id;
        self.next_id += 1;
        let descriptors = std::mem::take(&mut task.descriptors);
        let Some(worker) = self.worker(slot) else {
            unreachable!("only to a live worker")
        };
        let Some(link) = &mut worker.link else {
            unreachable!("only to a worker that no caller talks to")
        };
        match link.push(Kind::Run, id, task.place, &task.arguments, descriptors) {
            Ok(()) => {
                if worker.in_flight.is_empty() {
                    worker.since = Instant::now();
                }
                worker.given += 1;
                let task = Some(task);
                worker.in_flight.push_back(InFlight { id, task });
            }
            Err(error) => {
                let reason = format!("the arguments: a memfd: {error}");
                task.resolve(Err(TaskError::Encode { reason }), &mut self.effects.jobs);
            }
        }
    }

    /// Ends the workers that have had all the tasks they may have, and every idle one when there
    /// is nothing to come.
    fn retire_the_idle(&mut self) {
        let nothing_to_come = matches!(self.phase, Phase::Closed) && self.queue.is_empty();
        let kill_at = Instant::now() + FAREWELL;
        let retires = |worker: &Worker, core: &Self| {
            worker.is_idle() && (nothing_to_come || !core.may_be_given(worker))
        };
        for slot in 0..self.slots.len() {
            if let Some(Slot::Live(worker)) = self.slots.get(slot)
                && retires(worker, self)
                && let Some(worker) = self.worker(slot)
            {
                worker.retire(kill_at);
                self.watch(slot, false);
                self.effects.wake_manager = true;
            }
        }
    }
}

/// Whether the worker may be given this task before it has answered those that it has: parts of
/// one whole only, since a task of somebody else would be stuck behind a long one.
fn may_follow(worker: &Worker, next: &Task) -> bool {
    let last = worker.in_flight.back().and_then(|last| last.task.as_ref());
    let same = |last: &Task| Arc::ptr_eq(&last.job, &next.job) && !last.once && !next.once;
    worker.is_working() && last.is_some_and(same)
}
