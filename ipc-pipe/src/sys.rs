//! Every system call on the pipe itself: `pipe2(2)`, `read(2)`, `readv(2)`, `write(2)`, `writev(2)`,
//! `preadv2(2)`, `pwritev2(2)`.
//!
//! `RWF_NOWAIT` makes a single call non-blocking, and the descriptor stays in blocking mode, so that a
//! wait without a deadline is one call. Nameless pipes know the flag since Linux 6.4; a FIFO, or an
//! older kernel, refuses it with EOPNOTSUPP; from then on the descriptor is non-blocking.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::{Interest, poll};
use ipc_core::{OpenError, Wait};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::pipe::PipeFlags;

/// "The current position", the only one a pipe has (`preadv2(2)`).
const HERE: u64 = u64::MAX;

/// `RWF_NOSIGNAL` of `<linux/fs.h>`: no SIGPIPE, from Linux 6.18.
const NOSIGNAL: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x100);

pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), OpenError> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| OpenError::io("pipe2", e))
}

/// One end of the pipe.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    /// `NOWAIT` while the descriptor is in blocking mode, nothing while it is not.
    now: Cell<ReadWriteFlags>,
    /// `NOSIGNAL` while it is needed and known to the kernel.
    quiet: Cell<ReadWriteFlags>,
}

impl Descriptor {
    /// Takes the reading end over in blocking mode, whatever mode a peer had left it in.
    pub(crate) fn reader(fd: OwnedFd) -> Result<Self, OpenError> {
        rustix::fs::fcntl_setfl(&fd, OFlags::empty()).map_err(|e| OpenError::io("fcntl", e))?;
        Ok(Self {
            fd,
            now: Cell::new(ReadWriteFlags::NOWAIT),
            quiet: Cell::new(ReadWriteFlags::empty()),
        })
    }

    /// Takes the writing end over likewise.
    pub(crate) fn writer(fd: OwnedFd) -> Result<Self, OpenError> {
        let writer = Self::reader(fd)?;
        // `write(2)` is a fifth cheaper than `pwritev2(2)` with the flag.
        if !ignores_sigpipe() {
            writer.quiet.set(NOSIGNAL);
        }
        Ok(writer)
    }

    /// Called when the flag was refused: from now on the whole descriptor is non-blocking.
    fn do_without_nowait(&self) -> Result<(), Errno> {
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
            quiet: self.quiet.clone(),
        })
    }

    /// Reads what is there; `None` when that is nothing, `Some(0)` when no writer is left.
    pub(crate) fn read_now(&self, buffers: &mut [IoSliceMut<'_>]) -> Result<Option<usize>, Errno> {
        loop {
            match rustix::io::preadv2(&self.fd, buffers, HERE, self.now.get()) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::OPNOTSUPP) => self.do_without_nowait()?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what is there, sleeping until there is something.
    pub(crate) fn read_waiting(&self, buffers: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
        loop {
            let read = match &mut *buffers {
                [buffer] => rustix::io::read(&self.fd, &mut **buffer),
                _ => rustix::io::readv(&self.fd, buffers),
            };
            match read {
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

    fn write(&self, buffers: &[IoSlice<'_>], now: ReadWriteFlags) -> Result<usize, Errno> {
        let mut now = now;
        loop {
            let flags = now | self.quiet.get();
            let written = match buffers {
                [buffer] if flags.is_empty() => rustix::io::write(&self.fd, buffer),
                _ if flags.is_empty() => rustix::io::writev(&self.fd, buffers),
                _ => rustix::io::pwritev2(&self.fd, buffers, HERE, flags),
            };
            match written {
                Err(Errno::INTR) => {}
                // A kernel before 6.18. SIGPIPE then hits a host that does not ignore it.
                Err(Errno::OPNOTSUPP) if flags.contains(NOSIGNAL) => {
                    self.quiet.set(ReadWriteFlags::empty());
                }
                Err(Errno::OPNOTSUPP) if flags.contains(ReadWriteFlags::NOWAIT) => {
                    self.do_without_nowait()?;
                    now = ReadWriteFlags::empty();
                }
                outcome => return outcome,
            }
        }
    }

    fn sleep(&self, interest: Interest) -> Result<(), Errno> {
        poll([(self.fd.as_fd(), interest)], Wait::Forever).map(drop)
    }
}

/// Whether this process ignores SIGPIPE, as Rust programs do from their start
/// (`proc_pid_status(5)`). Without `/proc` nobody knows.
fn ignores_sigpipe() -> bool {
    const SIGPIPE: u64 = 1 << (13 - 1);
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|ignored| ignored & SIGPIPE != 0)
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
