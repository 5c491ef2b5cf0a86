use std::hint::black_box;

use crate::failure::Outcome;
use crate::peer::Solo;
use crate::spec::Spec;
use crate::workload::{self, Run, SideReport};

/// A way to start a process that does nothing.
pub trait Starter: Sized + 'static {
    /// Makes ready what all starts share.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn new() -> Outcome<Self>;

    /// Starts one and waits until it has ended well.
    ///
    /// # Errors
    /// Whatever makes the row fail.
    fn start_and_join(&mut self) -> Outcome<()>;
}

/// A process that holds as much memory as the row says, every page of it touched, and starts
/// others.
#[derive(Debug)]
pub struct Starts<S> {
    memory: Vec<u8>,
    starter: S,
}

impl<S: Starter> Solo for Starts<S> {
    fn new(spec: &Spec) -> Outcome<Self> {
        // Not zeroed pages, which the kernel would lend untouched.
        let memory = vec![0xA5; spec.size];
        let starter = S::new()?;
        Ok(Self { memory, starter })
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        let report = workload::each(run, |_| self.starter.start_and_join());
        black_box(&self.memory);
        report
    }
}
