//! The rows of `ipc-process`.

use ipc_process::{Process, StartMethod};

use crate::failure::Outcome;
use crate::processes::starts::Starter;

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
