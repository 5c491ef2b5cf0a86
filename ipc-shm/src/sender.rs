use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::wait::Interest;
use ipc_core::{Limits, Pollable, SendError, Wait};

use crate::layout::Status;
use crate::link::{Gone, Link, Side, Stop};
use crate::loan::Loan;
use crate::ring::{Corrupt, Memory, Producer, Room, WORD, max_message};
use crate::sys::Mapping;

/// The sending end of a ring.
#[derive(Debug)]
pub struct Sender {
    pub(crate) ring: Producer<Mapping>,
    pub(crate) link: Link,
    /// Sends, counted around.
    sends: u8,
    /// Bytes of the message that there was no room for.
    refused: usize,
}

/// While messages flow, every so many sends look at the clock that says when to ask for the peer's life.
const CHECK_EVERY: u8 = 4;

impl Sender {
    pub(crate) fn new(ring: Producer<Mapping>, link: Link) -> Self {
        Self {
            ring,
            link,
            sends: 0,
            refused: 0,
        }
    }

    /// Room in the ring for a message of at most `len` bytes, to be written in place: no copy is
    /// made of it on this side. Nothing is sent until [`Loan::commit`].
    ///
    /// # Errors
    /// As [`send_with`](ipc_core::Sender::send_with).
    pub fn loan(&mut self, len: usize, wait: Wait) -> Result<Loan<'_>, SendError> {
        let room = self.room(len, wait)?;
        Ok(Loan::new(self, room))
    }

    #[inline]
    fn room(&mut self, len: usize, wait: Wait) -> Result<Room, SendError> {
        let max = max_message(self.ring.memory().capacity());
        if len > max {
            return Err(SendError::TooLong { len, max });
        }
        self.sends = self.sends.wrapping_add(1);
        let seldom = !self.sends.is_multiple_of(CHECK_EVERY);
        let gone = if seldom && self.link.flows(&self.ring) {
            None
        } else {
            self.link.peer_gone(&self.ring)
        };
        if let Some(gone) = gone {
            return Err(stopped(Stop::Gone(gone)));
        }
        match self.ring.reserve(len) {
            Ok(Some(room)) => Ok(room),
            Ok(None) => self.wait_for_room(len, wait),
            Err(corrupt) => Err(stopped(corrupt.into())),
        }
    }

    #[cold]
    fn wait_for_room(&mut self, len: usize, wait: Wait) -> Result<Room, SendError> {
        self.refused = len;
        self.link
            .wait_for(&mut self.ring, wait, |ring| ring.reserve(len))
            .map_err(stopped)
    }

    #[inline]
    pub(crate) fn commit(&mut self, room: Room, len: usize) {
        self.ring.commit(room, len);
        self.link.wake_peer(&self.ring);
    }
}

impl ipc_core::Sender for Sender {
    #[inline]
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let room = self.room(message.len(), wait)?;
        self.ring.send(room, message);
        self.link.wake_peer(&self.ring);
        Ok(())
    }

    fn limits(&self) -> Limits {
        limits(self.ring.memory())
    }
}

impl AsFd for Sender {
    /// The doorbell: readable after [`arm`](Pollable::arm) when there may be room again, and when
    /// the receiver is gone. Only ever wait on it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.bell.as_fd()
    }
}

impl Pollable for Sender {
    fn interest(&self) -> Interest {
        Interest::Read
    }

    fn arm(&mut self) -> bool {
        let len = self.refused;
        self.link.arm(&mut self.ring, |ring| ring.reserve(len))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.link.close(&self.ring);
    }
}

impl Side for Producer<Mapping> {
    const OUTLIVES_PEER: bool = false;

    #[inline]
    fn mine(&self) -> &Status {
        &self.memory().header().sender.0
    }

    #[inline]
    fn peer(&self) -> &Status {
        &self.memory().header().receiver.0
    }

    fn check(&self) -> Result<(), Corrupt> {
        self.memory().check()
    }
}

pub(crate) fn limits(mapping: &Mapping) -> Limits {
    let capacity = mapping.capacity();
    Limits {
        max_message: max_message(capacity),
        depth_messages: None,
        depth_bytes: Some(capacity),
    }
}

fn stopped(stop: Stop) -> SendError {
    match stop {
        Stop::NotNow => SendError::Full,
        Stop::TimedOut => SendError::TimedOut,
        Stop::Gone(Gone::Closed) => SendError::Closed,
        Stop::Gone(Gone::Died) => SendError::PeerDied,
        Stop::Corrupt(what) => SendError::Corrupt { what },
        Stop::Io(call, error) => SendError::io(call, error),
    }
}

const _: () = assert!(WORD == 8, "the documented overhead of a message");
