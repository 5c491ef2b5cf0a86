use std::hint::black_box;

use crate::clock;
use crate::failure::Outcome;
use crate::floors::memory::{Region, anonymous};
use crate::peer::Solo;
use crate::spec::Spec;
use crate::workload::{Run, SideReport};

/// Two `memcpy` a message, in and out, through as much memory as the channels have: the bandwidth
/// of one core, in one process.
#[derive(Debug)]
pub(crate) struct Copy {
    region: Region,
    message: Vec<u8>,
    buffer: Vec<u8>,
    offset: usize,
}

impl Solo for Copy {
    fn new(spec: &Spec) -> Outcome<Self> {
        let region = Region::map(anonymous(spec.capacity())?)?;
        let (message, buffer) = (vec![0xA5; spec.size], vec![0; spec.size]);
        Ok(Self {
            region,
            message,
            buffer,
            offset: 0,
        })
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        let cpu = clock::process_cpu_ns();
        let start_ns = clock::monotonic_ns();
        for _ in 0..run.messages {
            if self.offset + self.message.len() > self.region.len() {
                self.offset = 0;
            }
            self.region.write(self.offset, black_box(&self.message));
            self.region.read(self.offset, &mut self.buffer);
            black_box(&self.buffer);
            self.offset += self.message.len();
        }
        let end_ns = clock::monotonic_ns();
        let cpu_ns = clock::process_cpu_ns() - cpu;
        Ok(SideReport {
            start_ns,
            end_ns,
            cpu_ns,
            histogram: Vec::new(),
        })
    }
}
