//! Pools: worker processes that run functions of this program, one task after another.
//!
//! Starting a process takes milliseconds, handing a task to one that waits for it microseconds.
//!
//! ```
//! use ipc_process::Pool;
//!
//! fn square(n: u64) -> u64 {
//!     n * n
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     ipc_process::init(); // first thing in main: the workers start here too
//!     let pool = Pool::new(4)?;
//!     assert_eq!(pool.apply(square, (7,))?, 49);
//!     assert_eq!(pool.map(square, 0..5)?, [0, 1, 4, 9, 16]);
//!     let job = pool.apply_async(square, (8,));
//!     assert_eq!(job.get()?, 64);
//!     pool.close().join();
//!     Ok(())
//! }
//! ```
//!
//! `cargo run -p ipc-process --example pool` shows each way to hand out work:
//!
//! ```text
//! apply:   168
//! map:     [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]
//! starmap: [22044, 19494, 18700, 18260]
//! imap:    result 0 is 1000000000000
//! imap:    result 1 is 1000002000001
//! imap:    result 2 is 1000004000004
//! async:   ready at once? false
//! async:   78498
//! panic:   7 is refused
//! Progress { completed: 20, total: 20 }
//! ```
//!
//! and `--example pool_survives_kill` what becomes of tasks that kill their worker or never end:
//!
//! ```text
//! 10: 5
//! 11: 5
//! 12: 6
//! 13: given up after 2 attempts, signal: 9 (SIGKILL)
//! 14: 7
//! 15: 7
//! 16: 8
//! endless: the task took longer than 1s
//! and on it goes: 42
//! ```
//!
//! # Python's names and ours
//!
//! | `multiprocessing.pool` | here | what differs |
//! |---|---|---|
//! | `Pool(n, initializer, initargs, maxtasksperchild)` | [`Pool::new`], [`Pool::builder`] | an initializer that fails is an error of [`build`](Builder::build); Python starts workers for ever |
//! | `apply(f, args)` | [`apply`](Pool::apply) | arguments are checked when compiling; a dead worker is an error; Python waits for ever |
//! | `apply_async(f, args)` | [`apply_async`](Pool::apply_async) | |
//! | `callback=`, `error_callback=` | [`JobHandle::then`] | one callback for both, on a thread of its own; a panic in it harms nothing |
//! | `AsyncResult.get(timeout)`, `wait` | [`get`](JobHandle::get), [`get_timeout`](JobHandle::get_timeout), `.await` | a time-out gives the handle back |
//! | `ready()`, `successful()` | [`ready`](JobHandle::ready) | success is part of the result |
//! | - | [`cancel`](JobHandle::cancel) | also what runs |
//! | `map`, `starmap`, `chunksize=` | [`map`](Pool::map), [`starmap`](Pool::starmap), [`Batch::chunk_size`] | gives a vector, in order, or the first item that failed and why; after a panic the rest of a chunk is run all the same |
//! | `map_async`, `starmap_async` | [`map_async`](Pool::map_async), [`starmap_async`](Batch::starmap_async) | |
//! | `imap`, `imap_unordered` | [`imap`](Pool::imap), [`imap_unordered`](Pool::imap_unordered) | take from the iterator no more than a [window](Batch::window) ahead; Python takes all of it at once |
//! | `close()`, `join()` | [`close`](Pool::close), [`join`](Closed::join) | only a closed pool has `join`; results that nobody has read hold nothing up |
//! | `terminate()`, `with` | [`terminate`](Pool::terminate), drop | |
//! | - | [`task_deadline`](Builder::task_deadline), [`retry`](Builder::retry), [`restart_intensity`](Builder::restart_intensity), [`memory_limit`](Builder::memory_limit), [`progress`](Pool::progress) | |
//!
//! # What is promised
//!
//! * Each task ends exactly once, with its result or with a [`TaskError`] that says what happened,
//!   whichever process dies, whenever.
//! * The death of a worker costs the task, or chunk, that it was running. What was handed to it
//!   and had not begun goes to another worker; of several short ones that it was handed ahead and
//!   may not have read, the first counts as begun. Without [`Retry`], no task is begun twice.
//! * A worker that ends is replaced, and what it leaves is no zombie and no open descriptor. A
//!   loop of deaths ends the pool and all its tasks, see
//!   [`restart_intensity`](Builder::restart_intensity).
//! * No lock is shared between processes: a worker can be killed at any moment without harm to
//!   another.
//! * Workers die with this program, SIGKILL included, as [daemons](crate::Unstarted::daemon) do.
//! * A pool in a forked child does nothing but say so ([`TaskError::Forked`]).
//!
//! # What is not promised
//!
//! * The order in which tasks begin, beyond that those of one call begin in their order. Tasks of
//!   one `map` or `imap` may wait behind one another in the same worker while they are short (under
//!   2 ms on average), and stay there should they become long; tasks of different calls never do.
//! * That a lost task has done nothing. It was running, or was about to.
//! * That a pool goes on while a waker of one of its futures waits for something else: wakers are
//!   called on the pool's own threads. Waiting for this very pool in one is fine.
//! * Fairness between callers: what was submitted first is begun first.
//! * Arguments or results of more than 1 GiB in one message: they are refused
//!   ([`TaskError::TooLarge`]).
//! * That tasks which ran in the same worker do not see each other's globals: that is what an
//!   [initializer](Builder::initializer) is for.
//!
//! `Vec<u8>` as the only argument, or as the result, is carried as one run of bytes; inside other
//! values `serde` writes it byte by byte, which `serde_bytes` avoids. Bodies over 64 KiB travel in
//! a memfd whose pages are used again.
//!
//! # How it works
//!
//! ```text
//!  callers                       manager thread                    workers
//!  ┌────────────────────┐   ┌──────────────────────────┐   socket  ┌─────────────┐
//!  │ apply: writes to an│──▶│ epoll: answers, deaths,  │◀─────────▶│ read a task │
//!  │ idle worker, looks │   │ deadlines; hands out what│   pidfd   │ run it      │
//!  │ for the answer     │◀─┐│ waits; replaces workers  │◀──────────│ answer      │
//!  └────────────────────┘  │└──────────────────────────┘           └─────────────┘
//!                          └───────── one socket for each worker ─────────┘
//! ```
//!
//! Each worker is a [`Process`](crate::Process) with a socket of its own. All state of the pool is
//! in this process, under one lock that is held for no system call that can wait. A caller of
//! `apply` takes an idle worker, writes the task, and itself looks for the answer, for 50 us if
//! that has paid lately, before it sleeps; so no third thread is woken on the way. Everything else
//! is submitted to a queue; who submits also writes to idle workers, and the manager takes the
//! answers and hands out the rest. Short tasks of one call are handed out ahead, up to 128 for each
//! worker and as many as it runs in 0.4 ms, in one write; the worker answers each before it begins
//! the next, so that the first that is not answered is the one that was running when it died.
//! Death is learnt from the pidfd; what the worker sent before is read first. If the socket says
//! that the worker left it unread, the task had not begun.

mod batch;
mod builder;
mod callbacks;
mod chunk;
mod codec;
mod core;
mod direct;
mod dispatch;
mod error;
mod events;
mod handle;
mod imap;
mod job;
mod link;
mod lives;
mod long;
mod manager;
mod restarts;
mod shared;
mod slot;
mod task;
mod worker;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ipc_core::{Parts, Wait};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use batch::Batch;
pub use builder::{Builder, Retry};
pub use error::{BuildError, MapError, TaskError};
pub use handle::JobHandle;
pub use imap::Imap;
pub use worker::Initialized;

use crate::Target;
use crate::bytes::decode;
use crate::spawn::trampoline::place_of;
use job::{Job, Outcome, Outcomes};
use shared::Shared;
use task::Task;

/// How much has ended, of all that was submitted so far, in items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that have ended, with a result or without.
    pub completed: u64,
    /// Tasks in all.
    pub total: u64,
}

/// Worker processes that run functions of this program, see the [module](self).
///
/// Dropping it [terminates](Self::terminate) it; [`close`](Self::close) and
/// [`join`](Closed::join) wait for the tasks instead.
#[must_use = "dropping it terminates the pool"]
pub struct Pool {
    shared: Arc<Shared>,
    manager: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// A pool with this many workers and no other settings.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(processes: usize) -> Result<Self, BuildError> {
        Self::builder().processes(processes).build()
    }

    /// A pool that does not exist yet, with as many workers as there are processors.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(self) fn from_parts(shared: Arc<Shared>, manager: JoinHandle<()>) -> Self {
        Self {
            shared,
            manager: Mutex::new(Some(manager)),
        }
    }

    /// Runs one task and waits for its result.
    ///
    /// # Errors
    /// Why there is none.
    pub fn apply<F, A>(&self, function: F, arguments: A) -> Result<F::Output, TaskError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let job = Job::new(false);
        let task = self.task(&job, function, arguments)?;
        read(self.shared.run(&job, task)?)
    }

    /// Submits one task and does not wait for it.
    pub fn apply_async<F, A>(&self, function: F, arguments: A) -> JobHandle<F::Output>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned + 'static,
    {
        let job = Job::new(false);
        match self.task(&job, function, arguments) {
            Ok(task) => self.shared.submit_one(&job, task),
            Err(error) => self.shared.refuse(&job, error),
        }
        JobHandle::new(&self.shared, job, finish_one::<F::Output>)
    }

    fn task<F, A>(&self, job: &Arc<Job>, function: F, arguments: A) -> Result<Task, TaskError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned + 'static,
    {
        if !self.shared.is_own() {
            return Err(TaskError::Forked);
        }
        let place = place_of::<F, A>(function).ok_or(TaskError::NotInMainProgram)?;
        let (bytes, descriptors) = task::encode(arguments)?;
        Ok(Task::new(job, 0, 1, place, bytes, descriptors))
    }

    /// Calls a function of one argument for each item and gives the results in the order of the
    /// items. Items travel in chunks, see [`Batch::chunk_size`]; long ones, of which a few MiB are
    /// ahead of the workers, are taken no faster than workers take them.
    ///
    /// # Errors
    /// The first item, in the order of the items, that has no result. The others are run all the
    /// same.
    pub fn map<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<F::Output>, MapError>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.batch().map(function, items)
    }

    /// As [`map`](Self::map) for a function of several arguments, which the items have as tuples.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn starmap<F, T>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<F::Output>, MapError>
    where
        F: Target<T>,
        T: Serialize + DeserializeOwned + 'static,
    {
        self.batch().starmap(function, items)
    }

    /// As [`map`](Self::map), and does not wait.
    pub fn map_async<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> JobHandle<Vec<F::Output>, MapError>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.batch().map_async(function, items)
    }

    /// Calls a function for each item and gives each result as it is asked for, in the order of
    /// the items. Takes no more than a [window](Batch::window) of items ahead.
    pub fn imap<F, A, I>(&self, function: F, items: I) -> Imap<'_, F, A, I::IntoIter>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = A>,
    {
        self.batch().imap(function, items)
    }

    /// As [`imap`](Self::imap), in the order in which the results come.
    pub fn imap_unordered<F, A, I>(&self, function: F, items: I) -> Imap<'_, F, A, I::IntoIter>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = A>,
    {
        self.batch().imap_unordered(function, items)
    }

    /// Settings for calls with many items.
    #[must_use]
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self)
    }

    /// How many workers it has, or is just replacing.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.shared.options.processes
    }

    /// The pids of the workers that live now. For people and logs: another process may own one by
    /// the time it is looked at.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        match self.shared.is_own() {
            true => self.shared.with(|core| core.pids()),
            false => Vec::new(),
        }
    }

    /// How much has ended of what was submitted so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (completed, total) = self.shared.progress();
        Progress { completed, total }
    }

    /// Takes no more tasks. Those that there are go on; a worker exits when there is nothing left
    /// for it.
    pub fn close(self) -> Closed {
        if self.shared.is_own() {
            self.shared.with(|core| core.close());
        }
        Closed(self)
    }

    /// Ends it at once: all tasks that have not ended do so with [`TaskError::Terminated`], and
    /// workers by SIGKILL. Returns when these have gone. Again, or from a callback, is fine.
    pub fn terminate(&self) {
        if self.shared.is_own() {
            self.shared.end(&TaskError::Terminated);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.shared.is_own() {
            return;
        }
        self.terminate();
        let manager = self.manager.get_mut();
        let manager = manager.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(manager) = manager
            && !self.shared.is_manager()
        {
            // It quits when no worker is left. A panic in it has been told by the hook.
            let _ = manager.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("options", &self.shared.options)
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

/// A pool that takes no more tasks, from [`Pool::close`].
#[derive(Debug)]
#[must_use = "dropping it terminates the pool; join() waits for the tasks"]
pub struct Closed(Pool);

impl Closed {
    /// Waits until all tasks have ended, all workers have exited and all callbacks have run.
    pub fn join(self) {
        if self.0.shared.is_own() {
            self.0
                .shared
                .wait_until(Wait::Forever, |core| core.is_gone());
            self.0.shared.flush_callbacks();
        }
    }

    /// How much has ended of what was submitted.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.0.progress()
    }

    /// As [`Pool::terminate`].
    pub fn terminate(&self) {
        self.0.terminate();
    }
}

fn finish_one<R: DeserializeOwned + 'static>(mut outcomes: Outcomes) -> Result<R, TaskError> {
    match outcomes.pop_first() {
        Some((_, Outcome { result, .. })) => read(result?),
        None => Err(TaskError::Cancelled),
    }
}

fn read<R: DeserializeOwned + 'static>(result: Parts) -> Result<R, TaskError> {
    decode(result).map_err(|error| TaskError::Decode {
        reason: format!("the result: {error}"),
    })
}
