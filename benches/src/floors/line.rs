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

/// A row of cache lines each way. Each message goes into the next of them, the turn's number and the
/// message's in one line, and is waited for there. A message of more than a line is copied into the
/// lines behind it and out again. Round trips only: there is one turn.
///
/// They take turns as in a ring, and not only because lines that the peer has just read are costly to
/// write to: what a line takes from core to core depends on its address, which chooses the part of the
/// last level that keeps track of it. A single line is a throw of dice, by a factor of two on large
/// processors.
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

/// Bytes of a place: the line, and what of a message lies behind it.
fn place_len(size: usize) -> usize {
    if size <= IN_LINE {
        LINE
    } else {
        LINE + size.next_multiple_of(LINE)
    }
}

impl<const SLEEP: bool> Mailbox<SLEEP> {
    /// Where in a mailbox the line of this turn lies.
    #[inline]
    fn place(&self, turn: u32) -> usize {
        (turn & self.places) as usize * place_len(self.size)
    }
}

impl<const SLEEP: bool> Port for Mailbox<SLEEP> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.sent = self.sent.wrapping_add(1);
        let line = self.output + self.place(self.sent);
        if self.size <= IN_LINE {
            self.region.write(line + NUMBER, &message[..NUMBER]);
        } else {
            self.region.write(line + LINE, message);
        }
        let turn = self.region.word(line);
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
        self.received = self.received.wrapping_add(1);
        let line = self.input + self.place(self.received);
        let turn = self.region.word(line);
        // Acquire: pairs with the swap of the sender.
        loop {
            let seen = turn.load(Ordering::Acquire);
            if seen == self.received {
                break;
            }
            if SLEEP {
                match futex::wait(turn, futex::Flags::empty(), seen, None) {
                    Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            } else {
                spin_loop();
            }
        }
        if self.size <= IN_LINE {
            self.region.read(line + NUMBER, &mut buffer[..NUMBER]);
        } else {
            self.region.read(line + LINE, &mut buffer[..self.size]);
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
        Self::places(spec) * place_len(spec.size)
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
