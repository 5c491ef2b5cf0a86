//! Plain named shared memory, as other programs make it.

use std::os::fd::OwnedFd;

use ipc_core::OpenError;
use rustix::fs::{FallocateFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::shm::OFlags;

use crate::sys::{check_file_size, open_error};

/// A POSIX shared memory object (`shm_open(3)`), for exchanging bytes with programs that know
/// nothing of this crate.
///
/// It is a piece of memory and nothing more: no messages, no waiting, no notice of a death. Its
/// size cannot be sealed, so any process of the same user may shrink it. Bytes are therefore
/// copied by `pread(2)` and `pwrite(2)` on the same pages and not through a mapping: of a segment
/// that was cut off under a mapping, the next touch would be a SIGBUS, and here it is an error.
#[derive(Debug)]
pub struct Segment {
    memory: OwnedFd,
}

impl Segment {
    /// Makes a segment of `len` zero bytes, mode 0600, that did not exist. It stays until somebody
    /// [unlinks](Self::unlink) it.
    ///
    /// # Errors
    /// `NameInUse`, `Limit` when the memory is not there (nothing is left then), `Invalid` for a
    /// name with a slash after the first character or longer than 255 bytes.
    pub fn create(name: &str, len: usize) -> Result<Self, OpenError> {
        check_file_size(len as u64)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let memory = rustix::shm::open(name, flags, Mode::RUSR | Mode::WUSR).map_err(open)?;
        let allocated = loop {
            match rustix::fs::fallocate(&memory, FallocateFlags::empty(), 0, len as u64) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        if let Err(error) = allocated {
            // Ours since O_EXCL, and of no use to anybody.
            let _ = rustix::shm::unlink(name);
            return Err(open_error("fallocate", error));
        }
        Ok(Self { memory })
    }

    /// Opens a segment that exists.
    ///
    /// # Errors
    /// `NotFound`; `Untrusted` if it belongs to another user or others may open it; `Invalid` as
    /// in [`create`](Self::create).
    pub fn open(name: &str) -> Result<Self, OpenError> {
        let memory =
            rustix::shm::open(name, OFlags::RDWR | NOFOLLOW, Mode::empty()).map_err(open)?;
        let stat = rustix::fs::fstat(&memory).map_err(|error| open_error("fstat", error))?;
        ipc_core::check_ownership(&stat, FileType::RegularFile)?;
        Ok(Self { memory })
    }

    /// Removes a name. Open segments live on.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn unlink(name: &str) -> Result<(), OpenError> {
        rustix::shm::unlink(name).map_err(open)
    }

    /// Length in bytes now.
    ///
    /// # Errors
    /// `Io`.
    pub fn len(&self) -> Result<usize, OpenError> {
        let stat = rustix::fs::fstat(&self.memory).map_err(|error| open_error("fstat", error))?;
        Ok(usize::try_from(stat.st_size).unwrap_or(usize::MAX))
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn is_empty(&self) -> Result<bool, OpenError> {
        Ok(self.len()? == 0)
    }

    /// Copies bytes out, from `offset` on, as many as `buffer` has. No order among bytes is
    /// promised when another process writes them meanwhile.
    ///
    /// # Errors
    /// `Invalid` if the segment ends before; `Io`.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), OpenError> {
        self.check(offset, buffer.len())?;
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&self.memory, &mut buffer[done..], (offset + done) as u64) {
                Ok(0) => return Err(OUTSIDE),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(open_error("pread", error)),
            }
        }
        Ok(())
    }

    /// Copies bytes in at `offset`. The segment does not grow.
    ///
    /// # Errors
    /// `Invalid` if the segment ends before, and then nothing was written; `Io`.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OpenError> {
        self.check(offset, bytes.len())?;
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pwrite(&self.memory, &bytes[done..], (offset + done) as u64) {
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(open_error("pwrite", error)),
            }
        }
        Ok(())
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), OpenError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len()? => Ok(()),
            _ => Err(OUTSIDE),
        }
    }
}

/// `shm_open` of the C library adds it, ours does not.
const NOFOLLOW: OFlags = OFlags::from_bits_retain(rustix::fs::OFlags::NOFOLLOW.bits());

const OUTSIDE: OpenError = OpenError::Invalid {
    what: "the segment ends before those bytes",
};

fn open(error: Errno) -> OpenError {
    match error {
        Errno::NOENT => OpenError::NotFound,
        Errno::EXIST => OpenError::NameInUse,
        Errno::LOOP => OpenError::Untrusted {
            what: "a symbolic link at the segment's name",
        },
        Errno::ACCESS => OpenError::Untrusted {
            what: "a segment that this user may not open",
        },
        Errno::INVAL | Errno::NAMETOOLONG => OpenError::Invalid {
            what: "a segment's name is a slash and up to 254 characters that are no slashes",
        },
        error => open_error("shm_open", error),
    }
}
