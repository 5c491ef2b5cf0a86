//! The rows of `ipc-process`.

use ipc_process::Process;

use crate::failure::Outcome;
use crate::processes::starts::Starter;

/// `Process::start` and `join` of a function that does nothing: this program, executed anew.
#[derive(Debug)]
pub(crate) struct Spawn;

fn nothing() {}

impl Starter for Spawn {
    fn new() -> Outcome<Self> {
        Ok(Self)
    }

    fn start_and_join(&mut self) -> Outcome<()> {
        Ok(Process::new(nothing, ()).start()?.join()?)
    }
}
