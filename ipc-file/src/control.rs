//! The page beside the log through which a connected pair of ends meet.
//!
//! It holds nothing that the log needs: how far the reader is, who is closed, who sleeps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use ipc_core::OpenError;

use crate::fault::Fault;
use crate::sys::{self, Access, Map};

/// Bytes of the page.
pub(crate) const LEN: u64 = 4096;

// What the reader writes and what the writer writes lie 128 bytes apart: processors fetch lines
// in pairs.
const CONSUMED: usize = 0;
const READER_CLOSED: usize = 8;
const WRITER_CLOSED: usize = 128;
const READER_SLEEPS: usize = 256;
const WRITER_SLEEPS: usize = 384;

#[derive(Debug)]
pub(crate) struct Control {
    page: OwnedFd,
    map: Map,
}

impl Control {
    pub(crate) fn new() -> Result<Self, Fault> {
        Self::map(sys::sealed_memory(c"ipc-file-control", LEN)?)
    }

    /// Takes over a page that came from elsewhere.
    pub(crate) fn from_fd(page: OwnedFd) -> Result<Self, OpenError> {
        if !sys::is_sealed_memory(page.as_fd(), LEN) {
            return Err(OpenError::Untrusted {
                what: "the control page is not sealed memory",
            });
        }
        Ok(Self::map(page)?)
    }

    /// The same page for the other end.
    pub(crate) fn try_clone(&self) -> Result<Self, Fault> {
        Self::map(
            self.page
                .try_clone()
                .map_err(|error| Fault::Io("fcntl", error))?,
        )
    }

    fn map(page: OwnedFd) -> Result<Self, Fault> {
        let map = Map::new(page.as_fd(), LEN as usize, Access::Write)
            .map_err(|error| Fault::Io("mmap", error))?;
        Ok(Self { page, map })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.page.as_fd()
    }

    /// The position up to which the space of the log may be used anew.
    pub(crate) fn consumed(&self) -> &AtomicU64 {
        self.map.word(CONSUMED)
    }

    pub(crate) fn reader_closed(&self) -> &AtomicU32 {
        self.map.flag(READER_CLOSED)
    }

    pub(crate) fn writer_closed(&self) -> &AtomicU32 {
        self.map.flag(WRITER_CLOSED)
    }

    pub(crate) fn reader_sleeps(&self) -> &AtomicU32 {
        self.map.flag(READER_SLEEPS)
    }

    pub(crate) fn writer_sleeps(&self) -> &AtomicU32 {
        self.map.flag(WRITER_SLEEPS)
    }
}

/// Says that this end is about to sleep. Whoever then still finds nothing may sleep.
///
/// Dekker's pattern with [`wakes`]: each side stores, fences, loads. At least one of the two
/// sees the other's store, so either the sleeper finds the news or the waker finds the sleeper.
pub(crate) fn announce(flag: &AtomicU32) {
    flag.store(1, Relaxed);
    fence(SeqCst);
}

/// After a publication: whether the peer sleeps and this call has to wake it.
///
/// A waker that dies between the swap and the doorbell is noticed by its lifeline, on which the
/// sleeper sleeps too.
#[inline]
pub(crate) fn wakes(flag: &AtomicU32) -> bool {
    fence(SeqCst);
    flag.load(Relaxed) != 0 && flag.swap(0, Relaxed) != 0
}
