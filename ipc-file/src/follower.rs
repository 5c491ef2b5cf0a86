use std::path::Path;

use ipc_core::{Limits, OpenError, RecvError, Wait, Waiter};

use crate::control::announce;
use crate::cursor::{Cursor, Found};
use crate::directory::{self, Directory};
use crate::meeting::Meeting;
use crate::options::Options;
use crate::segment::Header;
use crate::shape::SEGMENT_HEADER;
use crate::store::Store;
use crate::sys::Fault;

/// Where a [`Follower`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that the log still has.
    Oldest,
    /// With the first message whose sequence number is at least this one.
    Sequence(u64),
    /// With the first record appended from now on.
    End,
}

/// An independent reader of a named log: it sees every record from its [`Start`] on, holds up
/// nobody and is held up by nobody.
///
/// `Closed` and `PeerDied` say that the log has no writer now, and how the last one ended; when
/// another one opens the log, the same follower reads on.
#[derive(Debug)]
pub struct Follower {
    cursor: Cursor,
    meeting: Meeting,
    waiter: Waiter,
    last: Option<u64>,
}

impl Follower {
    /// Opens the log in `directory` for reading.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Untrusted` as for [`Log::open`](crate::Log::open), `Invalid`
    /// if the record to start with was removed or does not exist yet, `Io` of kind `InvalidData`
    /// if a record before it is damaged.
    pub fn open(
        directory: impl AsRef<Path>,
        start: Start,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let directory = Directory::open_at(directory.as_ref(), false)?;
        let meeting = Meeting::open(&directory, false)?;
        let header = find(&directory, start)?;
        let current = directory.open(header.number, header.shape)?;
        let position = header.number * header.shape.segment + SEGMENT_HEADER;
        let store = Store::Files {
            directory,
            current,
            unsynced: 0,
        };
        let cursor = Cursor::attach(store, header.shape, header.epoch, position, header.base)?;
        let waiter = Waiter::new(options.wait_strategy);
        let mut follower = Self {
            cursor,
            meeting,
            waiter,
            last: None,
        };
        follower.advance(start)?;
        Ok(follower)
    }

    /// The sequence number of the message received last: keep it and start with the one after it
    /// to resume in another process.
    #[must_use]
    pub fn last_sequence(&self) -> Option<u64> {
        self.last
    }

    /// Reads up to the start within its segment, checking what it passes over.
    fn advance(&mut self, start: Start) -> Result<(), OpenError> {
        let first = self.cursor.shape.number(self.cursor.position);
        let mut buffer = Vec::new();
        loop {
            let passed = match start {
                Start::Oldest => true,
                Start::Sequence(seq) => self.cursor.seq >= seq,
                // A writer that appends without a pause must not be chased for ever.
                Start::End => self.cursor.shape.number(self.cursor.position) != first,
            };
            if passed {
                return Ok(());
            }
            match self.cursor.next(&mut buffer)? {
                Found::Message(_) => {}
                Found::Larger(needed) => buffer.resize(needed, 0),
                Found::Nothing if start == Start::End => return Ok(()),
                Found::Nothing if matches!(start, Start::Sequence(seq) if seq == self.cursor.seq) =>
                {
                    return Ok(());
                }
                Found::Nothing => {
                    return Err(OpenError::Invalid {
                        what: "the log has not come to that record",
                    });
                }
            }
        }
    }

    #[inline]
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, RecvError> {
        match self.cursor.next(buffer)? {
            Found::Nothing => Ok(None),
            Found::Message(len) => {
                self.last = Some(self.cursor.seq - 1);
                Ok(Some(len))
            }
            Found::Larger(needed) => Err(RecvError::BufferTooSmall { needed }),
        }
    }

    #[cold]
    fn wait(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        if wait != Wait::Never {
            let cursor = &self.cursor;
            let found: Result<_, RecvError> = self
                .waiter
                .look(wait, || Ok((!cursor.is_idle()).then_some(())));
            found?;
        }
        loop {
            if let Some(len) = self.attempt(buffer)? {
                return Ok(len);
            }
            if !directory::is_locked(self.meeting.fd()) {
                // What the writer did before it let go of the lock comes first.
                let found = self.attempt(buffer)?;
                let end = if self.cursor.fin {
                    RecvError::Closed
                } else {
                    RecvError::PeerDied
                };
                return found.ok_or(end);
            }
            if wait == Wait::Never {
                return Err(RecvError::Empty);
            }
            let ticket = self.meeting.ticket();
            announce(self.meeting.sleepers());
            if let Some(len) = self.attempt(buffer)? {
                return Ok(len);
            }
            if wait.is_over() {
                return Err(RecvError::TimedOut);
            }
            self.meeting
                .sleep(ticket, wait)
                .map_err(|error| RecvError::io("futex", error))?;
        }
    }
}

/// The segment in which to look for the start.
fn find(directory: &Directory, start: Start) -> Result<Header, OpenError> {
    let mut found: Option<Header> = None;
    let segments = directory.segments()?;
    let candidates: &[u64] = match start {
        Start::End => &segments[segments.len().saturating_sub(1)..],
        _ => &segments,
    };
    for &number in candidates {
        let header = match directory.header(number) {
            Ok(header) => header,
            // Removed by the writer since the directory was read.
            Err(Fault::Corrupt(_)) if directory.is_gone(number) => continue,
            Err(fault) => return Err(fault.into()),
        };
        match start {
            Start::Oldest | Start::End => return Ok(header),
            Start::Sequence(seq) if header.base <= seq => found = Some(header),
            Start::Sequence(_) if found.is_none() => {
                return Err(OpenError::Invalid {
                    what: "that record was removed from the log",
                });
            }
            Start::Sequence(_) => break,
        }
    }
    found.ok_or(OpenError::NotFound)
}

impl ipc_core::Receiver for Follower {
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
            depth_bytes: None,
        }
    }
}
