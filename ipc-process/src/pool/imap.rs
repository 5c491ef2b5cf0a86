use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch::Submission;
use super::chunk::Results;
use super::job::{Outcome, Wanted};
use super::{Pool, Progress, TaskError, read};
use crate::Target;

/// The results of many tasks as they come, from [`imap`](Pool::imap) and
/// [`imap_unordered`](Pool::imap_unordered).
///
/// It takes items from its iterator in the thread that asks it for results, no more of them than
/// its window ahead of those: whoever is slow to fetch holds nothing but that in memory. When it
/// is dropped, tasks that have not begun never will.
#[must_use = "dropping it cancels what has not begun; iterate over it for the results"]
pub struct Imap<'p, F: Target<(A,)>, A, I> {
    pool: &'p Pool,
    submission: Submission,
    items: I,
    /// No more items will come.
    exhausted: bool,
    chunk: usize,
    window: usize,
    order: bool,
    /// Items whose outcome has been taken out of the job: the index of the next, in order.
    taken: usize,
    ready: VecDeque<Result<F::Output, TaskError>>,
    argument: PhantomData<fn(A)>,
}

impl<'p, F, A, I> Imap<'p, F, A, I>
where
    F: Target<(A,)>,
    A: Serialize + DeserializeOwned + 'static,
    I: Iterator<Item = A>,
{
    pub(super) fn new(
        pool: &'p Pool,
        submission: Submission,
        items: I,
        chunk: usize,
        window: usize,
        order: bool,
    ) -> Self {
        let mut imap = Self {
            pool,
            submission,
            items,
            exhausted: false,
            chunk: chunk.min(window),
            window,
            order,
            taken: 0,
            ready: VecDeque::new(),
            argument: PhantomData,
        };
        if pool.shared.is_own() {
            imap.fill();
        }
        imap
    }

    /// Submits what the window admits, once it is half empty.
    fn fill(&mut self) {
        let fetched = self.taken - self.ready.len();
        let under_way = self.submission.len() - fetched;
        let room = self.window.saturating_sub(under_way);
        if !self.exhausted && room >= self.window.div_ceil(2).max(self.chunk).min(self.window) {
            let mut items = (&mut self.items).map(|item| (item,));
            self.exhausted = !self.submission.submit_some(&mut items, self.chunk, room);
        }
    }

    fn take(&mut self, outcome: Outcome) {
        self.taken += outcome.count;
        match outcome.result.and_then(read::<Results<F::Output>>) {
            Ok(results) => self.ready.extend(results.into_items(outcome.count)),
            Err(error) => self
                .ready
                .extend(std::iter::repeat_n(error, outcome.count).map(Err)),
        }
    }
}

impl<F: Target<(A,)>, A, I> Imap<'_, F, A, I> {
    /// How many of the items taken so far have ended.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (completed, total) = self.submission.job.progress();
        Progress {
            completed: completed as u64,
            total: total as u64,
        }
    }
}

impl<F, A, I> Iterator for Imap<'_, F, A, I>
where
    F: Target<(A,)>,
    A: Serialize + DeserializeOwned + 'static,
    I: Iterator<Item = A>,
{
    type Item = Result<F::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.pool.shared.is_own() {
            let first = !self.exhausted;
            self.exhausted = true;
            return first.then_some(Err(TaskError::Forked));
        }
        loop {
            if let Some(result) = self.ready.pop_front() {
                self.fill();
                return Some(result);
            }
            self.fill();
            if self.taken < self.submission.len() {
                let wanted = match self.order {
                    true => Wanted::At(self.taken),
                    false => Wanted::Any,
                };
                let outcome = self.submission.next_outcome(wanted);
                self.take(outcome);
            } else if self.exhausted {
                return None;
            }
        }
    }
}

impl<F: Target<(A,)>, A, I> Drop for Imap<'_, F, A, I> {
    fn drop(&mut self) {
        self.submission.abandon();
    }
}

impl<F: Target<(A,)>, A, I> fmt::Debug for Imap<'_, F, A, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("progress", &self.progress())
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
