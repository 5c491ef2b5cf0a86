use ipc_core::{Handoff, RecvError, Sender as _, Wait};
use ipc_shm::SharedMemory;

use crate::channel::{self, pair, receiving, sending};
use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::parcel::{pack, unpack};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// `ipc-shm` without a copy: messages are written and read where they lie in the ring.
///
/// What a program would do with the bytes is not measured. Both ends touch the first and the last
/// word of each message and check both, so that a message which is not there from end to end fails
/// the row; this is the same work whatever the size.
#[derive(Debug)]
pub(crate) struct LoanLink;

#[derive(Debug)]
pub(crate) struct Loans {
    sender: ipc_shm::Sender,
    receiver: ipc_shm::Receiver,
    size: usize,
}

const WORD: usize = 8;

impl Link for LoanLink {
    type Port = Loans;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (there_tx, there_rx) = pair::<SharedMemory>(spec)?;
        let (back_tx, back_rx) = pair::<SharedMemory>(spec)?;
        let max = there_tx.limits().max_message;
        if spec.size > max {
            return Err(Failure::limit(max));
        }
        Ok([
            pack(there_tx.into_parts()?, back_rx.into_parts()?),
            pack(back_tx.into_parts()?, there_rx.into_parts()?),
        ])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [sender, receiver] = unpack(bundle)?;
        Ok(Loans {
            sender: Handoff::from_parts(sender)?,
            receiver: Handoff::from_parts(receiver)?,
            size: spec.size,
        })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        channel::depth::<SharedMemory>(spec)
    }
}

impl Port for Loans {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        let number = &message[..WORD];
        let mut loan = self
            .sender
            .loan(self.size, Wait::Forever)
            .map_err(sending)?;
        loan.write(0, number);
        loan.write(self.size - WORD, number);
        loan.commit();
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let message = self.receiver.borrow(Wait::Forever).map_err(receiving)?;
        let len = message.len();
        if len > buffer.len() || len < WORD {
            return Err(receiving(RecvError::BufferTooSmall { needed: len }));
        }
        let mut last = [0; WORD];
        message.copy_to(0, &mut buffer[..WORD]);
        message.copy_to(len - WORD, &mut last);
        if buffer[..WORD] != last {
            return Err(Failure::Failed("a message has two numbers".into()));
        }
        Ok(len)
    }
}
