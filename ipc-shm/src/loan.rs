//! Messages written and read where they lie.
#![expect(
    unsafe_code,
    reason = "a slice of memory that the peer can write to is the caller's word"
)]

use std::fmt;
use std::ptr::NonNull;

use crate::receiver::Receiver;
use crate::ring::{Found, Room};
use crate::sender::Sender;

/// Room in the ring that a message is written into. Dropping it sends nothing.
///
/// What was not written holds bytes of earlier messages of this channel.
#[must_use = "nothing is sent before `commit`"]
pub struct Loan<'a> {
    sender: &'a mut Sender,
    room: Room,
}

impl<'a> Loan<'a> {
    pub(crate) fn new(sender: &'a mut Sender, room: Room) -> Self {
        Self { sender, room }
    }

    /// Bytes that the message may have.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.room.len
    }

    /// Copies `bytes` to `offset` of the message.
    ///
    /// # Panics
    /// If they reach beyond [`capacity`](Self::capacity).
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.sender.ring.fill(self.room, offset, bytes);
    }

    /// Where the message lies, for code that writes it by itself: [`capacity`](Self::capacity)
    /// bytes, aligned to 8, until the loan is committed or dropped. The peer can write to them
    /// too, so no reference may be made of them unless the peer is trusted.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.sender
            .ring
            .memory()
            .at(self.room.offset, self.room.len)
            .as_ptr()
    }

    /// Sends the message.
    pub fn commit(self) {
        let len = self.room.len;
        self.commit_first(len);
    }

    /// Sends the first `len` bytes as the message.
    ///
    /// # Panics
    /// If `len` is more than [`capacity`](Self::capacity).
    pub fn commit_first(self, len: usize) {
        self.sender.commit(self.room, len);
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("capacity", &self.room.len)
            .finish_non_exhaustive()
    }
}

/// A received message that still lies in the ring. Dropping it consumes it.
#[must_use = "dropping it consumes the message"]
pub struct Borrowed<'a> {
    receiver: &'a mut Receiver,
    found: Found,
    keep: bool,
}

impl<'a> Borrowed<'a> {
    pub(crate) fn new(receiver: &'a mut Receiver, found: Found) -> Self {
        Self {
            receiver,
            found,
            keep: false,
        }
    }

    /// Length of the message in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len
    }

    /// Whether it is a message of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.len == 0
    }

    /// Copies bytes of the message from `offset` on, as many as `buffer` has.
    ///
    /// # Panics
    /// If that reaches beyond [`len`](Self::len).
    pub fn copy_to(&self, offset: usize, buffer: &mut [u8]) {
        self.receiver.ring.copy(self.found, offset, buffer);
    }

    /// Where the message lies: [`len`](Self::len) bytes, aligned to 8, until this is dropped. A
    /// peer that breaks the protocol can change them meanwhile: read each byte once, then check
    /// it, then use it.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.start().as_ptr()
    }

    /// The message as a slice.
    ///
    /// # Safety
    /// The process at the other end must keep to the protocol as this crate does: it must not
    /// write to a committed message before it is consumed. Otherwise bytes change behind a shared
    /// reference, which is undefined behaviour. With a peer that is not trusted, use
    /// [`copy_to`](Self::copy_to).
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes lie in the mapping, which outlives `self`, and the caller vouches for
        // the peer not to write there.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.found.len) }
    }

    /// Leaves the message in the ring: the next receive gives it again.
    pub fn keep(mut self) {
        self.keep = true;
    }

    fn start(&self) -> NonNull<u8> {
        self.receiver
            .ring
            .memory()
            .at(self.found.offset, self.found.len)
    }
}

impl fmt::Debug for Borrowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Borrowed")
            .field("len", &self.found.len)
            .finish_non_exhaustive()
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.receiver.consume(self.found);
        }
    }
}
