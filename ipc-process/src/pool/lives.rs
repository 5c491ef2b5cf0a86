//! How workers come and go.

use std::collections::VecDeque;
use std::time::Instant;

use rustix::event::epoll::{self, EventFlags};

use super::core::{Core, Phase};
use super::events::Token;
use super::link::{Link, Received};
use super::slot::{InFlight, Slot, Worker};
use super::task::Task;
use super::{BuildError, TaskError};
use crate::{JoinError, Process, StartError};

pub(super) type Started = Result<(Process<Result<(), String>>, Link), StartError>;

impl Core {
    /// The slots whose time to start has come; they count as starting from now on.
    pub(super) fn due(&mut self, now: Instant) -> Vec<usize> {
        let wanted = match self.phase {
            Phase::Open => true,
            Phase::Closed => !self.queue.is_empty(),
            Phase::Ended(_) => false,
        };
        let mut due = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Vacant(at) = slot {
                if !wanted {
                    *slot = Slot::Gone;
                    self.effects.settled = true;
                } else if *at <= now {
                    *slot = Slot::Starting;
                    due.push(index);
                }
            }
        }
        due
    }

    /// A thread has started a worker's process, or could not.
    pub(super) fn started(&mut self, slot: usize, started: Started) {
        self.effects.wake_manager = true;
        self.effects.settled = true;
        let now = Instant::now();
        let added = started.and_then(|(process, link)| {
            if !self.is_open() {
                self.set_slot(slot, Slot::Gone);
                self.effects.unwanted.push(process);
                return Ok(());
            }
            self.next_generation = self.next_generation.wrapping_add(1);
            let worker = Worker::new(process, link, self.next_generation, now);
            let token = Token {
                slot,
                generation: worker.generation,
                of_process: true,
            };
            // Once: a caller that talks to the worker has to deal with its end.
            let flags = EventFlags::IN | EventFlags::ONESHOT;
            match epoll::add(&*self.epoll, &*worker.child, token.to_data(), flags) {
                Ok(()) => {
                    self.set_slot(slot, Slot::Live(Box::new(worker)));
                    self.watch(slot, false);
                    Ok(())
                }
                Err(error) => {
                    self.effects.unwanted.push(worker.process);
                    Err(StartError::io("epoll_ctl", error))
                }
            }
        });
        if let Err(error) = added {
            self.start_failed(slot, now, BuildError::Start(error));
        }
    }

    /// A worker did not become ready.
    fn start_failed(&mut self, slot: usize, now: Instant, failure: BuildError) {
        self.set_slot(slot, Slot::Gone);
        let others = self.workers().any(|worker| worker.ready);
        let again = self.restarts.failed(now, others);
        if again.is_none() {
            let reason = failure.to_string();
            self.end(&TaskError::Broken { reason });
        }
        if !self.built {
            self.build_failure.get_or_insert(failure);
        }
        if let Some(at) = again.filter(|_| self.is_open()) {
            self.set_slot(slot, Slot::Vacant(at));
        }
    }

    /// A worker's process has ended.
    pub(super) fn died(&mut self, slot: usize) {
        // What it sent before its end is there by now.
        while self.read(slot) == Received::Some {}
        let now = Instant::now();
        let Some(place) = self.slots.get_mut(slot) else {
            return;
        };
        let worker = match std::mem::replace(place, Slot::Vacant(now)) {
            Slot::Live(worker) => *worker,
            other => {
                *place = other;
                return;
            }
        };
        self.effects.wake_manager = true;
        self.effects.settled = true;
        let _ = epoll::delete(&*self.epoll, &*worker.child);
        let unread = worker.link.as_ref().is_some_and(Link::was_left_unread);
        // Without a wait: a debugger that holds it may do so for ever, and the pool is locked.
        let (said, status) = worker.process.remains();

        let wanted = worker.ending.is_some_and(|ending| ending.wanted);
        if !wanted && self.restarts.ended(now) {
            let reason = self.restarts.describe();
            self.end(&TaskError::Broken { reason });
        }
        let panic = match said {
            Some(Ok(Err(reason))) if !worker.ready => {
                return self.start_failed(slot, now, BuildError::Initializer { reason });
            }
            Some(Err(JoinError::Panicked(panic))) => Some(panic),
            _ => None,
        };
        if !worker.ready {
            let failure = panic.map_or(BuildError::Died { status }, BuildError::Panicked);
            return self.start_failed(slot, now, failure);
        }
        // Also with `panic = "abort"`, where the panic is all that is heard of a worker.
        let pid = worker.child.pid;
        let cause = panic.map_or(TaskError::Lost { pid, status }, TaskError::Panicked);
        self.end_or_requeue(worker.in_flight, unread, &cause);
        if self.is_open() {
            self.dispatch();
        } else {
            self.set_slot(slot, Slot::Gone);
        }
    }

    /// Deals with the tasks of a worker that has ended. The first was running, the others had not
    /// begun, since a worker answers before it begins the next.
    fn end_or_requeue(
        &mut self,
        mut in_flight: VecDeque<InFlight>,
        unread: bool,
        cause: &TaskError,
    ) {
        // What it left unread was sent last: if that was all there was, nothing had begun.
        let began = !(unread && in_flight.len() == 1);
        let first = if began { in_flight.pop_front() } else { None };
        for task in in_flight.into_iter().rev().filter_map(|f| f.task) {
            if task.once {
                // Its descriptors went down with the worker.
                task.resolve(Err(cause.clone()), &mut self.effects.jobs);
            } else {
                self.put_first(task);
            }
        }
        let Some(mut task) = first.and_then(|first| first.task) else {
            return;
        };
        task.attempts += 1;
        let attempts = task.attempts;
        let may_retry = matches!(cause, TaskError::Lost { .. }) && !task.once;
        if may_retry && attempts <= self.options.retry.on_lost {
            for part in task.split().into_iter().rev() {
                self.put_first(part);
            }
        } else if attempts > 1 {
            let last = Box::new(cause.clone());
            let aborted = TaskError::Aborted { attempts, last };
            task.resolve(Err(aborted), &mut self.effects.jobs);
        } else {
            task.resolve(Err(cause.clone()), &mut self.effects.jobs);
        }
    }

    fn put_first(&mut self, task: Task) {
        match &self.phase {
            Phase::Ended(error) => task.resolve(Err(error.clone()), &mut self.effects.jobs),
            _ => self.queue.push_front(task),
        }
    }
}
