use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ipc_core::wait::Interest;
use ipc_core::{Limits, OpenError, Pollable, RecvError, Wait, Waiter};

use crate::cursor::Found;
use crate::directory::Directory;
use crate::fault::Fault;
use crate::meeting::Guest;
use crate::options::Options;
use crate::scan::Scan;
use crate::segment::Header;

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
/// another one opens the log, the same follower reads on. They come when the last copy of the writer's
/// descriptor is closed: a process that was being started meanwhile may hold one until its
/// `execve(2)`, and until then a try after the last record says `Empty`. `Corrupt` says that the next record is
/// damaged, and again at every later call: [`position`](Self::position) says where, and
/// [`resynchronize`](Self::resynchronize) goes on behind it.
#[derive(Debug)]
pub struct Follower {
    scan: Scan,
    guest: Guest,
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
        let guest = Guest::new(&directory)?;
        let (header, file) = loop {
            let segments = directory.segments()?;
            if segments.is_empty() {
                return Err(OpenError::NotFound);
            }
            if let Some(found) = find(&directory, &segments, start)? {
                break found;
            }
        };
        let mut follower = Self {
            scan: Scan::new(directory, file, &header),
            guest,
            waiter: Waiter::new(options.wait_strategy),
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

    /// Where the next record begins or will begin: the number of a segment, whose file has it as
    /// its name in hexadecimal, and the bytes before it in that file.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        self.scan.place()
    }

    /// After `Corrupt`: goes on with the next record that verifies, and says how many messages
    /// were lost in between. `None` if there is none yet, and then nothing has changed.
    ///
    /// # Errors
    /// What reading the log reports.
    pub fn resynchronize(&mut self) -> Result<Option<u64>, RecvError> {
        Ok(self.scan.resynchronize()?)
    }

    /// Reads up to the start within its segment, checking what it passes over.
    fn advance(&mut self, start: Start) -> Result<(), OpenError> {
        let first = self.scan.place().0;
        let mut buffer = Vec::new();
        loop {
            let passed = match start {
                Start::Oldest => true,
                Start::Sequence(seq) => self.scan.seq >= seq,
                // A writer that appends without a pause must not be chased for ever.
                Start::End => self.scan.place().0 != first,
            };
            if passed {
                return Ok(());
            }
            match self.scan.next(&mut buffer)? {
                Found::Message(_) => {}
                Found::Larger(needed) => buffer.resize(needed, 0),
                Found::Nothing if start == Start::End => return Ok(()),
                Found::Nothing if matches!(start, Start::Sequence(seq) if seq == self.scan.seq) => {
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
        match self.scan.next(buffer)? {
            Found::Nothing => Ok(None),
            Found::Message(len) => {
                self.last = Some(self.scan.seq - 1);
                Ok(Some(len))
            }
            Found::Larger(needed) => Err(RecvError::BufferTooSmall { needed }),
        }
    }

    #[cold]
    fn wait(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        if wait != Wait::Never {
            let scan = &self.scan;
            self.waiter
                .look(wait, || Ok::<_, Fault>((!scan.is_idle()?).then_some(())))?;
        }
        loop {
            if let Some(len) = self.attempt(buffer)? {
                return Ok(len);
            }
            let alive = self.guest.has_writer();
            if wait != Wait::Never || self.guest.is_watched() {
                self.guest.watch()?;
                self.guest.announce()?;
            }
            // What the writer did before it died, or before it could see that somebody sleeps.
            if let Some(len) = self.attempt(buffer)? {
                return Ok(len);
            }
            if !alive {
                return Err(if self.scan.fin {
                    RecvError::Closed
                } else {
                    RecvError::PeerDied
                });
            }
            if wait == Wait::Never {
                return Err(RecvError::Empty);
            }
            if wait.is_over() {
                return Err(RecvError::TimedOut);
            }
            self.guest.sleep(wait)?;
        }
    }
}

/// Which of these segments to look for the start in; `None` if all of them were removed meanwhile.
fn find(
    directory: &Directory,
    segments: &[u64],
    start: Start,
) -> Result<Option<(Header, OwnedFd)>, OpenError> {
    let candidates = match start {
        Start::End => &segments[segments.len().saturating_sub(1)..],
        Start::Oldest | Start::Sequence(_) => segments,
    };
    let mut found: Option<(Header, OwnedFd)> = None;
    for &number in candidates {
        let segment = match directory.segment(number) {
            Ok(segment) => segment,
            Err(Fault::Corrupt(_)) if directory.is_gone(number) => continue,
            Err(fault) => return Err(fault.into()),
        };
        match start {
            Start::Oldest | Start::End => return Ok(Some(segment)),
            Start::Sequence(seq) if segment.0.base <= seq => found = Some(segment),
            Start::Sequence(_) if found.is_none() => {
                return Err(OpenError::Invalid {
                    what: "that record was removed from the log",
                });
            }
            Start::Sequence(_) => break,
        }
    }
    Ok(found)
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
            max_message: self.scan.shape.max_message(),
            depth_messages: None,
            depth_bytes: None,
        }
    }
}

/// One descriptor for both the news and the end of the writer, an `epoll(7)` instance over
/// `inotify(7)` and a FIFO. If there is no descriptor left for it, it tells of the end only.
impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.guest.watch().unwrap_or_else(|_| self.guest.life())
    }
}

impl Pollable for Follower {
    fn interest(&self) -> Interest {
        Interest::Read
    }
}
