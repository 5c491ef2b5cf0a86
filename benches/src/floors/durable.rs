use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::channel::{BATCH_MESSAGES, DURABLE_CAPACITY};
use crate::clock;
use crate::failure::Outcome;
use crate::floors::file::nameless;
use crate::peer::Solo;
use crate::spec::Spec;
use crate::workload::{Run, SideReport};

/// One `pwrite(2)` of the messages' bytes and one `fdatasync(2)`, in a file whose blocks are written
/// already, so that no sync has to record where they lie: what the disk takes to make them durable.
/// Nobody reads them. With `BATCH` as many messages at a time as a sender of a channel is offered.
#[derive(Debug)]
pub(crate) struct Synced<const BATCH: bool> {
    file: OwnedFd,
    bytes: Vec<u8>,
    size: usize,
    offset: usize,
}

impl<const BATCH: bool> Solo for Synced<BATCH> {
    fn new(spec: &Spec) -> Outcome<Self> {
        let file = nameless(OFlags::empty())?;
        rustix::io::pwrite(&file, &vec![0; DURABLE_CAPACITY], 0)?;
        rustix::fs::fsync(&file)?;
        let messages = if BATCH { BATCH_MESSAGES } else { 1 };
        Ok(Self {
            file,
            bytes: vec![0xA5; messages * spec.size],
            size: spec.size,
            offset: 0,
        })
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        let cpu = clock::process_cpu_ns();
        let start_ns = clock::monotonic_ns();
        let mut left = usize::try_from(run.messages)? * self.size;
        while left > 0 {
            let bytes = left.min(self.bytes.len());
            if self.offset + bytes > DURABLE_CAPACITY {
                self.offset = 0;
            }
            let written = rustix::io::pwrite(&self.file, &self.bytes[..bytes], self.offset as u64)?;
            rustix::fs::fdatasync(&self.file)?;
            self.offset += written;
            left -= written;
        }
        Ok(SideReport {
            start_ns,
            end_ns: clock::monotonic_ns(),
            cpu_ns: clock::process_cpu_ns() - cpu,
            histogram: Vec::new(),
        })
    }
}
