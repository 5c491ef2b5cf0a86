use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::failure::Outcome;
use crate::processes::tasks::{Tasks, WORKERS, task};

/// `rayon`: what leaving processes out saves. Its threads see the argument where it lies.
#[derive(Debug)]
pub(crate) struct Rayon(rayon::ThreadPool);

impl Tasks for Rayon {
    fn new() -> Outcome<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(WORKERS);
        Ok(Self(pool.build()?))
    }

    fn one(&mut self, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        Ok(self.0.install(|| task(argument, task_ns)))
    }

    fn all(&mut self, tasks: usize, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        Ok(self.0.install(|| {
            let tasks = (0..tasks).into_par_iter();
            tasks.map(|_| task(argument, task_ns)).sum()
        }))
    }
}
