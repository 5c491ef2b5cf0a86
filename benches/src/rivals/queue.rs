use posixmq::PosixMq;

use crate::control::Bundle;
use crate::failure::Outcome;
use crate::floors::bytes::ends;
use crate::floors::queue::{DEPTH, open_queues};
use crate::floors::sys;
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// The `posixmq` crate, `send` and `recv`.
#[derive(Debug)]
pub(crate) struct CrateQueues {
    input: PosixMq,
    output: PosixMq,
}

impl Port for CrateQueues {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.send(0, message)?)
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        Ok(self.input.recv(buffer)?.1)
    }
}

#[derive(Debug)]
pub(crate) struct CrateQueueLink;

impl Link for CrateQueueLink {
    type Port = CrateQueues;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        open_queues(spec)
    }

    fn port(_spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        Ok(CrateQueues {
            input: sys::adopt_queue(input),
            output: sys::adopt_queue(output),
        })
    }

    fn depth(_spec: &Spec) -> Option<u64> {
        Some(DEPTH as u64)
    }
}
