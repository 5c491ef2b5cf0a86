//! What tests see of the system calls on files, and make of them, in their own thread.

use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

thread_local! {
    static SYNCED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static WRITES: Cell<Option<Failing>> = const { Cell::new(None) };
}

/// Writes that fail.
#[derive(Clone, Copy)]
pub(crate) struct Failing {
    /// So many bytes are written first, the last of them by a call that writes less than it should.
    pub(crate) after: usize,
    /// So many calls fail then.
    pub(crate) calls: u32,
    pub(crate) error: Errno,
}

pub(crate) fn note_sync(file: BorrowedFd<'_>) {
    let inode = rustix::fs::fstat(file).expect("an open file").st_ino;
    SYNCED.with_borrow_mut(|inodes| inodes.push(inode));
}

/// The inodes of the files that were synced since the last call.
pub(crate) fn synced() -> Vec<u64> {
    SYNCED.take()
}

/// From now on, or never.
pub(crate) fn fail_writes(failing: Option<Failing>) {
    WRITES.set(failing);
}

/// How many of `len` bytes a write may write.
pub(crate) fn allow_write(len: usize) -> Result<usize, Errno> {
    let Some(mut failing) = WRITES.get() else {
        return Ok(len);
    };
    let outcome = if failing.after > 0 {
        let most = failing.after.min(len);
        failing.after -= most;
        Ok(most)
    } else {
        failing.calls -= 1;
        Err(failing.error)
    };
    WRITES.set((failing.calls > 0).then_some(failing));
    outcome
}
