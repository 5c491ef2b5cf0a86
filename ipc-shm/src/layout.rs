//! The shared memory byte by byte, so that another program can attach to it.
//!
//! All numbers are in the byte order of the machine. The memory is a memfd of `4096 + capacity`
//! bytes, sealed with `F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL`.
//!
//! | offset | size | written by | what |
//! |-------:|-----:|------------|------|
//! | 0 | 8 | creator | magic, the bytes `IPCSHM` and two zeros |
//! | 8 | 4 | creator | version of this table, 2 |
//! | 12 | 4 | creator | 0x01020304, which tells the byte order |
//! | 16 | 8 | creator | capacity: bytes of the ring, a power of two from 4096 |
//! | 128 | 8 | sender | tail: bytes ever written to the ring; a multiple of 8 |
//! | 256 | 8 | receiver | head: bytes ever read from the ring; a multiple of 8 |
//! | 384 | 4 | sender | state |
//! | 388 | 4 | sender | processor it last ran on; `u32::MAX` for unknown |
//! | 512 | 4 | receiver | state |
//! | 516 | 4 | receiver | processor it last ran on; `u32::MAX` for unknown |
//! | 4096 | capacity | sender | ring |
//!
//! Offsets not named are zero, and so is the ring at first. Words of different writers lie 128
//! bytes apart, because processors fetch lines of 64 bytes in pairs.
//!
//! **State**: bit 0, asleep: ring my doorbell after publishing; bit 1, closed: this end was closed
//! in good order; bits 2 to 31, a number that changes each time bit 0 is set, so that one sleep is
//! rung for once. Only its owner writes it.
//!
//! **Ring**: a position `p` lies at offset `p % capacity`. At every position from head to tail
//! begins a frame: a word of 8 bytes, then the payload, then padding to a multiple of 8. The word
//! has the kind in its high half and a length in its low half:
//!
//! | kind | length | what |
//! |-----:|-------:|------|
//! | 0 | 0 | nothing yet: this is where the next frame will be committed |
//! | 1 | bytes of the payload | a message |
//! | 2 | bytes from behind the word to the end of the ring | filler; at offset 0 follows a message |
//!
//! A frame never wraps, so that a message lies in one piece. Therefore a frame has at most
//! `capacity / 2` bytes: with half the ring, it fits wherever the positions stand once the ring is
//! empty.
//!
//! **Commit**: the sender writes the payload, then zero to the word behind the frame, then the
//! frame's own word (release). A filler and the message behind it are committed as one: the
//! filler's word is stored last. So the sender needs room for its frame and one word, and the
//! receiver at its position finds zero or a committed frame, never the leavings of an earlier lap:
//! the word there was made zero before the frame in front of it was committed. After that the
//! sender stores the tail (release), for nobody but its successor, who goes on from there over the
//! frames that may have been committed since. The receiver consumes a message by storing the head
//! (release).
//!
//! **Sleep**: each end sleeps by `poll(2)` on the reading side of a pipe of its own, its doorbell. It
//! stores its state with bit 0 and a new number, looks at the ring and at the peer's bit 1 once more,
//! sleeps, reads out the pipe, and stores its state without bit 0. Who has published or closed loads the
//! peer's state and, if bit 0 is set and the number is not the one it rang for last, writes one byte to the
//! peer's doorbell. A full barrier stands between storing and looking on both sides. The sleeper makes
//! it by `membarrier(2)` with `MEMBARRIER_CMD_GLOBAL_EXPEDITED`, which reaches the peer too if that
//! process is registered by `MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED`; one that is not makes its own after
//! publishing. A doorbell that hangs up without bit 1 is a peer that died.
//!
//! **Ends**: an end is four descriptors, those of the memory, the reading side of its own doorbell, and
//! the writing and the reading side of its peer's, which it holds so that ringing is never a SIGPIPE; and
//! two bytes, `S` or `R` for sender or receiver, and 0, 1 or 2 for blocking, spinning or adaptive waiting.
//! A doorbell is made with `O_NONBLOCK`.
//!
//! **Names**: whoever has the sender connects to the listener's Unix stream socket and sends two packets:
//! the three bytes `shm` without descriptors, then the receiver. A packet is the bytes `IPC1`, the number
//! of descriptors in 4 bytes and that of bytes in 8, both little-endian, and the bytes. The descriptors
//! come with its first byte (`SCM_RIGHTS`).
//!
//! `tests/peer.py` is such a program.

#[cfg(not(all(target_pointer_width = "64", target_has_atomic = "64")))]
compile_error!(
    "ipc-shm needs a 64-bit target: positions are 64-bit words that are read and written at one go, \
     and a ring of up to 4 GiB is mapped whole"
);

use std::mem::{offset_of, size_of};

use crate::sync::{AtomicU32, AtomicU64};

pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"IPCSHM\0\0");
pub(crate) const VERSION: u32 = 2;
pub(crate) const BYTE_ORDER: u32 = 0x0102_0304;
/// Where the ring begins: one page, so that the ring lies on pages of its own.
pub(crate) const HEADER_LEN: usize = 4096;
pub(crate) const MIN_CAPACITY: usize = 4096;
/// The half of the ring is then the longest length that a frame's word can say.
pub(crate) const MAX_CAPACITY: usize = 1 << 32;

/// The memory's first page. Every field is an atomic, because the peer may write to all of it.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) byte_order: AtomicU32,
    pub(crate) capacity: AtomicU64,
    pub(crate) tail: Line<AtomicU64>,
    pub(crate) head: Line<AtomicU64>,
    pub(crate) sender: Line<Status>,
    pub(crate) receiver: Line<Status>,
}

/// A pair of cache lines.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// What one end says of itself.
#[repr(C)]
pub(crate) struct Status {
    pub(crate) state: AtomicU32,
    pub(crate) cpu: AtomicU32,
}

const _: () = {
    assert!(offset_of!(Header, magic) == 0);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, byte_order) == 12);
    assert!(offset_of!(Header, capacity) == 16);
    assert!(offset_of!(Header, tail) == 128);
    assert!(offset_of!(Header, head) == 256);
    assert!(offset_of!(Header, sender) == 384);
    assert!(offset_of!(Header, receiver) == 512);
    assert!(offset_of!(Status, state) == 0);
    assert!(offset_of!(Status, cpu) == 4);
    assert!(size_of::<Header>() <= HEADER_LEN);
    assert!(HEADER_LEN.is_multiple_of(align_of::<Header>()));
};
