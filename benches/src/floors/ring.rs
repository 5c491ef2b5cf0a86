use std::hint::spin_loop;
use std::sync::atomic::Ordering;

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::floors::bytes::{bundle, ends};
use crate::floors::memory::{LINE, Region, anonymous};
use crate::peer::Link;
use crate::spec::{Side, Spec, Workload};
use crate::workload::Port;

/// The textbook ring of one producer and one consumer in shared memory: two counters on lines of
/// their own, a length in front of each message, copy in and out, and a spin that never ends. It
/// trusts its peer, notices no death and cannot sleep: a floor, not a channel.
#[derive(Debug)]
pub(crate) struct Ring {
    region: Region,
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

impl Ring {
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

    /// The place of a position; the capacity is a power of two.
    #[inline]
    fn place(&self, position: u64) -> usize {
        // Less than the capacity, which fits usize.
        (position & (self.capacity - 1)) as usize
    }

    #[inline]
    fn split(&self, position: u64, len: usize) -> (usize, usize) {
        let place = self.place(position);
        let first = len.min(self.capacity as usize - place);
        (BYTES + place, first)
    }

    /// Header and message, rounded so that a length never wraps.
    #[inline]
    fn record(len: usize) -> u64 {
        (LENGTH + len.next_multiple_of(LENGTH)) as u64
    }
}

impl Port for Ring {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        let end = self.mine + Self::record(message.len());
        // Acquire: the consumer has finished reading what is overwritten now.
        while end - self.theirs > self.capacity {
            self.theirs = self.region.counter(TAIL).load(Ordering::Acquire);
            if end - self.theirs > self.capacity {
                self.pause();
            }
        }
        let length = (message.len() as u64).to_ne_bytes();
        self.region.write(BYTES + self.place(self.mine), &length);
        let (at, first) = self.split(self.mine + LENGTH as u64, message.len());
        self.region.write(at, &message[..first]);
        self.region.write(BYTES, &message[first..]);
        self.mine = end;
        // Release: length and message are visible to whoever acquires this head.
        self.region.counter(HEAD).store(end, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        // Acquire: pairs with the producer's release.
        while self.theirs == self.mine {
            self.theirs = self.region.counter(HEAD).load(Ordering::Acquire);
            if self.theirs == self.mine {
                self.pause();
            }
        }
        let mut length = [0; LENGTH];
        self.region.read(BYTES + self.place(self.mine), &mut length);
        let len = u64::from_ne_bytes(length) as usize;
        if len > buffer.len() {
            return Err(Failure::Failed("the ring lost its place".into()));
        }
        let (at, first) = self.split(self.mine + LENGTH as u64, len);
        self.region.read(at, &mut buffer[..first]);
        self.region.read(BYTES, &mut buffer[first..len]);
        self.mine += Self::record(len);
        // Release: the bytes have been read before the producer may overwrite them.
        self.region
            .counter(TAIL)
            .store(self.mine, Ordering::Release);
        Ok(len)
    }
}

#[derive(Debug)]
pub(crate) struct RingLink;

impl Link for RingLink {
    type Port = Ring;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let memory = anonymous(BYTES + spec.capacity().next_power_of_two())?;
        Ok([bundle([memory.try_clone()?]), bundle([memory])])
    }

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [memory] = ends(bundle)?;
        let region = Region::map(memory)?;
        let capacity = (region.len() - BYTES) as u64;
        Ok(Ring {
            region,
            capacity,
            mine: 0,
            theirs: 0,
            streams: spec.workload == Workload::Throughput,
        })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        let capacity = spec.capacity().next_power_of_two() as u64;
        Some(capacity / Ring::record(spec.size))
    }
}
