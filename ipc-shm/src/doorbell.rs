//! The doorbell of an end: a pipe that wakes it and, by hanging up, tells of its peer's death.
//!
//! The end that sleeps holds the reading side, its peer the writing side. All that anybody ever
//! does with it is to write a byte, to take out what is there and to `poll(2)`. Each call says for
//! itself that it must not wait (`RWF_NOWAIT` of
//! [preadv2(2)](https://man7.org/linux/man-pages/man2/preadv2.2.html), for nameless pipes since
//! Linux 6.4): the descriptor's own mode is shared with the peer, who may change it at any time
//! and fill the pipe besides. An older kernel has that mode only, and so have sandboxes that do not
//! know those calls.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::{OpenError, Wait};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::pipe::PipeFlags;

use crate::sys::open_error;

/// "The current position", the only one a pipe has (`preadv2(2)`).
const HERE: u64 = u64::MAX;

/// The file system of nameless pipes (`<linux/magic.h>`).
const PIPEFS: u64 = 0x5049_5045;

/// What an end hears of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It rings.
    Ring,
    /// Every process that could ring has ended, or closed its side.
    HangUp,
    /// Nothing, until the wait was over.
    Nothing,
}

/// The side of the end that sleeps.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

/// The side of its peer.
#[derive(Debug)]
pub(crate) struct Ringer {
    writer: OwnedFd,
    /// The other side of the same pipe: as long as somebody holds it, nobody who rings for an end
    /// that is just dying gets a SIGPIPE.
    reader: OwnedFd,
}

pub(crate) fn create() -> Result<(Bell, Ringer), OpenError> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|error| open_error("pipe2", error))?;
    let again = rustix::io::fcntl_dupfd_cloexec(&reader, 0)
        .map_err(|error| open_error("fcntl(F_DUPFD_CLOEXEC)", error))?;
    let ringer = Ringer {
        writer,
        reader: again,
    };
    Ok((Bell(reader), ringer))
}

impl Bell {
    /// Waits for the peer, again after each EINTR with the time that is left.
    pub(crate) fn hear(&self, wait: Wait) -> Result<Heard, Errno> {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            let timeout = wait.remaining().map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(0) if wait.is_over() => return Ok(Heard::Nothing),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) if polled[0].revents().contains(PollFlags::HUP) => return Ok(Heard::HangUp),
                Ok(_) => {
                    self.silence();
                    return Ok(Heard::Ring);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes out the rings of the past: what was published before them is visible afterwards.
    fn silence(&self) {
        let mut rings = [0; 64];
        loop {
            let buffers = &mut [IoSliceMut::new(&mut rings)];
            let read = match rustix::io::preadv2(&self.0, buffers, HERE, ReadWriteFlags::NOWAIT) {
                Err(error) if is_refused(error) => rustix::io::read(&self.0, &mut rings),
                other => other,
            };
            if read != Err(Errno::INTR) {
                return;
            }
        }
    }

    pub(crate) fn to_parts(&self) -> io::Result<[OwnedFd; 1]> {
        Ok([self.0.try_clone()?])
    }

    pub(crate) fn from_parts([reader]: [OwnedFd; 1]) -> Result<Self, OpenError> {
        Ok(Self(side(reader, OFlags::RDONLY)?))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Ringer {
    /// Rings. A pipe that is full of rings rings just as well.
    #[cold]
    pub(crate) fn ring(&self) {
        loop {
            let ring = &[IoSlice::new(&[1])];
            let wrote = match rustix::io::pwritev2(&self.writer, ring, HERE, ReadWriteFlags::NOWAIT)
            {
                Err(error) if is_refused(error) => rustix::io::write(&self.writer, &[1]),
                other => other,
            };
            if wrote != Err(Errno::INTR) {
                return;
            }
        }
    }

    pub(crate) fn to_parts(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.writer.try_clone()?, self.reader.try_clone()?])
    }

    pub(crate) fn from_parts([writer, reader]: [OwnedFd; 2]) -> Result<Self, OpenError> {
        let (writer, reader) = (side(writer, OFlags::WRONLY)?, side(reader, OFlags::RDONLY)?);
        // Of another pipe it would keep no SIGPIPE away.
        let pipe = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        match (pipe(&writer), pipe(&reader)) {
            (Ok(one), Ok(other)) if one == other => Ok(Self { writer, reader }),
            _ => Err(OpenError::Untrusted {
                what: "the sides of a doorbell are of two pipes",
            }),
        }
    }
}

/// Whether a call that must not wait was not made at all: by an older kernel (EOPNOTSUPP), or by a
/// filter of system calls (seccomp(2)), which answers as it likes, most with one of the other two.
fn is_refused(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM)
}

/// Takes over a descriptor that came from another process: a nameless pipe and nothing else, since
/// only of that it is known that no call waits; and one that can be polled, which mere places
/// (`O_PATH`) cannot.
fn side(fd: OwnedFd, mode: OFlags) -> Result<OwnedFd, OpenError> {
    let nameless = rustix::fs::fstatfs(&fd).is_ok_and(|fs| fs.f_type as u64 == PIPEFS);
    let flags = rustix::fs::fcntl_getfl(&fd);
    let what = OFlags::ACCMODE | OFlags::PATH;
    if nameless && flags.is_ok_and(|flags| flags & what == mode) {
        Ok(fd)
    } else {
        Err(OpenError::Untrusted {
            what: "a doorbell is one side of a nameless pipe",
        })
    }
}
