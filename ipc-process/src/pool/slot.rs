//! One worker as the pool sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rustix::process::Signal;

use super::link::Link;
use super::task::Task;
use crate::Process;
use crate::reap::Child;

/// A place for one worker.
pub(super) enum Slot {
    /// To be started at this time.
    Vacant(Instant),
    /// A thread is starting its process.
    Starting,
    Live(Box<Worker>),
    /// Nothing will come: the pool has ended.
    Gone,
}

/// A task that a worker has, or will have once its link is flushed.
pub(super) struct InFlight {
    pub(super) id: u64,
    /// `None`: it has ended early, cancelled or over its deadline, and its worker is being ended.
    pub(super) task: Option<Task>,
}

/// A worker that gets no more tasks because it is about to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// When patience ends.
    pub(super) kill_at: Instant,
    /// Whether that is our doing.
    pub(super) wanted: bool,
}

pub(super) struct Worker {
    pub(super) process: Process<Result<(), String>>,
    pub(super) child: Arc<Child>,
    /// `None` while a caller talks to the worker itself.
    pub(super) link: Option<Link>,
    /// In the order in which it has them: the first is running.
    pub(super) in_flight: VecDeque<InFlight>,
    /// Its initializer has run.
    pub(super) ready: bool,
    pub(super) ending: Option<Ending>,
    /// Since when the first task in flight has been running.
    pub(super) since: Instant,
    /// Tasks that it was given in all.
    pub(super) given: u32,
    /// When it last answered, as a count of answers.
    pub(super) answered: u64,
    /// Tells events of this worker from those of one that had this slot before.
    pub(super) generation: u32,
    /// Whether the manager is told of what it sends; if so, whether also of room for what we send.
    pub(super) watched: Option<bool>,
    /// It is known to have ended; while a caller talks to it, that is left to him.
    pub(super) ended: bool,
}

impl Worker {
    pub(super) fn new(
        process: Process<Result<(), String>>,
        link: Link,
        generation: u32,
        now: Instant,
    ) -> Self {
        Self {
            child: Arc::clone(process.child()),
            process,
            link: Some(link),
            in_flight: VecDeque::new(),
            ready: false,
            ending: None,
            since: now,
            given: 0,
            answered: 0,
            generation,
            watched: None,
            ended: false,
        }
    }

    /// Whether it takes tasks from the queue.
    pub(super) fn is_working(&self) -> bool {
        self.ready && self.ending.is_none() && self.link.is_some()
    }

    /// Whether it waits for a task.
    pub(super) fn is_idle(&self) -> bool {
        self.is_working() && self.in_flight.is_empty()
    }

    /// It will end of itself, or is of no use: that is waited for, but not without end.
    pub(super) fn expect_end(&mut self, kill_at: Instant, wanted: bool) {
        self.ending.get_or_insert(Ending { kill_at, wanted });
    }

    /// Tells it that no more tasks will come; it then exits.
    pub(super) fn retire(&mut self, kill_at: Instant) {
        if let Some(link) = &self.link {
            link.finish();
        }
        self.expect_end(kill_at, true);
    }

    pub(super) fn kill(&self) {
        // Refused only if it has changed its user; then nothing can be done.
        let _ = self.child.signal(Signal::KILL);
    }

    /// SIGTERM now, SIGKILL later.
    pub(super) fn end_softly(&mut self, kill_at: Instant) {
        let wanted = true;
        self.ending = Some(Ending { kill_at, wanted });
        // As in `kill`.
        let _ = self.child.signal(Signal::TERM);
    }
}
