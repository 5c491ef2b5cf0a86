//! What a pipe cannot say: whether the other side closed in good order or died.
//!
//! A small file beside the pipe, to which each end appends one byte as it comes and goes: a memfd
//! for a nameless pipe, a file beside a FIFO. Unlike a frame, a note always has room, so closing
//! never waits for a full pipe. Appends are atomic (`O_APPEND`, `write(2)`).

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use ipc_core::{Limit, OpenError};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::process::{Resource, getrlimit};

const SENDER_OPENED: u8 = b'+';
const SENDER_CLOSED: u8 = b'-';
const RECEIVER_CLOSED: u8 = b'x';

/// Notes are read in blocks, and no further than this: a peer may have written nonsense.
const MOST: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Notes(File);

impl Notes {
    pub(crate) fn anonymous() -> Result<Self, OpenError> {
        let file = rustix::fs::memfd_create("ipc-pipe-notes", MemfdFlags::CLOEXEC)
            .map_err(|e| OpenError::io("memfd_create", e))?;
        Self::from_fd(file)
    }

    /// Takes over a descriptor, perhaps from another process.
    pub(crate) fn from_fd(file: OwnedFd) -> Result<Self, OpenError> {
        let stat = rustix::fs::fstat(&file).map_err(|e| OpenError::io("fstat", e))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(OpenError::Untrusted {
                what: "the pipe's notes are not a file",
            });
        }
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map_err(|e| OpenError::io("fcntl", e))?;
        Ok(Self(file.into()))
    }

    pub(crate) fn try_clone(&self) -> Result<Self, OpenError> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|e| OpenError::io("fcntl", e))
    }

    pub(crate) fn sender_opened(&self) -> Result<(), OpenError> {
        match self.append(SENDER_OPENED) {
            Err(error) if error.kind() == ErrorKind::FileTooLarge => Err(OpenError::Limit(Limit {
                name: "RLIMIT_FSIZE",
                value: getrlimit(Resource::Fsize).current,
                advice: "raise it (ulimit -f): a pipe keeps a few bytes of notes in memory that \
                         counts as a file",
            })),
            noted => noted.map_err(|e| OpenError::io("write", e)),
        }
    }

    /// Best effort, as drops are: a note that cannot be written makes the end look like a death.
    pub(crate) fn sender_closed(&self) {
        let _ = self.append(SENDER_CLOSED);
    }

    pub(crate) fn receiver_closed(&self) {
        let _ = self.append(RECEIVER_CLOSED);
    }

    /// How many senders ever came.
    pub(crate) fn senders(&self) -> u64 {
        self.count(SENDER_OPENED)
    }

    /// Asked once no sender is left: whether each said that it closed.
    pub(crate) fn all_senders_closed(&self) -> bool {
        self.count(SENDER_OPENED) <= self.count(SENDER_CLOSED)
    }

    /// Asked once the receiver is gone: whether it said that it closed.
    pub(crate) fn is_receiver_closed(&self) -> bool {
        self.count(RECEIVER_CLOSED) > 0
    }

    fn append(&self, note: u8) -> std::io::Result<()> {
        // Beyond the limit of file sizes a write is a SIGXFSZ, which ends the process
        // (setrlimit(2)): ask first.
        if let Some(most) = getrlimit(Resource::Fsize).current
            && self.0.metadata()?.len() >= most
        {
            return Err(ErrorKind::FileTooLarge.into());
        }
        (&self.0).write_all(&[note])
    }

    fn count(&self, note: u8) -> u64 {
        let mut block = [0u8; 512];
        let mut offset = 0;
        let mut found = 0;
        while offset < MOST
            && let Ok(len @ 1..) = self.0.read_at(&mut block, offset)
        {
            found += block[..len].iter().filter(|&&byte| byte == note).count() as u64;
            offset += len as u64;
        }
        found
    }
}

impl AsFd for Notes {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
