use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ipc_core::{Parts, Wait};

use super::job::{Job, Outcome, Outcomes, Wanted};
use super::shared::Shared;
use super::{Progress, TaskError};

/// The result of a task that may still be running, from
/// [`apply_async`](super::Pool::apply_async), or of many, from
/// [`map_async`](super::Pool::map_async).
///
/// It is a [`Future`] of no particular runtime. The result is decoded by the thread that asks
/// for it. Dropping the handle leaves the task alone and loses only the result.
#[must_use = "without the handle the result is lost"]
pub struct JobHandle<T, E = TaskError> {
    shared: Arc<Shared>,
    job: Arc<Job>,
    finish: fn(Outcomes) -> Result<T, E>,
}

impl<T, E> JobHandle<T, E> {
    pub(super) fn new(
        shared: &Arc<Shared>,
        job: Arc<Job>,
        finish: fn(Outcomes) -> Result<T, E>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            job,
            finish,
        }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// Why there is none.
    pub fn get(self) -> Result<T, E> {
        let outcomes = if !self.shared.is_own() {
            forked()
        } else if self.job.batch || self.job.is_done() {
            self.shared.wait_for(&self.job, Wanted::All, Wait::Forever);
            self.job.take_all()
        } else {
            single(self.shared.finish(&self.job))
        };
        (self.finish)(outcomes)
    }

    /// Waits for the result, at most this long.
    ///
    /// # Errors
    /// The handle itself if the time is over first.
    pub fn get_timeout(self, timeout: Duration) -> Result<Result<T, E>, Self> {
        let wait = Wait::at_most(timeout);
        let done = !self.shared.is_own() || self.shared.wait_for(&self.job, Wanted::All, wait);
        if done { Ok(self.get()) } else { Err(self) }
    }

    /// Whether the result is there.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.shared.is_own() || self.job.is_done()
    }

    /// How much of it has ended.
    #[must_use]
    pub fn progress(&self) -> Progress {
        if !self.shared.is_own() {
            return Progress::default();
        }
        let (completed, total) = self.job.progress();
        Progress {
            completed: completed as u64,
            total: total as u64,
        }
    }

    /// Ends it: what has not begun never will, and a worker that runs a part of it is ended as by
    /// a deadline and replaced. What was not ready by now has [`TaskError::Cancelled`] for a
    /// result. Returns at once.
    pub fn cancel(&self) {
        if self.shared.is_own() {
            self.shared.with(|core| core.cancel(&self.job, true));
        }
    }

    /// Has `callback` called with the result, on the pool's thread for callbacks: one after the
    /// other in the order in which results come, so a slow one holds up the others and nothing
    /// else. A panic in it is caught. It may use the pool, and end it.
    pub fn then(self, callback: impl FnOnce(Result<T, E>) + Send + 'static)
    where
        T: 'static,
        E: 'static,
    {
        let finish = self.finish;
        let callback = Box::new(move |outcomes| callback(finish(outcomes)));
        if self.shared.is_own() {
            self.shared
                .with_job(|effects| self.job.then(callback, effects));
        }
    }
}

fn single(result: Result<Parts, TaskError>) -> Outcomes {
    Outcomes::from([(0, Outcome { count: 1, result })])
}

fn forked() -> Outcomes {
    single(Err(TaskError::Forked))
}

/// The result is given once: polling it again, or [`get`](JobHandle::get), after it was ready
/// gives [`TaskError::Cancelled`].
impl<T, E> Future for JobHandle<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.shared.is_own() {
            return Poll::Ready((self.finish)(forked()));
        }
        self.job.poll(context).map(self.finish)
    }
}

impl<T, E> fmt::Debug for JobHandle<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}
