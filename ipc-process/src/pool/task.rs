//! One message to a worker: a function, its arguments, and where the outcome goes. A task is in
//! one place at a time, the queue or the hands of a worker, and ends when it is taken out of it:
//! so it ends exactly once.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipc_core::Parts;
use ipc_core::handoff::gather;
use serde::Serialize;

use super::job::{Effects, Job, Outcome};
use super::{TaskError, chunk, codec};
use crate::bytes;

pub(super) struct Task {
    pub(super) job: Arc<Job>,
    /// The first of its items, and how many there are.
    pub(super) first: usize,
    pub(super) count: usize,
    /// The place of the function's trampoline.
    pub(super) place: u64,
    pub(super) arguments: Vec<u8>,
    /// They leave with the first attempt, so that a peer learns of the death of a worker.
    pub(super) descriptors: Vec<OwnedFd>,
    /// It had descriptors: it can be sent but once.
    pub(super) once: bool,
    /// If it may be taken apart: where each item of the arguments ends.
    pub(super) ends: Option<Vec<usize>>,
    /// How many workers it has cost.
    pub(super) attempts: u32,
}

impl Task {
    pub(super) fn new(
        job: &Arc<Job>,
        first: usize,
        count: usize,
        place: u64,
        arguments: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Self {
        Self {
            job: Arc::clone(job),
            first,
            count,
            place,
            arguments,
            once: !descriptors.is_empty(),
            descriptors,
            ends: None,
            attempts: 0,
        }
    }

    pub(super) fn resolve(self, result: Result<Parts, TaskError>, effects: &mut Effects) {
        let outcome = Outcome {
            count: self.count,
            result,
        };
        self.job.resolve(self.first, outcome, effects);
    }

    /// The same as tasks of one item each, if it is more than one and can be taken apart.
    pub(super) fn split(self) -> Vec<Self> {
        let Some(ends) = self.ends.as_ref().filter(|_| self.count > 1 && !self.once) else {
            return vec![self];
        };
        (self.first..)
            .zip(chunk::singles(&self.arguments, ends))
            .map(|(first, single)| {
                let mut task = Self::new(&self.job, first, 1, self.place, single, Vec::new());
                task.attempts = self.attempts;
                task
            })
            .collect()
    }
}

/// Encodes the arguments of a task.
pub(super) fn encode<A: Serialize + 'static>(
    arguments: A,
) -> Result<(Vec<u8>, Vec<OwnedFd>), TaskError> {
    let arguments = match bytes::into_run(arguments) {
        Ok(run) => return codec::run(run).map(|bytes| (bytes, Vec::new())),
        Err(arguments) => arguments,
    };
    let mut bytes = Vec::new();
    let (written, descriptors) = gather(|| codec::append(&mut bytes, &arguments));
    match written {
        Ok(()) => Ok((bytes, descriptors)),
        Err(error) => Err(codec::argument_error(&error)),
    }
}
