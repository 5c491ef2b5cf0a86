use std::hint::spin_loop;
use std::thread;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use crate::failure::{Failure, Outcome};
use crate::peer::Solo;
use crate::placement::pin;
use crate::spec::{Side, Spec, Workload};
use crate::workload::{self, Port, Run, SideReport};

/// Two threads of one process and `crossbeam-channel`: what leaving processes out would save. With
/// `POLL` neither thread ever sleeps.
#[derive(Debug)]
pub(crate) struct Threads<const POLL: bool> {
    spec: Spec,
}

/// Messages that a channel holds, as in the crate's own examples of bounded channels.
const DEPTH: usize = 1024;

fn depth(spec: &Spec) -> usize {
    DEPTH.min(spec.depth())
}

/// A message as a program would pass it between threads: short ones by value.
trait Message: Send {
    fn new(bytes: &[u8]) -> Self;
    fn bytes(&self) -> &[u8];
}

impl<const N: usize> Message for [u8; N] {
    fn new(bytes: &[u8]) -> Self {
        let mut message = [0; N];
        message.copy_from_slice(bytes);
        message
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Message for Vec<u8> {
    fn new(bytes: &[u8]) -> Self {
        bytes.to_vec()
    }

    fn bytes(&self) -> &[u8] {
        self
    }
}

struct End<M, const POLL: bool> {
    input: Receiver<M>,
    output: Sender<M>,
}

impl<M: Message, const POLL: bool> Port for End<M, POLL> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        let gone = || Failure::Failed("the receiving thread is gone".into());
        let mut message = M::new(message);
        if !POLL {
            return self.output.send(message).map_err(|_| gone());
        }
        loop {
            match self.output.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_)) => return Err(gone()),
            }
            spin_loop();
        }
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let message = if POLL {
            loop {
                match self.input.try_recv() {
                    Err(TryRecvError::Empty) => spin_loop(),
                    received => break received?,
                }
            }
        } else {
            self.input.recv()?
        };
        let bytes = message.bytes();
        buffer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl<const POLL: bool> Solo for Threads<POLL> {
    fn new(spec: &Spec) -> Outcome<Self> {
        Ok(Self { spec: spec.clone() })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        u64::try_from(depth(spec)).ok()
    }

    fn run(&mut self, run: Run) -> Outcome<SideReport> {
        match self.spec.size {
            8 => between_threads::<[u8; 8], POLL>(&self.spec, run),
            64 => between_threads::<[u8; 64], POLL>(&self.spec, run),
            _ => between_threads::<Vec<u8>, POLL>(&self.spec, run),
        }
    }
}

fn between_threads<M: Message, const POLL: bool>(spec: &Spec, run: Run) -> Outcome<SideReport> {
    let depth = depth(spec);
    let (there_tx, there_rx) = bounded::<M>(depth);
    let (back_tx, back_rx) = bounded::<M>(depth);
    let mut near = End::<M, POLL> {
        input: back_rx,
        output: there_tx,
    };
    let mut far = End::<M, POLL> {
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
