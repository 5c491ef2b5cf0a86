use ipc_benches::{Outcome, Starter, Tasks, WORKERS, task};
use procspawn::Pool;

/// `procspawn::spawn` and `join`: this program, executed anew.
#[derive(Debug)]
pub(crate) struct ProcSpawn;

impl Starter for ProcSpawn {
    fn new() -> Outcome<Self> {
        Ok(Self)
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        Ok(procspawn::spawn((), |()| ()).join()?)
    }
}

/// `procspawn::Pool`.
#[derive(Debug)]
pub(crate) struct ProcSpawnPool(Pool);

fn run((argument, task_ns): (Vec<u8>, u64)) -> usize {
    task(&argument, task_ns)
}

impl Tasks for ProcSpawnPool {
    fn new() -> Outcome<Self> {
        Ok(Self(Pool::new(WORKERS)?))
    }

    fn one(&mut self, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        Ok(self.0.spawn((argument.to_vec(), task_ns), run).join()?)
    }

    fn all(&mut self, tasks: usize, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        let handles: Vec<_> = (0..tasks)
            .map(|_| self.0.spawn((argument.to_vec(), task_ns), run))
            .collect();
        let mut sum = 0;
        for handle in handles {
            sum += handle.join()?;
        }
        Ok(sum)
    }
}
