use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::failure::{Failure, Outcome};
use crate::peer::Solo;
use crate::placement::pin;
use crate::spec::{Side, Spec, Workload};
use crate::workload::{self, Port, Run, SideReport};

/// Two threads of one process and `crossbeam-channel`: what leaving processes out would save.
#[derive(Debug)]
pub(crate) struct Threads {
    spec: Spec,
}

/// Messages that a channel holds, as in the crate's own examples of bounded channels.
const DEPTH: usize = 1024;

fn depth(spec: &Spec) -> usize {
    DEPTH.min(spec.depth())
}

struct End {
    input: Receiver<Vec<u8>>,
    output: Sender<Vec<u8>>,
}

impl Port for End {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.send(message.to_vec())?)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let message = self.input.recv()?;
        buffer[..message.len()].copy_from_slice(&message);
        Ok(message.len())
    }
}

impl Solo for Threads {
    fn new(spec: &Spec) -> Outcome<Self> {
        Ok(Self { spec: spec.clone() })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        u64::try_from(depth(spec)).ok()
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        let spec = &self.spec;
        let depth = depth(spec);
        let (there_tx, there_rx) = bounded(depth);
        let (back_tx, back_rx) = bounded(depth);
        let mut near = End {
            input: back_rx,
            output: there_tx,
        };
        let mut far = End {
            input: there_rx,
            output: back_tx,
        };
        thread::scope(|scope| {
            let responder = scope.spawn(move || {
                if let Some(cpu) = spec.placement.processor(Side::Responder)? {
                    pin(cpu)?;
                }
                workload::run(&mut far, spec, Side::Responder, run)
            });
            let mut report = workload::run(&mut near, spec, Side::Initiator, run)?;
            let responder = responder
                .join()
                .map_err(|_| Failure::Failed("the responding thread panicked".into()))??;
            if spec.workload == Workload::Throughput {
                report.end_ns = responder.end_ns;
            }
            // Processor time is counted for the whole process, on the side that ran longer.
            report.cpu_ns = report.cpu_ns.max(responder.cpu_ns);
            Ok(report)
        })
    }
}
