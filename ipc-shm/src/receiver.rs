use std::os::fd::{AsFd, BorrowedFd};

use ipc_core::wait::Interest;
use ipc_core::{Limits, Pollable, RecvError, Wait};

use crate::layout::Status;
use crate::link::{Gone, Link, Side, Stop};
use crate::loan::Borrowed;
use crate::ring::{Consumer, Corrupt, Found};
use crate::sender::limits;
use crate::sys::Mapping;

/// The receiving end of a ring.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) ring: Consumer<Mapping>,
    pub(crate) link: Link,
}

impl Receiver {
    pub(crate) fn new(ring: Consumer<Mapping>, link: Link) -> Self {
        Self { ring, link }
    }

    /// The next message where it lies in the ring: no copy is made of it on this side. Its room
    /// goes back to the sender when the [`Borrowed`] is dropped.
    ///
    /// # Errors
    /// As [`recv_with`](ipc_core::Receiver::recv_with), but never `BufferTooSmall`.
    pub fn borrow(&mut self, wait: Wait) -> Result<Borrowed<'_>, RecvError> {
        let found = self.next(wait)?;
        Ok(Borrowed::new(self, found))
    }

    #[inline]
    fn next(&mut self, wait: Wait) -> Result<Found, RecvError> {
        match self.ring.peek() {
            Ok(Some(found)) => Ok(found),
            Ok(None) => self.wait_for_message(wait),
            Err(corrupt) => Err(stopped(corrupt.into())),
        }
    }

    #[cold]
    fn wait_for_message(&mut self, wait: Wait) -> Result<Found, RecvError> {
        self.link
            .wait_for(&mut self.ring, wait, Consumer::peek)
            .map_err(stopped)
    }

    #[inline]
    pub(crate) fn consume(&mut self, found: Found) {
        self.ring.consume(found);
        self.link.wake_peer(&self.ring);
    }
}

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let found = self.next(wait)?;
        let Some(buffer) = buffer.get_mut(..found.len) else {
            return Err(RecvError::BufferTooSmall { needed: found.len });
        };
        self.ring.copy(found, 0, buffer);
        self.consume(found);
        Ok(found.len)
    }

    fn limits(&self) -> Limits {
        limits(self.ring.memory())
    }
}

impl AsFd for Receiver {
    /// The doorbell: readable after [`arm`](Pollable::arm) when there may be a message, and when
    /// the sender is gone. Only ever wait on it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.bell.as_fd()
    }
}

impl Pollable for Receiver {
    fn interest(&self) -> Interest {
        Interest::Read
    }

    fn arm(&mut self) -> bool {
        self.link.arm(&mut self.ring, Consumer::peek)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.link.close(&self.ring);
    }
}

impl Side for Consumer<Mapping> {
    const OUTLIVES_PEER: bool = true;

    #[inline]
    fn mine(&self) -> &Status {
        &self.memory().header().receiver.0
    }

    #[inline]
    fn peer(&self) -> &Status {
        &self.memory().header().sender.0
    }

    fn check(&self) -> Result<(), Corrupt> {
        self.memory().check()?;
        self.check_tail()
    }
}

fn stopped(stop: Stop) -> RecvError {
    match stop {
        Stop::NotNow => RecvError::Empty,
        Stop::TimedOut => RecvError::TimedOut,
        Stop::Gone(Gone::Closed) => RecvError::Closed,
        Stop::Gone(Gone::Died) => RecvError::PeerDied,
        Stop::Corrupt(what) => RecvError::Corrupt { what },
        Stop::Io(call, error) => RecvError::io(call, error),
    }
}
