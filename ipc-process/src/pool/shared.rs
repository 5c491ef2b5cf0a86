//! What all parts of a pool in this process hold: the core under its lock, and what is done once
//! it is unlocked.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc_core::Wait;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::builder::{Launch, Options};
use super::core::{Core, Effects};
use super::events::Token;
use super::job::{Job, Outcome, Wanted};
use super::{BuildError, TaskError, callbacks, manager};

/// How long ending a pool waits for the kernel to carry out SIGKILL.
const KILLED: Duration = Duration::from_secs(5);

pub(super) type Call = Box<dyn FnOnce() + Send>;

pub(super) struct Shared {
    /// A child of fork(2) has this memory but not the threads.
    owner: u32,
    core: Mutex<Core>,
    /// With `core`: a worker has become ready or has ended.
    settled: Condvar,
    pub(super) epoll: Arc<OwnedFd>,
    pub(super) wake: OwnedFd,
    pub(super) options: Arc<Options>,
    pub(super) launch: Launch,
    callbacks: Sender<Call>,
    completed: AtomicU64,
    total: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        launch: Launch,
        callbacks: Sender<Call>,
    ) -> Result<Arc<Self>, BuildError> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)
            .map_err(|error| BuildError::io("epoll_create1", error))?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| BuildError::io("eventfd", error))?;
        let data = EventData::new_u64(Token::WAKE);
        epoll::add(&epoll, &wake, data, EventFlags::IN)
            .map_err(|error| BuildError::io("epoll_ctl", error))?;
        let (epoll, options) = (Arc::new(epoll), Arc::new(options));
        Ok(Arc::new(Self {
            owner: std::process::id(),
            core: Mutex::new(Core::new(Arc::clone(&options), Arc::clone(&epoll))),
            settled: Condvar::new(),
            epoll,
            wake,
            options,
            launch,
            callbacks,
            completed: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }))
    }

    /// In a forked child nothing of the pool may be touched: its locks may be held for ever, its
    /// workers belong to the parent.
    pub(super) fn is_own(&self) -> bool {
        self.owner == std::process::id()
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the core, then does what follows from it without the lock.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let (value, effects) = self.change(change);
        self.carry_out(effects);
        value
    }

    /// Changes the core, and gives what has to be [carried out](Self::carry_out) then.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Core) -> T) -> (T, Effects) {
        let mut core = self.lock();
        let value = change(&mut core);
        (value, std::mem::take(&mut core.effects))
    }

    pub(super) fn carry_out(&self, effects: Effects) {
        // First: who learns of a result shall find it counted. The locks of the jobs order it.
        self.completed
            .fetch_add(effects.jobs.completed, Ordering::Relaxed);
        if effects.wake_manager {
            // Fails only when the counter is full, and then it is awake.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        if effects.settled {
            self.settled.notify_all();
        }
        for job in effects.jobs.notify {
            job.notify();
        }
        for (callback, outcomes) in effects.jobs.callbacks {
            // Fails when the thread for callbacks is gone, which outlives this pool.
            let _ = self.callbacks.send(Box::new(|| callback(outcomes)));
        }
        for waker in effects.jobs.wakers {
            // Code of others: a panic in it is theirs, and it may wait for this pool, so it is last.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Has `job` or an effect on it dealt with outside of a change of the core.
    pub(super) fn with_job(&self, change: impl FnOnce(&mut super::job::Effects)) {
        let mut effects = Effects::default();
        change(&mut effects.jobs);
        self.carry_out(effects);
    }

    pub(super) fn count(&self, items: usize) {
        self.total.fetch_add(items as u64, Ordering::Relaxed);
    }

    pub(super) fn progress(&self) -> (u64, u64) {
        let completed = self.completed.load(Ordering::Relaxed);
        // Read second: it is never less.
        (completed, self.total.load(Ordering::Relaxed).max(completed))
    }

    pub(super) fn is_manager(&self) -> bool {
        manager::is_this_thread(self)
    }

    /// Sleeps until a job has what is wanted; false when the wait was over first.
    pub(super) fn wait_for(self: &Arc<Self>, job: &Job, wanted: Wanted, wait: Wait) -> bool {
        if self.is_manager() {
            return manager::work_until(self, wait, || job.wait(wanted, Wait::Never));
        }
        job.wait(wanted, wait)
    }

    /// Sleeps until this holds; it can come to hold only when a worker or the pool settles.
    pub(super) fn wait_until(
        self: &Arc<Self>,
        wait: Wait,
        mut holds: impl FnMut(&mut Core) -> bool,
    ) {
        if self.is_manager() {
            manager::work_until(self, wait, || self.with(&mut holds));
            return;
        }
        let mut core = self.lock();
        while !holds(&mut core) && !wait.is_over() {
            core = match wait.remaining() {
                None => self
                    .settled
                    .wait(core)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.settled
                        .wait_timeout(core, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }

    /// Ends all tasks with this error and all workers by SIGKILL, and waits until these have gone
    /// (at most 5 s; the kernel may be unable to end a process that waits for a device).
    pub(super) fn end(self: &Arc<Self>, error: &TaskError) {
        self.with(|core| core.end(error));
        self.wait_until(Wait::at_most(KILLED), |core| core.is_gone());
    }

    /// Waits until all callbacks that are due have run.
    pub(super) fn flush_callbacks(&self) {
        let (done, all) = mpsc::channel::<()>();
        // Dropped once it is its turn. On the thread for callbacks itself that would be never.
        let last = move || drop(done);
        if !callbacks::is_this_thread() && self.callbacks.send(Box::new(last)).is_ok() {
            let _ = all.recv();
        }
    }

    /// Ends a job whose only task cannot be submitted.
    pub(super) fn refuse(&self, job: &Arc<Job>, error: TaskError) {
        job.expect(1);
        self.count(1);
        self.with_job(|effects| {
            job.seal(effects);
            let result = Err(error);
            job.resolve(0, Outcome { count: 1, result }, effects);
        });
    }

    /// Submits the only task of a job, and no other will come.
    pub(super) fn submit_one(&self, job: &Arc<Job>, task: super::task::Task) {
        job.expect(task.count);
        self.count(task.count);
        self.with(|core| {
            job.seal(&mut core.effects.jobs);
            core.submit([task]);
        });
    }
}
