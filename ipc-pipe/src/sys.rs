//! Every system call on the pipe itself: `pipe2(2)`, `read(2)`, `preadv2(2)`, `pwritev2(2)`.
//!
//! The descriptors stay in blocking mode, so that a wait without a deadline is one call.
//! `RWF_NOWAIT` makes a single call non-blocking instead of the open file description, which other
//! processes share.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use ipc_core::{Limit, OpenError};
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

/// Reads what is there; `None` when that is nothing, `Some(0)` when no writer is left.
pub(crate) fn read_now(fd: impl AsFd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    loop {
        let buffers = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&fd, buffers, HERE, ReadWriteFlags::NOWAIT) {
            Ok(len) => return Ok(Some(len)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads what is there, sleeping until there is something.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::io::read(&fd, &mut *buffer) {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}

/// Writes what there is room for; `None` when that is nothing.
pub(crate) fn write_now(fd: impl AsFd, buffers: &[IoSlice<'_>]) -> Result<Option<usize>, Errno> {
    match write(fd, buffers, ReadWriteFlags::NOWAIT) {
        Ok(len) => Ok(Some(len)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes at least a byte, sleeping until there is room; up to `PIPE_BUF` bytes whole.
pub(crate) fn write_waiting(fd: impl AsFd, buffers: &[IoSlice<'_>]) -> Result<usize, Errno> {
    write(fd, buffers, ReadWriteFlags::empty())
}

fn write(fd: impl AsFd, buffers: &[IoSlice<'_>], flags: ReadWriteFlags) -> Result<usize, Errno> {
    let mut flags = flags | NOSIGNAL;
    loop {
        match rustix::io::pwritev2(&fd, buffers, HERE, flags) {
            Err(Errno::INTR) => {}
            // An older kernel. Rust programs ignore SIGPIPE, so EPIPE is all they see.
            Err(Errno::OPNOTSUPP) if flags.contains(NOSIGNAL) => flags.remove(NOSIGNAL),
            outcome => return outcome,
        }
    }
}
