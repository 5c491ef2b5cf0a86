#![expect(
    unsafe_code,
    reason = "memory that another process writes has no safe view"
)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// A cache line on every machine this runs on, and then some.
pub(crate) const LINE: usize = 128;

/// Memory that two processes map.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
}

/// A descriptor of fresh, zeroed memory without a name.
pub(crate) fn anonymous(bytes: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create("ipc-bench", MemfdFlags::CLOEXEC)?;
    ftruncate(&fd, bytes as u64)?;
    Ok(fd)
}

impl Region {
    pub(crate) fn map(fd: impl AsFd) -> io::Result<Self> {
        let file = std::fs::File::from(fd.as_fd().try_clone_to_owned()?);
        Ok(Self {
            map: MmapRaw::map_raw(&file)?,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.map.len() && len <= self.map.len() - offset,
            "outside the region"
        );
        self.map.as_mut_ptr().wrapping_add(offset)
    }

    /// The counter at `offset`, a multiple of its size.
    #[inline]
    pub(crate) fn counter(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(align_of::<AtomicU64>()), "unaligned");
        let at = self.at(offset, size_of::<AtomicU64>()).cast();
        // SAFETY: in bounds and aligned (a map begins on a page); mapped as long as `self`; all
        // processes touch these bytes by atomics only.
        unsafe { AtomicU64::from_ptr(at) }
    }

    /// The futex word at `offset`, a multiple of its size.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(align_of::<AtomicU32>()), "unaligned");
        let at = self.at(offset, size_of::<AtomicU32>()).cast();
        // SAFETY: in bounds and aligned (a map begins on a page); mapped as long as `self`; all
        // processes touch these bytes by atomics only.
        unsafe { AtomicU32::from_ptr(at) }
    }

    /// Copies in. The caller's protocol keeps the other process away from these bytes.
    #[inline]
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: in bounds; the source is private memory and cannot overlap the map.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies out. The caller's protocol keeps the other process away from these bytes.
    #[inline]
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.at(offset, bytes.len());
        // SAFETY: in bounds; the target is private memory and cannot overlap the map.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }
}
