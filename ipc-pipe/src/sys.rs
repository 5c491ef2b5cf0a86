//! Every system call on the pipe itself: `pipe2(2)`, `read(2)`, `readv(2)`, `write(2)`, `writev(2)`,
//! `preadv2(2)`, `pwritev2(2)`.
//!
//! `RWF_NOWAIT` makes a single call non-blocking, and the descriptor stays in blocking mode, so that a
//! wait without a deadline is one call. A FIFO does not know the flag, nameless pipes do since Linux
//! 6.4, and a sandbox may refuse the calls that have flags: such a descriptor is non-blocking instead.

use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::wait::{Interest, Sleep, poll};
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

/// File system of the pipes without a name, `PIPEFS_MAGIC` of `statfs(2)`.
const PIPEFS: rustix::fs::FsWord = 0x5049_5045;

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
    /// Takes the reading end over, whatever mode a peer had left it in.
    pub(crate) fn reader(fd: OwnedFd) -> Result<Self, OpenError> {
        let nameless = rustix::fs::fstatfs(&fd).is_ok_and(|on| on.f_type == PIPEFS);
        let (mode, now) = if nameless {
            (OFlags::empty(), ReadWriteFlags::NOWAIT)
        } else {
            (OFlags::NONBLOCK, ReadWriteFlags::empty())
        };
        rustix::fs::fcntl_setfl(&fd, mode).map_err(|e| OpenError::io("fcntl", e))?;
        Ok(Self {
            fd,
            now: Cell::new(now),
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
    #[cold]
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

    /// Reads what is there; 0 when no writer is left.
    #[inline]
    pub(crate) fn read(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        sleep: Sleep,
    ) -> Result<usize, Errno> {
        loop {
            let flags = self.flags(sleep);
            let read = match &mut *buffers {
                [buffer] if flags.is_empty() => rustix::io::read(&self.fd, &mut **buffer),
                _ if flags.is_empty() => rustix::io::readv(&self.fd, buffers),
                _ => rustix::io::preadv2(&self.fd, buffers, HERE, flags),
            };
            match read {
                Err(Errno::AGAIN) if sleep == Sleep::Allowed => self.sleep(Interest::Read)?,
                Err(error) if is_refused(error, flags) => self.do_without_nowait()?,
                outcome => return outcome,
            }
        }
    }

    /// Writes what there is room for, up to `PIPE_BUF` bytes whole.
    #[inline]
    pub(crate) fn write(&self, buffers: &[IoSlice<'_>], sleep: Sleep) -> Result<usize, Errno> {
        loop {
            let flags = self.flags(sleep) | self.quiet.get();
            let written = match buffers {
                [buffer] if flags.is_empty() => rustix::io::write(&self.fd, buffer),
                _ if flags.is_empty() => rustix::io::writev(&self.fd, buffers),
                _ => rustix::io::pwritev2(&self.fd, buffers, HERE, flags),
            };
            match written {
                Err(Errno::AGAIN) if sleep == Sleep::Allowed => self.sleep(Interest::Write)?,
                // A kernel before 6.18. SIGPIPE then hits a host that does not ignore it.
                Err(error) if is_refused(error, flags) && flags.contains(NOSIGNAL) => {
                    self.quiet.set(ReadWriteFlags::empty());
                }
                Err(error) if is_refused(error, flags) => self.do_without_nowait()?,
                outcome => return outcome,
            }
        }
    }

    fn flags(&self, sleep: Sleep) -> ReadWriteFlags {
        match sleep {
            Sleep::Never => self.now.get(),
            Sleep::Allowed => ReadWriteFlags::empty(),
        }
    }

    /// What a descriptor without `O_NONBLOCK` does in the call itself.
    #[cold]
    fn sleep(&self, interest: Interest) -> Result<(), Errno> {
        poll([(self.fd.as_fd(), interest)], Wait::Forever).map(drop)
    }
}

/// Whether an error says that the kernel does not know one of these flags, or that a sandbox allows no
/// call that has some: a filter of system calls (seccomp(2)) answers as it likes.
fn is_refused(error: Errno, flags: ReadWriteFlags) -> bool {
    !flags.is_empty() && matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM)
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
