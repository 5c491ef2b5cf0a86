use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Release};

use ipc_core::lifeline::Peer;
use ipc_core::wait::{Interest, Polled, poll};
use ipc_core::{Custody, Limits, Pollable, RecvError, Wait, Waiter};

use crate::control::{announce, wakes};
use crate::cursor::{Cursor, Found};
use crate::link::Link;
use crate::sys;
use crate::watch::Watch;

/// The reading end of a log and the one receiver of its channel.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) cursor: Cursor,
    pub(crate) link: Link,
    pub(crate) waiter: Waiter,
    watch: Watch,
    pub(crate) custody: Custody,
}

impl Receiver {
    pub(crate) fn new(cursor: Cursor, link: Link, waiter: Waiter) -> Self {
        Self {
            cursor,
            link,
            waiter,
            watch: Watch::default(),
            custody: Custody::new(),
        }
    }

    /// The sequence number of the next message; the first of a channel has 0.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.cursor.seq
    }

    #[inline]
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, RecvError> {
        let before = self.cursor.position;
        let found = self.cursor.next(buffer)?;
        if self.cursor.position != before {
            self.give_back();
        }
        match found {
            Found::Nothing => Ok(None),
            Found::Message(len) => Ok(Some(len)),
            Found::Larger(needed) => Err(RecvError::BufferTooSmall { needed }),
        }
    }

    /// Lets the writer use the space anew, and wakes it if it waits for that.
    #[inline]
    fn give_back(&self) {
        // Release: the copies out of the space come before the stores into it.
        self.link
            .control
            .consumed()
            .store(self.cursor.position, Release);
        if wakes(self.link.control.writer_sleeps()) {
            sys::ring(self.link.room.as_fd());
        }
    }

    /// How the channel ended, if it did. The caller looks at the log once more before it believes
    /// this: what was committed before the end comes first.
    fn end(&self) -> Option<RecvError> {
        if self.link.control.writer_closed().load(Acquire) != 0 {
            return Some(RecvError::Closed);
        }
        match self.link.lifeline.peer() {
            Peer::Alive => None,
            Peer::Closed => Some(RecvError::Closed),
            Peer::Died => Some(RecvError::PeerDied),
        }
    }

    #[cold]
    fn wait(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        if wait != Wait::Never {
            let mut waiter = self.waiter.clone();
            let cursor = &self.cursor;
            let closed = self.link.control.writer_closed();
            let found: Result<_, RecvError> = waiter.look(wait, || {
                let over = !cursor.is_idle() || closed.load(Acquire) != 0;
                Ok(over.then_some(()))
            });
            self.waiter = waiter;
            found?;
        }
        loop {
            if let Some(len) = self.attempt(buffer)? {
                return Ok(len);
            }
            if let Some(end) = self.end() {
                return self.attempt(buffer)?.ok_or(end);
            }
            if wait == Wait::Never {
                return self.leave_empty(buffer);
            }
            announce(self.link.control.reader_sleeps());
            if let Some(len) = self.attempt(buffer)? {
                return Ok(len);
            }
            let polled = poll(
                [
                    (self.link.news.as_fd(), Interest::Read),
                    (self.link.lifeline.as_fd(), Interest::Read),
                ],
                wait,
            )
            .map_err(|error| RecvError::io("ppoll", error))?;
            sys::quieten(self.link.news.as_fd());
            // The clock too: a hostile peer could keep the doorbell ringing for nothing.
            if polled == Polled::TimedOut || wait.is_over() {
                return self.attempt(buffer)?.ok_or(RecvError::TimedOut);
            }
        }
    }
}

impl Receiver {
    #[cold]
    fn leave_empty(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        let (news, sleeps) = (&self.link.news, self.link.control.reader_sleeps());
        let found = if self.watch.rearm(news, sleeps) {
            self.attempt(buffer)?
        } else {
            None
        };
        found.ok_or(RecvError::Empty)
    }
}

impl ipc_core::Receiver for Receiver {
    #[inline]
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        match self.attempt(buffer)? {
            Some(len) => Ok(len),
            None => self.wait(buffer, wait),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.cursor.shape.max_message(),
            depth_messages: None,
            depth_bytes: usize::try_from(self.cursor.shape.file()).ok(),
        }
    }
}

/// One descriptor for both the news and the end of the sender.
impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let sleeps = self.link.control.reader_sleeps();
        self.watch.fd(&self.link.news, sleeps, &self.link.lifeline)
    }
}

impl Pollable for Receiver {
    fn interest(&self) -> Interest {
        Interest::Read
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.custody.is_ours() {
            self.link.control.reader_closed().store(1, Release);
            self.link.lifeline.farewell();
        }
    }
}
