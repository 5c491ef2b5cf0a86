use std::hint::spin_loop;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::floors::bytes::{bundle, ends};
use crate::floors::memory::{LINE, Region, anonymous};
use crate::peer::Link;
use crate::spec::{Side, Spec, Workload};
use crate::workload::Port;

/// One side of the textbook ring of one producer and one consumer in shared memory: two counters on
/// lines of their own, a length in front of each message, copy in and out, and a spin that never
/// ends. It trusts its peer, notices no death and cannot sleep: a floor, not a channel.
#[derive(Debug)]
struct Ring {
    region: Rc<Region>,
    /// Where in the region it begins.
    base: usize,
    capacity: u64,
    /// This side's own counter.
    mine: u64,
    /// The peer's counter when it was last looked at.
    theirs: u64,
    /// Whether waiting costs nothing, so that both sides may fall behind each other.
    streams: bool,
}

const HEAD: usize = 0;
const TAIL: usize = LINE;
const BYTES: usize = 2 * LINE;
const LENGTH: usize = 8;

/// A power of two, so that a position has its place by a mask.
fn capacity(spec: &Spec) -> usize {
    spec.capacity().next_power_of_two()
}

impl Ring {
    fn at(base: usize, region: &Rc<Region>, spec: &Spec) -> Self {
        Self {
            region: Rc::clone(region),
            base,
            capacity: capacity(spec) as u64,
            mine: 0,
            theirs: 0,
            streams: spec.workload == Workload::Throughput,
        }
    }

    /// One way: about a microsecond. A side that has caught up with its peer and looks at once meets
    /// one message at each look: the two then fight over the counter's line for every message, five
    /// times slower than apart. Where the peer waits for an answer, one pause.
    #[inline]
    fn pause(&self) {
        let pauses = if self.streams { 32 } else { 1 };
        for _ in 0..pauses {
            spin_loop();
        }
    }

    /// The place of a position.
    #[inline]
    fn place(&self, position: u64) -> usize {
        // Less than the capacity, which fits usize.
        self.base + BYTES + (position & (self.capacity - 1)) as usize
    }

    /// The place of a position, and how many of `len` bytes lie there: the others are at the start.
    #[inline]
    fn split(&self, position: u64, len: usize) -> (usize, usize) {
        let place = self.place(position);
        let end = self.base + BYTES + self.capacity as usize;
        (place, len.min(end - place))
    }

    /// Header and message, rounded so that a length never wraps.
    #[inline]
    fn record(len: usize) -> u64 {
        (LENGTH + len.next_multiple_of(LENGTH)) as u64
    }

    #[inline]
    fn send(&mut self, message: &[u8]) {
        let end = self.mine + Self::record(message.len());
        // Acquire: the consumer has finished reading what is overwritten now.
        while end - self.theirs > self.capacity {
            self.theirs = self
                .region
                .counter(self.base + TAIL)
                .load(Ordering::Acquire);
            if end - self.theirs > self.capacity {
                self.pause();
            }
        }
        let length = (message.len() as u64).to_ne_bytes();
        self.region.write(self.place(self.mine), &length);
        let (at, first) = self.split(self.mine + LENGTH as u64, message.len());
        self.region.write(at, &message[..first]);
        self.region.write(self.base + BYTES, &message[first..]);
        self.mine = end;
        // Release: length and message are visible to whoever acquires this head.
        let head = self.region.counter(self.base + HEAD);
        head.store(end, Ordering::Release);
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        // Acquire: pairs with the producer's release.
        while self.theirs == self.mine {
            self.theirs = self
                .region
                .counter(self.base + HEAD)
                .load(Ordering::Acquire);
            if self.theirs == self.mine {
                self.pause();
            }
        }
        let mut length = [0; LENGTH];
        self.region.read(self.place(self.mine), &mut length);
        let len = u64::from_ne_bytes(length) as usize;
        if len > buffer.len() {
            return Err(Failure::Failed("the ring lost its place".into()));
        }
        let (at, first) = self.split(self.mine + LENGTH as u64, len);
        self.region.read(at, &mut buffer[..first]);
        self.region.read(self.base + BYTES, &mut buffer[first..len]);
        self.mine += Self::record(len);
        // Release: the bytes have been read before the producer may overwrite them.
        let tail = self.region.counter(self.base + TAIL);
        tail.store(self.mine, Ordering::Release);
        Ok(len)
    }
}

/// A ring each way.
#[derive(Debug)]
pub(crate) struct Rings {
    output: Ring,
    input: Ring,
}

impl Port for Rings {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.output.send(message);
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        self.input.recv(buffer)
    }
}

#[derive(Debug)]
pub(crate) struct RingLink;

impl Link for RingLink {
    type Port = Rings;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let memory = anonymous(2 * (BYTES + capacity(spec)))?;
        Ok([bundle([memory.try_clone()?]), bundle([memory])])
    }

    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [memory] = ends(bundle)?;
        let region = Rc::new(Region::map(memory)?);
        let there = Ring::at(0, &region, spec);
        let back = Ring::at(BYTES + capacity(spec), &region, spec);
        let [output, input] = if side == Side::Initiator {
            [there, back]
        } else {
            [back, there]
        };
        Ok(Rings { output, input })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        Some(capacity(spec) as u64 / Ring::record(spec.size))
    }
}
