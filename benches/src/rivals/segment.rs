#![expect(
    unsafe_code,
    reason = "the crate hands out a raw pointer; its users write this"
)]

use std::hint::spin_loop;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use shared_memory::{Shmem, ShmemConf};

use crate::control::Bundle;
use crate::failure::Outcome;
use crate::floors::bytes::{bundle, ends};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// A `shared_memory` segment as its `basic` example shows it: a flag that both sides watch, and
/// the message behind it. The crate has no channel, so there is one message in flight.
pub(crate) struct Segment {
    memory: Shmem,
    input: usize,
    output: usize,
    sent: u32,
    received: u32,
    size: usize,
}

const FULL: usize = 0;
const TAKEN: usize = 64;
const MESSAGE: usize = 128;

impl Segment {
    #[inline]
    fn flag(&self, offset: usize) -> &AtomicU32 {
        let at = self.memory.as_ptr().wrapping_add(offset).cast();
        // SAFETY: offsets lie within the segment and are multiples of 64; both processes touch
        // the flags by atomics only, and the segment lives as long as `self`.
        unsafe { AtomicU32::from_ptr(at) }
    }

    #[inline]
    fn message(&self, base: usize) -> *mut u8 {
        self.memory.as_ptr().wrapping_add(base + MESSAGE)
    }
}

impl Port for Segment {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        while self.flag(self.output + TAKEN).load(Ordering::Acquire) != self.sent {
            spin_loop();
        }
        let to = self.message(self.output);
        // SAFETY: messages have the size that the segment was made for; the peer reads these
        // bytes only between FULL and TAKEN.
        unsafe { ptr::copy_nonoverlapping(message.as_ptr(), to, message.len()) };
        self.sent = self.sent.wrapping_add(1);
        self.flag(self.output + FULL)
            .store(self.sent, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        self.received = self.received.wrapping_add(1);
        while self.flag(self.input + FULL).load(Ordering::Acquire) != self.received {
            spin_loop();
        }
        let from = self.message(self.input);
        // SAFETY: as in `send`; the buffer has the size of a message.
        unsafe { ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), self.size) };
        self.flag(self.input + TAKEN)
            .store(self.received, Ordering::Release);
        Ok(self.size)
    }
}

pub(crate) struct SegmentLink;

impl Link for SegmentLink {
    type Port = Segment;

    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (a, b) = UnixStream::pair()?;
        Ok([bundle([a.into()]), bundle([b.into()])])
    }

    fn port(spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [fd] = ends(bundle)?;
        let mut stream = UnixStream::from(fd);
        let half = MESSAGE + spec.size.next_multiple_of(MESSAGE);
        let new = |memory, input, output| Segment {
            memory,
            input,
            output,
            sent: 0,
            received: 0,
            size: spec.size,
        };
        if side == Side::Initiator {
            let name = format!("/ipc-bench-{}", std::process::id());
            let memory = ShmemConf::new().os_id(&name).size(2 * half).create()?;
            stream.write_all(name.as_bytes())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // The peer hangs up when it has mapped the segment; then the name can go, so that a
            // killed bench leaves none behind.
            stream.read_to_end(&mut Vec::new())?;
            let mut memory = memory;
            memory.set_owner(false);
            rustix::shm::unlink(&name)?;
            Ok(new(memory, half, 0))
        } else {
            let mut name = String::new();
            stream.read_to_string(&mut name)?;
            let memory = ShmemConf::new().os_id(&name).open()?;
            Ok(new(memory, 0, half))
        }
    }

    fn depth(_spec: &Spec) -> Option<u64> {
        Some(1)
    }
}
