//! Every system call and every raw pointer of this crate.
#![expect(
    unsafe_code,
    reason = "records are read and written through a shared mapping"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};

use ipc_core::Limit;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Resource;

use crate::fault::Fault;

/// Who may write through a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A shared mapping of a file from its beginning, reached by copies and atomics only: no reference
/// to its bytes ever exists, since another process may write them at any time.
///
/// The file was allocated whole before it was mapped, so a touch never meets a full disk. Sealed
/// memory cannot shrink; any other file that is mapped belongs to this user or to root and lies in
/// no place where others can reach it, so whoever could truncate it, and thereby raise SIGBUS here,
/// could end this process by kill(2) as well.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
    access: Access,
}

impl Map {
    pub(crate) fn new(file: BorrowedFd<'_>, len: usize, access: Access) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(len);
        let raw = match access {
            Access::Read => options.map_raw_read_only(file.as_raw_fd()),
            Access::Write => options.map_raw(file.as_raw_fd()),
        }?;
        Ok(Self { raw, access })
    }

    fn check(&self, at: usize, len: usize) {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.raw.len());
        assert!(
            fits,
            "an access beyond the mapping was not caught by its caller"
        );
    }

    /// A word that may be read, and stored to if the mapping was made for writing.
    #[inline]
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        self.check(at, 8);
        assert!(at.is_multiple_of(8));
        // SAFETY: within the mapping by the check above.
        let word = unsafe { self.raw.as_mut_ptr().add(at) };
        // SAFETY: mappings begin at a page and `at` is a multiple of 8, the mapping lives as long
        // as `self`, and every process reaches this word by atomics.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// A half word of a mapping for writing, for flags and futexes.
    #[inline]
    pub(crate) fn flag(&self, at: usize) -> &AtomicU32 {
        self.check(at, 4);
        assert!(at.is_multiple_of(4) && self.access == Access::Write);
        // SAFETY: within the mapping by the check above.
        let flag = unsafe { self.raw.as_mut_ptr().add(at) };
        // SAFETY: aligned to 4, alive as long as `self`, and never reached as half of a word.
        unsafe { AtomicU32::from_ptr(flag.cast()) }
    }

    /// Copies bytes in.
    #[inline]
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(self.access == Access::Write);
        self.check(at, bytes.len());
        // SAFETY: within the mapping by the check above.
        let to = unsafe { self.raw.as_mut_ptr().add(at) };
        // SAFETY: both ranges are valid for `bytes.len()`, and a slice of this process never
        // overlaps a mapping to which no reference exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies bytes out. They may change under the copy: check the copy, not the mapping.
    #[inline]
    pub(crate) fn read(&self, at: usize, bytes: &mut [u8]) {
        self.check(at, bytes.len());
        // SAFETY: within the mapping by the check above.
        let from = unsafe { self.raw.as_ptr().add(at) };
        // SAFETY: both ranges are valid for `bytes.len()` and do not overlap, as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }
}

/// Gives a file its whole storage at once: a full disk is an error here, not SIGBUS at a store.
pub(crate) fn allocate(file: BorrowedFd<'_>, len: u64) -> Result<(), Fault> {
    check_file_size(len)?;
    loop {
        let full = match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(Errno::NOSPC) => "free space of the file system",
            Err(Errno::DQUOT) => "disk quota",
            Err(Errno::FBIG) => "largest file of the file system",
            Err(error) => return Err(Fault::Io("fallocate", error.into())),
        };
        let free = rustix::fs::fstatfs(file).ok().map(|fs| {
            let block = u64::try_from(fs.f_bsize).unwrap_or(0);
            fs.f_bavail.saturating_mul(block)
        });
        return Err(Fault::Limit(Limit {
            name: full,
            value: free,
            advice: "free some, ask for a smaller capacity or choose another directory",
        }));
    }
}

/// Beyond RLIMIT_FSIZE both growing and writing raise SIGXFSZ, which ends the process
/// (setrlimit(2)): ask first.
pub(crate) fn check_file_size(len: u64) -> Result<(), Fault> {
    match rustix::process::getrlimit(Resource::Fsize).current {
        Some(most) if len > most => Err(Fault::Limit(Limit {
            name: "RLIMIT_FSIZE",
            value: Some(most),
            advice: "raise it with `ulimit -f` or ask for a smaller capacity",
        })),
        _ => Ok(()),
    }
}

/// An allocated file of no name below `directory`: it is gone when the last descriptor closes,
/// however its holders end.
pub(crate) fn unnamed_file(directory: &Path, len: u64) -> Result<OwnedFd, Fault> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    // O_EXCL: no linkat(2) can give it a name later (open(2)).
    let file = match rustix::fs::open(directory, flags | OFlags::TMPFILE | OFlags::EXCL, mode) {
        // A file system without O_TMPFILE, or a kernel that took it for O_DIRECTORY.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) if directory.is_dir() => {
            let path = directory.join(format!(".ipc-file-{:016x}", random()));
            let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = rustix::fs::open(&path, flags, mode).map_err(Fault::io("open"))?;
            rustix::fs::unlink(&path).map_err(Fault::io("unlink"))?;
            file
        }
        outcome => outcome.map_err(Fault::io("open"))?,
    };
    allocate(file.as_fd(), len)?;
    Ok(file)
}

const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// Memory as a file that nobody can shrink, so that no access to it can fault.
pub(crate) fn sealed_memory(name: &CStr, len: u64) -> Result<OwnedFd, Fault> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create(name, flags).map_err(Fault::io("memfd_create"))?;
    allocate(memory.as_fd(), len)?;
    rustix::fs::fcntl_add_seals(&memory, SEALS).map_err(Fault::io("fcntl"))?;
    Ok(memory)
}

/// Whether a descriptor that came from elsewhere is such memory. Seals first, then the size, which
/// they keep from changing.
pub(crate) fn is_sealed_memory(memory: BorrowedFd<'_>, len: u64) -> bool {
    rustix::fs::fcntl_get_seals(memory).is_ok_and(|seals| seals.contains(SEALS))
        && rustix::fs::fstat(memory).is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(len))
}

/// Whether a descriptor that came from elsewhere is a file of this size which has no name by which
/// others could reach it, and which belongs to this user or to root.
pub(crate) fn is_unnamed_file(file: BorrowedFd<'_>, len: u64) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && stat.st_nlink == 0
            && (stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw())
            && stat.st_mode & 0o077 == 0
            && u64::try_from(stat.st_size) == Ok(len)
    })
}

/// The same file for one who is only to read it: through this descriptor it cannot be truncated.
pub(crate) fn read_only(file: BorrowedFd<'_>) -> Result<OwnedFd, Fault> {
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Fault::io("open"))
}

/// A doorbell that stays rung until it is quietened: a pipe without a name.
pub(crate) fn doorbell() -> Result<OwnedFd, Fault> {
    let (reader, _) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(Fault::io("pipe2"))?;
    // Root's may be taken over by others, who open it anew. Without a name it is found through a
    // descriptor only.
    rustix::fs::fchmod(&reader, Mode::from_raw_mode(0o666)).map_err(Fault::io("fchmod"))?;
    own_doorbell(reader.as_fd()).map_err(Fault::io("open"))
}

/// The same doorbell through an open file description of this end's own, for both directions
/// (fifo(7)): no peer can change its mode, so no call on it waits, be the pipe full or empty, and
/// since it reads too, no ring ends in SIGPIPE.
pub(crate) fn own_doorbell(bell: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/thread-self/fd/{}", bell.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Rings. A pipe that a hostile peer filled rings already.
pub(crate) fn ring(bell: BorrowedFd<'_>) {
    while rustix::io::write(bell, &[1]) == Err(Errno::INTR) {}
}

/// Makes a rung doorbell silent again.
pub(crate) fn quieten(bell: BorrowedFd<'_>) {
    // One ring follows one announcement; more than these come from nobody in good faith.
    while rustix::io::read(bell, &mut [0u8; 64]) == Err(Errno::INTR) {}
}

/// Whether a descriptor that came from elsewhere is a pipe without a name: only that behaves as the
/// above says, however its peer treats it.
pub(crate) fn is_doorbell(bell: BorrowedFd<'_>) -> bool {
    /// `PIPEFS_MAGIC` of `<linux/magic.h>`.
    const PIPEFS: u64 = 0x5049_5045;
    rustix::fs::fstatfs(bell).is_ok_and(|fs| fs.f_type as u64 == PIPEFS)
}

/// A number that this boot of the kernel has and no other (random(4)); 0 if it cannot be read, and
/// then no hole in a log is put down to lost power.
pub(crate) fn boot() -> u64 {
    let digits = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = digits
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// A number that no other log is likely to have; not a secret.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// Milliseconds of the monotonic clock to within a tick (1 to 10 ms), without a system call:
/// CLOCK_MONOTONIC_COARSE through the vDSO costs a few nanoseconds.
#[inline]
pub(crate) fn coarse_millis() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec
        .cast_unsigned()
        .wrapping_mul(1000)
        .wrapping_add(now.tv_nsec.cast_unsigned() / 1_000_000)
}

/// `fdatasync(2)`, once: after a failure the pages count as clean and a second call would lie.
pub(crate) fn sync_data(file: BorrowedFd<'_>) -> Result<(), Fault> {
    #[cfg(test)]
    synced::note(file);
    loop {
        match rustix::fs::fdatasync(file) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map_err(Fault::io("fdatasync")),
        }
    }
}

/// `fsync(2)`, for directories.
pub(crate) fn sync_all(file: BorrowedFd<'_>) -> Result<(), Fault> {
    #[cfg(test)]
    synced::note(file);
    loop {
        match rustix::fs::fsync(file) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map_err(Fault::io("fsync")),
        }
    }
}

/// Reads up to the end of the buffer or of the file.
pub(crate) fn read_at(file: BorrowedFd<'_>, bytes: &mut [u8], at: u64) -> Result<usize, Fault> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(file, &mut bytes[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::Io("pread", error.into())),
        }
    }
    Ok(filled)
}

/// Writes all of it.
pub(crate) fn write_at(file: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<(), Fault> {
    check_file_size(at + bytes.len() as u64)?;
    write_within(file, bytes, at)
}

/// As [`write_at`] where [`check_file_size`] has allowed it.
pub(crate) fn write_within(file: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<(), Fault> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::pwrite(file, &bytes[written..], at + written as u64) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::storage("pwrite")(error)),
        }
    }
    Ok(())
}

/// Which files this thread has synced, for the test of lost power.
#[cfg(test)]
pub(crate) mod synced {
    use std::cell::RefCell;
    use std::os::fd::BorrowedFd;

    thread_local! {
        static INODES: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note(file: BorrowedFd<'_>) {
        let inode = rustix::fs::fstat(file).expect("an open file").st_ino;
        INODES.with_borrow_mut(|inodes| inodes.push(inode));
    }

    /// The inodes since the last call.
    pub(crate) fn take() -> Vec<u64> {
        INODES.take()
    }
}
