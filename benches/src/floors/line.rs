use std::hint::spin_loop;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::thread::futex;

use crate::control::Bundle;
use crate::failure::Outcome;
use crate::floors::bytes::{bundle, ends};
use crate::floors::memory::{LINE, Region, anonymous};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// A mailbox each way: a turn word and, in the same cache line, the message's number. A message
/// of more than a line is copied into the lines behind it and out again, each into other lines than
/// the one before, as in a ring: lines that the peer has just read are costly to write to. Round
/// trips only: there is one turn.
///
/// `SLEEP` waits on a futex at once; otherwise the line is watched without end.
#[derive(Debug)]
pub(crate) struct Mailbox<const SLEEP: bool> {
    region: Region,
    input: usize,
    output: usize,
    sent: u32,
    received: u32,
    size: usize,
    /// Less one; their number is a power of two.
    places: u32,
}

/// The longest message that travels in the line itself.
const IN_LINE: usize = 64;
const NUMBER: usize = 8;

impl<const SLEEP: bool> Mailbox<SLEEP> {
    /// Where in a mailbox the message of this turn lies.
    #[inline]
    fn place(&self, turn: u32) -> usize {
        LINE + (turn & self.places) as usize * self.size.next_multiple_of(LINE)
    }
}

impl<const SLEEP: bool> Port for Mailbox<SLEEP> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        if self.size <= IN_LINE {
            self.region.write(self.output + NUMBER, &message[..NUMBER]);
        } else {
            self.region
                .write(self.output + self.place(self.sent), message);
        }
        self.sent = self.sent.wrapping_add(1);
        let turn = self.region.word(self.output);
        // A locked read-modify-write leaves the store buffer at once; a plain store lingers.
        // Release: the message is visible to whoever acquires this turn.
        turn.swap(self.sent, Ordering::AcqRel);
        if SLEEP {
            futex::wake(turn, futex::Flags::empty(), 1)?;
        }
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let last = self.received;
        self.received = last.wrapping_add(1);
        let turn = self.region.word(self.input);
        // Acquire: pairs with the swap of the sender.
        while turn.load(Ordering::Acquire) != self.received {
            if SLEEP {
                match futex::wait(turn, futex::Flags::empty(), last, None) {
                    Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            } else {
                spin_loop();
            }
        }
        if self.size <= IN_LINE {
            self.region.read(self.input + NUMBER, &mut buffer[..NUMBER]);
        } else {
            let from = self.input + self.place(last);
            self.region.read(from, &mut buffer[..self.size]);
        }
        Ok(self.size)
    }
}

#[derive(Debug)]
pub(crate) struct LineLink<const SLEEP: bool>;

impl<const SLEEP: bool> LineLink<SLEEP> {
    /// As many as a channel of this capacity holds messages.
    fn places(spec: &Spec) -> usize {
        spec.depth().next_power_of_two()
    }

    fn mailbox_bytes(spec: &Spec) -> usize {
        LINE + Self::places(spec) * spec.size.next_multiple_of(LINE)
    }
}

impl<const SLEEP: bool> Link for LineLink<SLEEP> {
    type Port = Mailbox<SLEEP>;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let memory = anonymous(2 * Self::mailbox_bytes(spec))?;
        Ok([bundle([memory.try_clone()?]), bundle([memory])])
    }

    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [memory] = ends(bundle)?;
        let boxes = [0, Self::mailbox_bytes(spec)];
        let [output, input] = if side == Side::Initiator {
            boxes
        } else {
            [boxes[1], boxes[0]]
        };
        let region = Region::map(memory)?;
        Ok(Mailbox {
            region,
            input,
            output,
            sent: 0,
            received: 0,
            size: spec.size,
            places: u32::try_from(Self::places(spec) - 1)?,
        })
    }
}
