//! The directory of a log: one file a segment, named by its number, and one page to meet on.
//!
//! ```text
//! log/writer             a FIFO: the writer's flock(2), and its death as a hang-up
//! log/control            one page: followers say in it that they sleep, and watch it for news
//! log/0000000000000000   the first segment
//! log/0000000000000001   the next one, and so on
//! ```

use std::cmp::Ordering;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ipc_core::OpenError;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::fault::Fault;
use crate::segment::Header;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::sys;

const CONTROL: &str = "control";
const WRITER: &str = "writer";
/// A segment that is being made. It gets its name when it is whole, so a name stands for a segment.
const UNFINISHED: &str = "unfinished";
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

fn untrusted<T>(what: &'static str) -> Result<T, OpenError> {
    Err(OpenError::Untrusted { what })
}

fn name(number: u64) -> String {
    format!("{number:016x}")
}

impl Directory {
    /// Opens the directory, and makes it first if `create` says so. It must be this user's own and
    /// closed to others: whoever can write to it could truncate the segment that is mapped.
    pub(crate) fn open_at(path: &Path, create: bool) -> Result<Self, OpenError> {
        if create {
            match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) => {
                    let parent = path
                        .parent()
                        .filter(|parent| !parent.as_os_str().is_empty());
                    let parent = rustix::fs::open(
                        parent.unwrap_or(Path::new(".")),
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                        Mode::empty(),
                    );
                    let parent = parent.map_err(|error| OpenError::io("open", error))?;
                    sys::sync_all(parent.as_fd())?;
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Err(OpenError::NotFound),
                Err(error) => return Err(OpenError::io("mkdir", error)),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Err(OpenError::NotFound),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return untrusted("not a directory but a file or link");
            }
            Err(error) => return Err(OpenError::io("open", error)),
        };
        let stat = rustix::fs::fstat(&directory).map_err(|error| OpenError::io("fstat", error))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return untrusted("the log's directory belongs to another user");
        }
        if stat.st_mode & 0o077 != 0 {
            return untrusted("the log's directory is open to others; it must have mode 0700");
        }
        Ok(Self(directory))
    }

    pub(crate) fn try_clone(&self) -> Result<Self, Fault> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|error| Fault::Io("fcntl", error))
    }

    /// Whether the directory has no such segment.
    pub(crate) fn is_gone(&self, number: u64) -> bool {
        rustix::fs::statat(&self.0, name(number), AtFlags::SYMLINK_NOFOLLOW)
            .is_err_and(|error| error == Errno::NOENT)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The page on which writer and followers meet.
    pub(crate) fn control(&self, create: bool, len: u64) -> Result<OwnedFd, OpenError> {
        let create = if create {
            OFlags::CREATE
        } else {
            OFlags::empty()
        };
        let page = self.open_existing(CONTROL, OFlags::RDWR | create, FileType::RegularFile)?;
        if !create.is_empty() {
            sys::allocate(page.as_fd(), len)?;
        }
        Ok(page)
    }

    /// The FIFO whose writing end is the writer's life. The writer opens both ends, since nobody
    /// may be reading yet (fifo(7)).
    pub(crate) fn life(&self, create: bool) -> Result<OwnedFd, OpenError> {
        if create {
            match rustix::fs::mknodat(&self.0, WRITER, FileType::Fifo, PRIVATE, 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(OpenError::io("mknodat", error)),
            }
        }
        let access = if create { OFlags::RDWR } else { OFlags::RDONLY };
        self.open_existing(WRITER, access, FileType::Fifo)
    }

    fn open_existing(
        &self,
        name: &str,
        flags: OFlags,
        expected: FileType,
    ) -> Result<OwnedFd, OpenError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, name, flags, PRIVATE) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(OpenError::NotFound),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::NODEV) => {
                return untrusted("something else stands at the name of a file of the log");
            }
            Err(error) => return Err(OpenError::io("openat", error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| OpenError::io("fstat", error))?;
        ipc_core::check_ownership(&stat, expected)?;
        Ok(file)
    }

    /// The numbers of the segments, in order.
    pub(crate) fn segments(&self) -> Result<Vec<u64>, Fault> {
        let mut numbers = Vec::new();
        for entry in Dir::read_from(&self.0).map_err(Fault::io("open"))? {
            let entry = entry.map_err(Fault::io("getdents64"))?;
            let number = entry
                .file_name()
                .to_str()
                .ok()
                .filter(|name| name.len() == 16)
                .and_then(|name| u64::from_str_radix(name, 16).ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens a segment of the size that its log has.
    pub(crate) fn open(&self, number: u64, shape: Shape) -> Result<OwnedFd, Fault> {
        let (file, stat) = self.open_any(number)?;
        whole(&stat, shape)?;
        Ok(file)
    }

    /// Opens a segment if it still exists.
    pub(crate) fn find(&self, number: u64) -> Result<Option<OwnedFd>, Fault> {
        match self.open_any(number) {
            Ok((file, _)) => Ok(Some(file)),
            Err(Fault::Corrupt(_)) if self.is_gone(number) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    // For writing too, be it only to be read: an overlay file system shows a file that was opened for
    // reading as it was before somebody wrote to it (overlayfs, "Non-standard behavior").
    fn open_any(&self, number: u64) -> Result<(OwnedFd, Stat), Fault> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, name(number), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(Fault::Corrupt("the next segment was removed")),
            Err(error) => return Err(Fault::Io("openat", error.into())),
        };
        let stat = rustix::fs::fstat(&file).map_err(Fault::io("fstat"))?;
        ipc_core::check_ownership(&stat, FileType::RegularFile)
            .map_err(|_| Fault::Corrupt("a segment is not a private file of this user"))?;
        Ok((file, stat))
    }

    /// The header of a segment.
    pub(crate) fn header(&self, number: u64) -> Result<Header, Fault> {
        let (file, _) = self.open_any(number)?;
        header(file.as_fd(), number)
    }

    /// The header and the file of a segment of the size that its log has.
    pub(crate) fn segment(&self, number: u64) -> Result<(Header, OwnedFd), Fault> {
        let (file, stat) = self.open_any(number)?;
        let header = header(file.as_fd(), number)?;
        whole(&stat, header.shape)?;
        Ok((header, file))
    }

    /// Gives a segment that lost its tail its full size again; under the writer's lock only.
    pub(crate) fn restore(&self, number: u64, shape: Shape) -> Result<(), Fault> {
        let (file, stat) = self.open_any(number)?;
        match stat.st_size.cast_unsigned().cmp(&shape.file()) {
            Ordering::Less => sys::allocate(file.as_fd(), shape.file()),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Fault::Corrupt("a segment is longer than its header says")),
        }
    }

    /// Makes a segment: storage, header, then the name.
    pub(crate) fn create(&self, header: &Header) -> Result<OwnedFd, Fault> {
        let file = self.make(header)?;
        self.publish(header.number)?;
        Ok(file)
    }

    /// Makes a segment that has no name of its own yet.
    pub(crate) fn make(&self, header: &Header) -> Result<OwnedFd, Fault> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, UNFINISHED, flags, PRIVATE)
            .map_err(Fault::storage("openat"))?;
        sys::allocate(file.as_fd(), header.shape.file())
            .and_then(|()| sys::write_at(file.as_fd(), &header.encode(), 0))
            .inspect_err(|_| {
                let _ = self.discard_unfinished();
            })?;
        Ok(file)
    }

    /// Gives the segment just made its name.
    pub(crate) fn publish(&self, number: u64) -> Result<(), Fault> {
        rustix::fs::renameat(&self.0, UNFINISHED, &self.0, name(number))
            .map_err(Fault::storage("renameat"))
            .inspect_err(|_| {
                let _ = self.discard_unfinished();
            })
    }

    /// Removes what a writer left that died while it made a segment.
    pub(crate) fn discard_unfinished(&self) -> Result<(), Fault> {
        self.unlink(UNFINISHED)
    }

    /// Removes a segment. Those who have it mapped read on.
    pub(crate) fn remove(&self, number: u64) -> Result<(), Fault> {
        self.unlink(&name(number))
    }

    fn unlink(&self, name: &str) -> Result<(), Fault> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Fault::Io("unlinkat", error.into())),
        }
    }

    /// Bytes of all segments: as `ls` shows them, and as the disk holds them.
    pub(crate) fn length(&self) -> Result<(u64, u64), Fault> {
        let mut sum = (0, 0);
        for number in self.segments()? {
            match rustix::fs::statat(&self.0, name(number), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    sum.0 += stat.st_size.cast_unsigned();
                    // st_blocks counts 512 bytes whatever the file system's block (stat(2)).
                    sum.1 += stat.st_blocks.cast_unsigned() * 512;
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(Fault::Io("fstatat", error.into())),
            }
        }
        Ok(sum)
    }
}

/// Of a file that is shorter the end of the log would never be found.
fn whole(stat: &Stat, shape: Shape) -> Result<(), Fault> {
    if u64::try_from(stat.st_size) == Ok(shape.file()) {
        Ok(())
    } else {
        Err(Fault::Corrupt("a segment was truncated"))
    }
}

fn header(file: BorrowedFd<'_>, number: u64) -> Result<Header, Fault> {
    let mut bytes = [0u8; SEGMENT_HEADER as usize];
    if sys::read_at(file, &mut bytes, 0)? != bytes.len() {
        return Err(Fault::Corrupt("a segment ends within its header"));
    }
    let header = Header::decode(&bytes).map_err(Fault::Corrupt)?;
    if header.number != number || header.shape.slots != 1 {
        return Err(Fault::Corrupt("a segment stands under another one's name"));
    }
    Ok(header)
}

/// Takes the writer's lock. It belongs to the open file description, so the kernel frees it with
/// the last process that holds that, however it ends, at the latest.
pub(crate) fn lock(life: BorrowedFd<'_>) -> Result<(), OpenError> {
    loop {
        match rustix::fs::flock(life, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Err(OpenError::NameInUse),
            Err(error) => return Err(OpenError::io("flock", error)),
        }
    }
}

/// Frees it now: a process that is just starting may hold a copy of the descriptor until its execve(2).
pub(crate) fn unlock(life: BorrowedFd<'_>) {
    let _ = rustix::fs::flock(life, FlockOperation::Unlock);
}
