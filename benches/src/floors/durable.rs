use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::channel::BATCH_MESSAGES;
use crate::clock;
use crate::failure::Outcome;
use crate::floors::file::nameless;
use crate::peer::Solo;
use crate::spec::Spec;
use crate::workload::{Run, SideReport};

/// One `write(2)` that appends the messages' bytes to a file, and one `fdatasync(2)`: what the disk
/// takes to make them durable. Nobody reads them. With `BATCH` as many messages at a time as a sender
/// of a channel is offered.
#[derive(Debug)]
pub(crate) struct Synced<const BATCH: bool> {
    file: OwnedFd,
    bytes: Vec<u8>,
    size: usize,
}

impl<const BATCH: bool> Solo for Synced<BATCH> {
    fn new(spec: &Spec) -> Outcome<Self> {
        let messages = if BATCH { BATCH_MESSAGES } else { 1 };
        Ok(Self {
            file: nameless(OFlags::APPEND)?,
            bytes: vec![0xA5; messages * spec.size],
            size: spec.size,
        })
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        let cpu = clock::process_cpu_ns();
        let start_ns = clock::monotonic_ns();
        let mut left = usize::try_from(run.messages)? * self.size;
        while left > 0 {
            let bytes = left.min(self.bytes.len());
            left -= rustix::io::write(&self.file, &self.bytes[..bytes])?;
            rustix::fs::fdatasync(&self.file)?;
        }
        let report = SideReport {
            start_ns,
            end_ns: clock::monotonic_ns(),
            cpu_ns: clock::process_cpu_ns() - cpu,
            histogram: Vec::new(),
        };
        rustix::fs::ftruncate(&self.file, 0)?;
        Ok(report)
    }
}
