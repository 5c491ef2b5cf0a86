use std::hint::{black_box, spin_loop};

use crate::clock;
use crate::failure::{Failure, Outcome};
use crate::peer::Solo;
use crate::spec::{Spec, Workload};
use crate::workload::{self, Run, SideReport};

/// Processes of a pool: one for each of two cores.
pub const WORKERS: usize = 2;

/// A pool of [`WORKERS`] that runs [`task`].
pub trait Tasks: Sized + 'static {
    /// Starts the pool; every worker is ready afterwards.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn new() -> Outcome<Self>;

    /// Runs one task and gives what it returned.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn one(&mut self, argument: &[u8], task_ns: u64) -> Outcome<usize>;

    /// Runs this many tasks and gives the sum of what they returned.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn all(&mut self, tasks: usize, argument: &[u8], task_ns: u64) -> Outcome<usize>;
}

/// So many tasks one call of [`Tasks::all`] is given, the same for every pool: 10,000, or as many as
/// have 64 MiB of arguments.
pub(crate) fn tasks_in_a_call(size: usize) -> u64 {
    const MOST: usize = 10_000;
    const BYTES: usize = 64 << 20;
    (BYTES / size.max(1)).clamp(1, MOST) as u64
}

/// What a task does: it keeps a processor busy for a time, and tells how long its argument is.
#[must_use]
pub fn task(argument: &[u8], task_ns: u64) -> usize {
    if task_ns > 0 {
        let end = clock::monotonic_ns() + task_ns;
        while clock::monotonic_ns() < end {
            spin_loop();
        }
    }
    black_box(argument).len()
}

/// A process with a pool.
#[derive(Debug)]
pub struct Pools<T> {
    spec: Spec,
    argument: Vec<u8>,
    pool: T,
}

impl<T: Tasks> Solo for Pools<T> {
    fn new(spec: &Spec) -> Outcome<Self> {
        let pool = T::new()?;
        let argument = vec![0xA5; spec.size];
        let mut pools = Self {
            spec: spec.clone(),
            argument,
            pool,
        };
        // Whatever a first task brings about is not measured.
        pools.one()?;
        Ok(pools)
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        match self.spec.workload {
            Workload::Map => {
                let in_a_call = tasks_in_a_call(self.spec.size);
                // A call has no time of its own for each task.
                let calls = Run {
                    messages: run.messages.div_ceil(in_a_call),
                    sample: false,
                };
                workload::each(calls, |call| {
                    let left = run.messages - call * in_a_call;
                    let tasks = usize::try_from(left.min(in_a_call))?;
                    let sum = self.pool.all(tasks, &self.argument, self.spec.task_ns)?;
                    expect(sum, tasks * self.spec.size)
                })
            }
            _ => workload::each(run, |_| self.one()),
        }
    }
}

impl<T: Tasks> Pools<T> {
    fn one(&mut self) -> Outcome<()> {
        let returned = self.pool.one(&self.argument, self.spec.task_ns)?;
        expect(returned, self.spec.size)
    }
}

fn expect(returned: usize, expected: usize) -> Outcome<()> {
    if returned == expected {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "tasks returned {returned} instead of {expected}"
        )))
    }
}
