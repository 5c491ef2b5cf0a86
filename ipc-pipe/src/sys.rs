//! Every system call on the pipe itself: `pipe2(2)`, `read(2)`, `preadv2(2)`, `pwritev2(2)`.
//!
//! `RWF_NOWAIT` makes a single call non-blocking, and the descriptor stays in blocking mode, so that a
//! wait without a deadline is one call. Nameless pipes know the flag since Linux 6.4; a FIFO, or an
//! older kernel, refuses it with EOPNOTSUPP; from then on the descriptor is non-blocking.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::{Interest, poll};
use ipc_core::{Limit, OpenError, Wait};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::pipe::PipeFlags;

/// "The current position", the only one a pipe has (`preadv2(2)`).
const HERE: u64 = u64::MAX;

/// `RWF_NOSIGNAL` of `<linux/fs.h>`: no SIGPIPE, from Linux 6.18.
const NOSIGNAL: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x100);

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), OpenError> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| match error {
        Errno::MFILE => OpenError::Limit(Limit {
            name: "RLIMIT_NOFILE",
            value: None,
            advice: "close descriptors or raise the limit of open files",
        }),
        error => OpenError::io("pipe2", error),
    })
}

/// One end of the pipe.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// `NOWAIT` while the descriptor is in blocking mode, nothing while it is not.
    now: Cell<ReadWriteFlags>,
}

impl Descriptor {
    /// Takes the end over in blocking mode, whatever mode a peer had left it in.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, OpenError> {
        rustix::fs::fcntl_setfl(&fd, OFlags::empty()).map_err(|e| OpenError::io("fcntl", e))?;
        Ok(Self {
            fd,
            now: Cell::new(ReadWriteFlags::NOWAIT),
        })
    }

    /// Called when the flag was refused: from now on the whole descriptor is non-blocking.
    fn do_without_the_flag(&self) -> Result<(), Errno> {
        rustix::fs::fcntl_setfl(&self.fd, OFlags::NONBLOCK)?;
        self.now.set(ReadWriteFlags::empty());
        Ok(())
    }

    pub(crate) fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self {
            fd: self.duplicate()?,
            now: self.now.clone(),
        })
    }

    /// Reads what is there; `None` when that is nothing, `Some(0)` when no writer is left.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            let buffers = &mut [IoSliceMut::new(buffer)];
            match rustix::io::preadv2(&self.fd, buffers, HERE, self.now.get()) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::OPNOTSUPP) => self.do_without_the_flag()?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what is there, sleeping until there is something.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.sleep(Interest::Read)?,
                outcome => return outcome,
            }
        }
    }

    /// Writes what there is room for, up to `PIPE_BUF` bytes whole; `None` when there is none.
    pub(crate) fn write_now(&self, buffers: &[IoSlice<'_>]) -> Result<Option<usize>, Errno> {
        match self.write(buffers, self.now.get()) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes at least a byte, sleeping until there is room; up to `PIPE_BUF` bytes whole.
    pub(crate) fn write_waiting(&self, buffers: &[IoSlice<'_>]) -> Result<usize, Errno> {
        loop {
            match self.write(buffers, ReadWriteFlags::empty()) {
                Err(Errno::AGAIN) => self.sleep(Interest::Write)?,
                outcome => return outcome,
            }
        }
    }

    fn write(&self, buffers: &[IoSlice<'_>], flags: ReadWriteFlags) -> Result<usize, Errno> {
        let mut flags = flags | NOSIGNAL;
        loop {
            match rustix::io::pwritev2(&self.fd, buffers, HERE, flags) {
                Err(Errno::INTR) => {}
                // An older kernel. Rust programs ignore SIGPIPE, so EPIPE is all they see.
                Err(Errno::OPNOTSUPP) if flags.contains(NOSIGNAL) => flags.remove(NOSIGNAL),
                Err(Errno::OPNOTSUPP) if flags.contains(ReadWriteFlags::NOWAIT) => {
                    self.do_without_the_flag()?;
                    flags = NOSIGNAL;
                }
                outcome => return outcome,
            }
        }
    }

    fn sleep(&self, interest: Interest) -> Result<(), Errno> {
        poll([(self.fd.as_fd(), interest)], Wait::Forever).map(drop)
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
