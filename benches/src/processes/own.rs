//! The rows of `ipc-process`.

use ipc_process::{Pool, Process, StartMethod};

use crate::failure::Outcome;
use crate::processes::starts::Starter;
use crate::processes::tasks::{Tasks, WORKERS, task};

/// `Process::start` and `join` of a function that does nothing: by this program, executed anew, or
/// with `ZYGOTE` by a fork of a process that waits for that.
#[derive(Debug)]
pub(crate) struct Own<const ZYGOTE: bool>;

fn nothing() {}

impl<const ZYGOTE: bool> Starter for Own<ZYGOTE> {
    fn new() -> Outcome<Self> {
        let mut own = Self;
        // The first start makes the zygote.
        own.start_and_join()?;
        Ok(own)
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        let method = if ZYGOTE {
            StartMethod::Zygote
        } else {
            StartMethod::Spawn
        };
        let process = Process::new(nothing, ()).start_method(method);
        Ok(process.start()?.join()?)
    }
}

/// `Pool::apply` and `Pool::map`, which chooses how many tasks go into a message or, with
/// `SINGLY`, puts one into each. Each task gets an argument of its own, copied while the clock runs.
#[derive(Debug)]
pub(crate) struct OwnPool<const SINGLY: bool>(Pool);

impl<const SINGLY: bool> Tasks for OwnPool<SINGLY> {
    fn new() -> Outcome<Self> {
        Ok(Self(Pool::new(WORKERS)?))
    }

    fn one(&mut self, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        let argument = argument.to_vec();
        Ok(match task_ns {
            0 => self.0.apply(empty, (argument,))?,
            _ => self.0.apply(busy, (argument, task_ns))?,
        })
    }

    fn all(&mut self, tasks: usize, argument: &[u8], task_ns: u64) -> Outcome<usize> {
        let batch = if SINGLY {
            self.0.batch().chunk_size(1)
        } else {
            self.0.batch()
        };
        let arguments = (0..tasks).map(|_| argument.to_vec());
        let returned = match task_ns {
            0 => batch.map(empty, arguments)?,
            _ => batch.starmap(busy, arguments.map(|argument| (argument, task_ns)))?,
        };
        Ok(returned.into_iter().sum())
    }
}

/// An empty task: bytes that are the only argument travel as they are.
fn empty(argument: Vec<u8>) -> usize {
    task(&argument, 0)
}

fn busy(argument: Vec<u8>, task_ns: u64) -> usize {
    task(&argument, task_ns)
}
