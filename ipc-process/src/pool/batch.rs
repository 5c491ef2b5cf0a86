use std::fmt;
use std::sync::Arc;

use ipc_core::Wait;
use ipc_core::handoff::gather;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::chunk::{Chunk, Failure, Items, Mapped, Results};
use super::job::{Job, Outcome, Outcomes, Wanted};
use super::shared::Shared;
use super::task::Task;
use super::{Imap, JobHandle, MapError, Pool, TaskError, codec, read};
use crate::Target;
use crate::spawn::trampoline::place_of;

/// A chunk is not made longer than this, whatever the number of its items: a message of this length
/// costs what copying it does, and its memfd serves again.
const LONG: usize = 1 << 20;

/// So many tasks, or so many bytes of them, are submitted together, so that workers begin while
/// the next are being encoded.
const TASKS_TOGETHER: usize = 64;
const BYTES_TOGETHER: usize = 64 * 1024;

/// So many bytes of arguments a call that waits for its results keeps ahead of the workers: what a
/// processor's cache holds, since memory that has left it takes as long to fetch as to copy.
const BYTES_AHEAD: usize = 4 << 20;

/// How many items travel together, and how many are under way: settings for the calls of a pool
/// that take many items, from [`Pool::batch`].
#[derive(Clone, Copy)]
pub struct Batch<'p> {
    pool: &'p Pool,
    chunk: Option<usize>,
    window: Option<usize>,
}

impl<'p> Batch<'p> {
    pub(super) fn new(pool: &'p Pool) -> Self {
        Self {
            pool,
            chunk: None,
            window: None,
        }
    }

    /// How many items one message carries. More of them cost less each; fewer spread better over
    /// the workers, and are lost together when a worker ends. Default: for `map` and `starmap`
    /// such that each worker gets about four chunks, for `imap` one.
    #[must_use]
    pub fn chunk_size(self, items: usize) -> Self {
        let chunk = Some(items.clamp(1, u32::MAX as usize));
        Self { chunk, ..self }
    }

    /// For `imap`: how many items may be taken from the iterator before their results are
    /// fetched. Default: 64 for each worker, and at least two chunks for each.
    #[must_use]
    pub fn window(self, items: usize) -> Self {
        let window = Some(items.max(1));
        Self { window, ..self }
    }

    /// As [`Pool::map`].
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn map<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<F::Output>, MapError>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.starmap(function, items.into_iter().map(|item| (item,)))
    }

    /// As [`Pool::starmap`].
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn starmap<F, T>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<F::Output>, MapError>
    where
        F: Target<T>,
        T: Serialize + DeserializeOwned + 'static,
    {
        self.submit(function, items, true).get()
    }

    /// As [`Pool::map_async`].
    pub fn map_async<F, A>(
        &self,
        function: F,
        items: impl IntoIterator<Item = A>,
    ) -> JobHandle<Vec<F::Output>, MapError>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.starmap_async(function, items.into_iter().map(|item| (item,)))
    }

    /// As [`Pool::map_async`], with tuples of arguments.
    pub fn starmap_async<F, T>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> JobHandle<Vec<F::Output>, MapError>
    where
        F: Target<T>,
        T: Serialize + DeserializeOwned + 'static,
    {
        self.submit(function, items, false)
    }

    /// With `may_wait`, long items are taken no faster than workers take them.
    fn submit<F, T>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
        may_wait: bool,
    ) -> JobHandle<Vec<F::Output>, MapError>
    where
        F: Target<T>,
        T: Serialize + DeserializeOwned + 'static,
    {
        let shared = &self.pool.shared;
        let mut submission = Submission::new(shared, function);
        submission.may_wait = may_wait;
        if shared.is_own() {
            let items = items.into_iter();
            match (self.chunk, items.size_hint()) {
                (Some(chunk), _) => submission.submit_all(items, chunk),
                (None, (least, Some(most))) if least == most => {
                    submission.submit_all(items, self.default_chunk(least));
                }
                (None, _) => {
                    let items: Vec<T> = items.collect();
                    let chunk = self.default_chunk(items.len());
                    submission.submit_all(items.into_iter(), chunk);
                }
            }
            shared.with(|core| submission.job.seal(&mut core.effects.jobs));
        }
        JobHandle::new(shared, submission.job, collect::<F::Output>)
    }

    fn default_chunk(&self, items: usize) -> usize {
        let chunks = 4 * self.pool.processes();
        items.div_ceil(chunks).clamp(1, u32::MAX as usize)
    }

    /// As [`Pool::imap`].
    pub fn imap<F, A, I>(&self, function: F, items: I) -> Imap<'p, F, A, I::IntoIter>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = A>,
    {
        self.start_imap(function, items, true)
    }

    /// As [`Pool::imap_unordered`].
    pub fn imap_unordered<F, A, I>(&self, function: F, items: I) -> Imap<'p, F, A, I::IntoIter>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = A>,
    {
        self.start_imap(function, items, false)
    }

    fn start_imap<F, A, I>(&self, function: F, items: I, order: bool) -> Imap<'p, F, A, I::IntoIter>
    where
        F: Target<(A,)>,
        A: Serialize + DeserializeOwned + 'static,
        I: IntoIterator<Item = A>,
    {
        let chunk = self.chunk.unwrap_or(1);
        let processes = self.pool.processes();
        let default = (64 * processes).max(chunk.saturating_mul(2 * processes));
        let window = self.window.unwrap_or(default);
        let submission = Submission::new(&self.pool.shared, function);
        Imap::new(
            self.pool,
            submission,
            items.into_iter(),
            chunk,
            window,
            order,
        )
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("chunk_size", &self.chunk)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// Items on their way into the tasks of one job.
pub(super) struct Submission {
    shared: Arc<Shared>,
    pub(super) job: Arc<Job>,
    /// `None`: the function is not in the main program.
    place: Option<u64>,
    /// The index of the next item.
    next: usize,
    /// Bytes of arguments submitted so far.
    bytes: usize,
    /// Whether [`submit_all`](Self::submit_all) may wait for workers.
    may_wait: bool,
}

impl Submission {
    pub(super) fn new<F, T>(shared: &Arc<Shared>, function: F) -> Self
    where
        F: Target<T>,
        T: DeserializeOwned + 'static,
    {
        Self {
            shared: Arc::clone(shared),
            job: Job::new(true),
            place: place_of::<Mapped<F, T>, (Items<T>,)>(Mapped::new(function)),
            next: 0,
            bytes: 0,
            may_wait: false,
        }
    }

    /// How many items have been submitted.
    pub(super) fn len(&self) -> usize {
        self.next
    }

    fn submit_all<T: Serialize + 'static>(
        &mut self,
        mut items: impl Iterator<Item = T>,
        chunk: usize,
    ) {
        while self.submit_some(&mut items, chunk, chunk.saturating_mul(TASKS_TOGETHER)) {
            if self.may_wait && self.bytes > BYTES_AHEAD {
                let item = self.bytes.div_ceil(self.next.max(1));
                // One that each worker has, and one that follows.
                let least = 2 * self.shared.options.processes * chunk.min(LONG.div_ceil(item));
                if let Some(ended) = self.next.checked_sub(least.max(BYTES_AHEAD / item)) {
                    let wanted = Wanted::Ended(ended);
                    self.shared.wait_for(&self.job, wanted, Wait::Forever);
                }
            }
        }
    }

    /// Submits up to `most` items in chunks; false when there are no more.
    pub(super) fn submit_some<T: Serialize + 'static>(
        &mut self,
        items: &mut impl Iterator<Item = T>,
        chunk: usize,
        most: usize,
    ) -> bool {
        // Kept only at the end: should an iterator panic, or an item when it is written, nothing is
        // waited for that was not submitted.
        let (first, mut next, mut long) = (self.next, self.next, 0);
        let (mut tasks, mut refused) = (Vec::new(), Vec::new());
        let mut more = true;
        while more && next - first < most && long < BYTES_TOGETHER {
            let begin = next;
            let mut bytes = Chunk::new(self.shared.options.retry.on_lost > 0);
            let ((), descriptors) = gather(|| {
                while next - begin < chunk && next - first < most {
                    let Some(item) = items.next() else {
                        more = false;
                        return;
                    };
                    next += 1;
                    if let Err(error) = bytes.push(&item) {
                        refused.push((next - 1, codec::argument_error(&error)));
                        return;
                    }
                    if bytes.len() >= LONG {
                        return;
                    }
                }
            });
            long += bytes.len();
            let count = bytes.count();
            if count == 0 {
                continue;
            }
            match self.place {
                Some(place) => {
                    let (bytes, ends) = bytes.finish();
                    let mut task = Task::new(&self.job, begin, count, place, bytes, descriptors);
                    task.ends = ends;
                    tasks.push(task);
                }
                None => {
                    refused
                        .extend((begin..begin + count).map(|i| (i, TaskError::NotInMainProgram)));
                }
            }
        }
        let count = next - first;
        self.next = next;
        self.bytes += long;
        self.job.expect(count);
        self.shared.count(count);
        self.shared.with(|core| {
            for (index, error) in refused {
                let outcome = Outcome {
                    count: 1,
                    result: Err(error),
                };
                self.job.resolve(index, outcome, &mut core.effects.jobs);
            }
            core.submit(tasks);
        });
        more
    }

    /// Waits for the next outcome: the one that begins with this item, or any.
    pub(super) fn next_outcome(&self, wanted: Wanted) -> Outcome {
        self.shared.wait_for(&self.job, wanted, Wait::Forever);
        match self.job.take(wanted) {
            Some((_, outcome)) => outcome,
            None => unreachable!("it is there, and nobody else takes it"),
        }
    }

    /// What has not begun never will; results of the rest are of no interest.
    pub(super) fn abandon(&self) {
        if self.shared.is_own() {
            self.shared.with(|core| core.cancel(&self.job, false));
        }
    }
}

/// Puts the results of all items into one vector, or says which is the first that has none.
fn collect<R: DeserializeOwned + 'static>(outcomes: Outcomes) -> Result<Vec<R>, MapError> {
    let len = outcomes.values().map(|outcome| outcome.count).sum();
    let mut all = Vec::with_capacity(len);
    for (first, outcome) in outcomes {
        let failed = |offset: usize, error| MapError {
            index: first + offset,
            error,
        };
        let count = outcome.count;
        let parts = outcome.result.map_err(|error| failed(0, error))?;
        let results: Results<R> = read(parts).map_err(|error| failed(0, error))?;
        if results.is_plain(count) {
            all.extend(results.values);
        } else {
            for (offset, result) in results.into_items(count).enumerate() {
                all.push(result.map_err(|error| failed(offset, error))?);
            }
        }
    }
    Ok(all)
}

impl<R> Results<R> {
    /// Whether each of so many items has a result.
    fn is_plain(&self, count: usize) -> bool {
        self.failures.is_empty() && self.broken_off.is_none() && self.values.len() == count
    }

    /// A result or an error for each of so many items.
    pub(super) fn into_items(self, count: usize) -> impl Iterator<Item = Result<R, TaskError>> {
        let mut values = self.values.into_iter();
        let mut failures = self.failures.into_iter().peekable();
        let broken_off = self
            .broken_off
            .unwrap_or_else(|| "there are too few results".to_owned());
        (0..count).map(move |index| {
            if let Some((_, failure)) = failures.next_if(|(failed, _)| *failed == index) {
                return Err(match failure {
                    Failure::Panicked(panic) => TaskError::Panicked(panic),
                    Failure::Encode(reason) => TaskError::Encode {
                        reason: format!("the result: {reason}"),
                    },
                });
            }
            values.next().ok_or_else(|| TaskError::Decode {
                reason: format!("the result: {broken_off}"),
            })
        })
    }
}
