//! One task, handed to an idle worker by the thread that wants its result, which also takes the
//! answer: no other thread is woken on the way.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Parts, Wait};

use super::TaskError;
use super::core::{Core, Lent, Phase};
use super::events::{allowed, outcome};
use super::job::{Job, Wanted};
use super::link::{Link, Received};
use super::shared::Shared;
use super::slot::InFlight;
use super::task::Task;

/// What became of a task that a caller wanted to hand over itself.
pub(super) enum Handed {
    Lent(Box<Lent>),
    /// It waits in the queue, or has ended already.
    Queued,
}

impl Core {
    /// Hands the task to an idle worker that the caller will talk to itself, or puts it into the
    /// queue.
    pub(super) fn hand_over(&mut self, task: Task) -> Handed {
        if self.queue.is_empty()
            && self.is_open()
            && let Some(slot) = self.most_recent_idle()
        {
            self.give(slot, task);
            if let Some(lent) = self.lend(slot) {
                return Handed::Lent(Box::new(lent));
            }
        } else {
            self.submit([task]);
        }
        Handed::Queued
    }

    /// The worker that runs the only task of this job, for the caller to talk to it itself.
    pub(super) fn adopt(&mut self, job: &Arc<Job>) -> Option<Lent> {
        let its = |f: &InFlight| f.task.as_ref().is_some_and(|t| Arc::ptr_eq(&t.job, job));
        let slot = (0..self.slots.len()).find(|&slot| {
            let worker = self.worker(slot);
            worker.is_some_and(|worker| {
                worker.is_working()
                    && worker.in_flight.len() == 1
                    && worker.in_flight.iter().any(its)
            })
        })?;
        self.lend(slot)
    }

    fn lend(&mut self, slot: usize) -> Option<Lent> {
        let limit = self.options.deadline;
        self.unwatch(slot);
        let worker = self.worker(slot)?;
        let InFlight { id, task } = worker.in_flight.pop_front()?;
        let (link, task) = (worker.link.take()?, task?);
        let deadline = limit.and_then(|limit| worker.since.checked_add(allowed(limit, &task)));
        Some(Lent {
            slot,
            link,
            child: Arc::clone(&worker.child),
            id,
            task,
            deadline,
        })
    }

    /// The caller has its answer.
    fn take_back(&mut self, slot: usize, link: Link) {
        self.answers += 1;
        let answers = self.answers;
        if let Some(worker) = self.worker(slot) {
            worker.link = Some(link);
            worker.answered = answers;
            if worker.ended {
                self.died(slot);
            }
        }
        self.dispatch();
    }

    /// The caller has no answer: the worker ended, or the time is over, or what it said made no
    /// sense. From now on the manager looks after the task.
    fn take_back_unfinished(&mut self, lent: Lent, sane: bool) {
        let Lent {
            slot,
            link,
            id,
            task,
            ..
        } = lent;
        self.effects.wake_manager = true;
        let Some(worker) = self.worker(slot) else {
            unreachable!("a worker that is lent stays in its slot")
        };
        worker.link = Some(link);
        let task = Some(task);
        worker.in_flight.push_front(InFlight { id, task });
        if !sane {
            worker.kill();
        }
        let ended = worker.ended;
        if let Phase::Ended(error) = &self.phase {
            let error = error.clone();
            self.end_tasks_in_flight(&error);
        }
        self.watch(slot, false);
        if ended {
            self.died(slot);
        }
        self.on_time(Instant::now());
        self.dispatch();
    }
}

/// How talking to a worker ended.
enum Talked {
    Answered(Result<Parts, TaskError>),
    Unfinished { sane: bool },
}

impl Shared {
    /// Runs a task and waits for its outcome.
    pub(super) fn run(self: &Arc<Self>, job: &Arc<Job>, task: Task) -> Result<Parts, TaskError> {
        if self.is_manager() {
            // Who talks to one worker does not look after the others.
            self.submit_one(job, task);
            return self.outcome_of(job);
        }
        job.expect(task.count);
        self.count(task.count);
        let handed = self.with(|core| {
            job.seal(&mut core.effects.jobs);
            core.hand_over(task)
        });
        match handed {
            Handed::Lent(lent) => self.talk_to(*lent, job),
            Handed::Queued => self.outcome_of(job),
        }
    }

    /// Waits for the outcome of the only task of a job, by talking to its worker if it runs.
    pub(super) fn finish(self: &Arc<Self>, job: &Arc<Job>) -> Result<Parts, TaskError> {
        if !job.is_done()
            && !self.is_manager()
            && let Some(lent) = self.with(|core| core.adopt(job))
        {
            return self.talk_to(lent, job);
        }
        self.outcome_of(job)
    }

    fn talk_to(self: &Arc<Self>, mut lent: Lent, job: &Arc<Job>) -> Result<Parts, TaskError> {
        match talk(&mut lent) {
            Talked::Answered(result) => {
                let Lent {
                    slot, link, task, ..
                } = lent;
                self.with(|core| {
                    core.effects.jobs.completed += task.count as u64;
                    core.take_back(slot, link);
                });
                result
            }
            Talked::Unfinished { sane } => {
                self.with(|core| core.take_back_unfinished(lent, sane));
                self.outcome_of(job)
            }
        }
    }

    /// Waits for the outcome of a job with one task.
    fn outcome_of(self: &Arc<Self>, job: &Job) -> Result<Parts, TaskError> {
        self.wait_for(job, Wanted::All, Wait::Forever);
        match job.take(Wanted::Any) {
            Some((_, outcome)) => outcome.result,
            None => unreachable!("a job that is done has an outcome"),
        }
    }
}

fn talk(lent: &mut Lent) -> Talked {
    let wait = lent.deadline.map_or(Wait::Forever, Wait::Until);
    let insane = Talked::Unfinished { sane: false };
    let unfinished = Talked::Unfinished { sane: true };
    let mut ended = false;
    loop {
        let interest = match lent.link.flush() {
            Ok(true) => Interest::Read,
            // A large argument, which the worker is reading.
            Ok(false) => Interest::Write,
            // Its end.
            Err(_) => return unfinished,
        };
        match lent.link.next() {
            Ok(Some(frame)) if frame.id == lent.id => {
                return outcome(frame).map_or(insane, Talked::Answered);
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return insane,
        }
        match lent.link.look(wait) {
            Ok(Some(Received::End { .. })) => return unfinished,
            Ok(Some(_)) => continue,
            Ok(None) => {}
            Err(_) => return insane,
        }
        if ended {
            // And it sent nothing more before.
            return unfinished;
        }
        let both = [
            (lent.link.as_fd(), interest),
            (lent.child.as_fd(), Interest::Read),
        ];
        match poll(both, wait) {
            Ok(Polled::Ready) => ended = lent.child.has_ended(),
            Ok(Polled::TimedOut) | Err(_) => return unfinished,
        }
    }
}
