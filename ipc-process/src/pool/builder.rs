use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use ipc_core::Wait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::shared::Shared;
use super::worker::{Initialized, Serve};
use super::{BuildError, Pool, TaskError, callbacks, manager, task};
use crate::descriptor::Descriptor;
use crate::{Limits, Process, StartError, StartMethod, Target};

/// Whether a task whose worker ended is tried again.
///
/// A task that is tried again may have done part of its work, or all of it, before: ask for it
/// only where that does no harm. A panic is an answer and is never tried again, nor is a task
/// whose arguments contain channel ends, which went down with the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    pub(super) on_lost: u32,
}

impl Retry {
    /// Never: the task ends with [`TaskError::Lost`]. The default.
    #[must_use]
    pub const fn never() -> Self {
        Self { on_lost: 0 }
    }

    /// Up to so many times after the first; then the task ends with [`TaskError::Aborted`], so
    /// that one that always kills its worker does so a limited number of times. A chunk of many
    /// items is tried again item by item, so that only the one that kills ends so.
    #[must_use]
    pub const fn on_lost(times: u32) -> Self {
        Self { on_lost: times }
    }
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) name: String,
    pub(super) processes: usize,
    pub(super) max_tasks: Option<u32>,
    pub(super) deadline: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) retry: Retry,
    pub(super) restart_intensity: (u32, Duration),
    pub(super) start_method: StartMethod,
    pub(super) limits: Limits,
}

/// A year.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

type Worker = Process<Result<(), String>>;

/// Starts a worker with its end of the link.
pub(super) type Launch =
    Box<dyn Fn(&Options, Descriptor) -> Result<Worker, StartError> + Send + Sync>;

/// A [`Pool`] that does not exist yet.
#[must_use = "nothing exists until build()"]
pub struct Builder {
    options: Options,
    launch: Result<Launch, BuildError>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let processes = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            options: Options {
                name: "pool".to_owned(),
                processes,
                max_tasks: None,
                deadline: None,
                grace: Duration::from_millis(500),
                retry: Retry::never(),
                restart_intensity: (100, Duration::from_secs(1)),
                start_method: StartMethod::default(),
                limits: Limits::default(),
            },
            launch: prepare(|| (), ()),
        }
    }

    /// A name for people, that of the workers and of the pool's threads. Default: `pool`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        // A thread's name cannot contain a zero.
        self.options.name = name.into().replace('\0', "");
        self
    }

    /// How many workers there are; at least one. Default: the processors of the machine that this
    /// program may use.
    pub fn processes(mut self, count: usize) -> Self {
        self.options.processes = count.max(1);
        self
    }

    /// What each worker calls before its first task, also one that replaces another. It returns
    /// nothing, or a `Result`; when it fails, panics or ends the worker, [`build`](Self::build)
    /// fails, and later the worker is replaced as [`restart_intensity`](Self::restart_intensity)
    /// says.
    ///
    /// The arguments are encoded once, so they need not be `Clone`; channel ends, which cannot
    /// go to several processes, are refused by `build`.
    pub fn initializer<F, A>(mut self, function: F, arguments: A) -> Self
    where
        F: Target<A> + Send + Sync,
        F::Output: Initialized,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.launch = prepare(function, arguments);
        self
    }

    /// After so many tasks a worker exits and is replaced; a chunk counts as one task. Bounds what
    /// a leak in a task can cost. Default: no limit.
    pub fn max_tasks_per_child(mut self, count: u32) -> Self {
        self.options.max_tasks = Some(count.max(1));
        self
    }

    /// How long a task may run; a chunk of several items that many times as long. Then it ends
    /// with [`TaskError::Deadline`], and its worker with SIGTERM and, after
    /// [`grace`](Self::grace), SIGKILL. Default: no limit.
    ///
    /// With a deadline, a worker is given one task at a time, which costs throughput with tasks of
    /// a few microseconds; chunks make up for that.
    pub fn task_deadline(mut self, limit: Duration) -> Self {
        self.options.deadline = Some(limit);
        self
    }

    /// How long a worker has between SIGTERM and SIGKILL when its task is cancelled or over its
    /// deadline. Default: half a second.
    pub fn grace(mut self, time: Duration) -> Self {
        // No longer than the clock can tell.
        self.options.grace = time.min(LONGEST_GRACE);
        self
    }

    /// What becomes of a task whose worker ended. Default: never tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// When more than `count` workers end of themselves within `period`, the pool gives up: all
    /// tasks end with [`TaskError::Broken`]. Workers that the pool ends do not count. Default: 100
    /// within a second, which is a loop and not an accident.
    ///
    /// A worker that cannot be started is tried again after 10 ms, then after twice as long, up to
    /// a second; the pool gives up after eight times in a row if it has no other worker.
    pub fn restart_intensity(mut self, count: u32, period: Duration) -> Self {
        self.options.restart_intensity = (count, period);
        self
    }

    /// How many bytes of address space a worker may have: [`Limits::memory`]. A task that wants
    /// more ends its worker, and itself with [`TaskError::Lost`]. Default: no limit of its own.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.options.limits = self.options.limits.memory(bytes);
        self
    }

    /// How much of the machine each worker may use. Default: as much as this process.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// How workers are made. Default: [`StartMethod::Spawn`].
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.options.start_method = method;
        self
    }

    /// Starts the workers and waits until all have run the initializer.
    ///
    /// # Errors
    /// As [`BuildError`] says; no process is left then.
    pub fn build(self) -> Result<Pool, BuildError> {
        let Self { options, launch } = self;
        let callbacks = callbacks::start(&options.name)
            .map_err(|error| BuildError::io("pthread_create", error))?;
        let shared = Shared::new(options, launch?, callbacks)?;
        let manager =
            manager::start(&shared).map_err(|error| BuildError::io("pthread_create", error))?;
        let pool = Pool::from_parts(shared, manager);
        let shared = &pool.shared;
        shared.wait_until(Wait::Forever, |core| {
            core.all_ready() || core.build_failure.is_some()
        });
        let failure = shared.with(|core| {
            core.built = true;
            core.build_failure.take()
        });
        match failure {
            None => Ok(pool),
            Some(failure) => {
                shared.end(&TaskError::Terminated);
                Err(failure)
            }
        }
    }
}

fn prepare<F, A>(function: F, arguments: A) -> Result<Launch, BuildError>
where
    F: Target<A> + Send + Sync,
    F::Output: Initialized,
    A: Serialize + DeserializeOwned + 'static,
{
    let refused = |reason: String| BuildError::Arguments { reason };
    let (arguments, descriptors) =
        task::encode(arguments).map_err(|error| refused(error.to_string()))?;
    if !descriptors.is_empty() {
        return Err(refused(
            "a channel end cannot go to several workers".to_owned(),
        ));
    }
    Ok(Box::new(move |options, end| {
        Process::new(Serve::new(function), (end, arguments.clone()))
            .name(&options.name)
            .start_method(options.start_method)
            .limits(options.limits)
            .daemon(true)
            .start()
    }))
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
