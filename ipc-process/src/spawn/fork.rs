//! fork(2) as a process with a single thread may do it, with a process descriptor and as a child of
//! its parent: clone(2).
#![expect(unsafe_code, reason = "a clone that forks has no safe form")]

use std::ffi::{c_int, c_long, c_void};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;

use super::sys::{has_one_thread, last_errno};

/// What a fork needs.
#[derive(Debug)]
pub(crate) struct Forker {
    /// Where the C library keeps its thread's id; null where that is not known.
    tid: *mut libc::pid_t,
    /// Head and length of the list of robust mutexes.
    robust: (*mut c_void, usize),
}

/// Which of the two a process is after a fork.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The new one.
    Child,
    /// The one that forked: the new one's pid and descriptor.
    Parent(i32, OwnedFd),
}

impl Forker {
    /// For a process that has one thread.
    ///
    /// # Errors
    /// BUSY with several threads, whose locks a child would find held for ever.
    pub(crate) fn new() -> Result<Self, Errno> {
        // Listing the directory would leave a hole in the heap for every child to write to.
        if !has_one_thread() && std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 1
        {
            return Err(Errno::BUSY);
        }
        Ok(Self {
            tid: tid_address(),
            robust: robust_list(),
        })
    }

    /// Whether the C library knows a child's only thread by its right id. Where it does not, the
    /// child has to run code that is not ours in another thread.
    pub(crate) fn renews_thread(&self) -> bool {
        !self.tid.is_null()
    }

    /// Makes a child of this process's parent, which goes on from here with a copy of everything.
    pub(crate) fn fork(&self) -> Result<Forked, Errno> {
        // With CLONE_PARENT the exit signal is that of this process.
        let mut flags = libc::CLONE_PIDFD | libc::CLONE_PARENT;
        if self.renews_thread() {
            flags |= libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
        }
        let mut pidfd: RawFd = -1;
        // SAFETY: without CLONE_VM the child has its own copy of all memory, this stack included,
        // on which it returns as from fork(2). This process has one thread, so that no lock is held
        // and the child may do everything. `tid` is where the C library keeps the id.
        match unsafe { clone(flags, &raw mut pidfd, self.tid) } {
            -1 => Err(last_errno()),
            0 => {
                set_robust_list(self.robust);
                Ok(Forked::Child)
            }
            pid => {
                // SAFETY: clone succeeded with CLONE_PIDFD and stored a descriptor that nobody owns.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Forked::Parent(pid as i32, pidfd))
            }
        }
    }
}

/// The bare clone(2), which unlike the C library's goes on on the same stack.
///
/// # Safety
/// As of fork(2); `tid` must be null or the place of an id.
unsafe fn clone(flags: c_int, pidfd: *mut RawFd, tid: *mut libc::pid_t) -> c_long {
    let flags = libc::c_ulong::from(flags.cast_unsigned());
    let [first, second] = if cfg!(target_arch = "s390x") {
        [0, flags]
    } else {
        [flags, 0]
    };
    // Some architectures have the pointer to thread-local storage, which no flag here asks for,
    // before the place of the id and not after it: that place is given as both.
    // SAFETY: as promised to this function; no stack of its own.
    unsafe { libc::syscall(libc::SYS_clone, first, second, pidfd, tid, tid) }
}

/// In glibc the address that the kernel clears at the thread's end is that of the cached id, which
/// its own fork renews in the same way. EINVAL without `CONFIG_CHECKPOINT_RESTORE`.
fn tid_address() -> *mut libc::pid_t {
    let mut tid = ptr::null_mut::<libc::pid_t>();
    if !cfg!(target_env = "gnu") {
        return tid;
    }
    // SAFETY: stores one pointer.
    if unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut tid) } == -1 || tid.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the address that the C library gave the kernel to write an id to.
    let cached = unsafe { tid.read() };
    if cached == rustix::thread::gettid().as_raw_nonzero().get() {
        tid
    } else {
        ptr::null_mut()
    }
}

/// get_robust_list(2) of this thread.
fn robust_list() -> (*mut c_void, usize) {
    let mut head = ptr::null_mut::<c_void>();
    let mut length = 0_usize;
    // SAFETY: stores a pointer and a length.
    unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut length) };
    (head, length)
}

/// A fork has the list but not the kernel's note of where it is: set_robust_list(2).
fn set_robust_list((head, length): (*mut c_void, usize)) {
    if !head.is_null() {
        // SAFETY: the list of the thread that this one is a copy of, at the same address.
        unsafe { libc::syscall(libc::SYS_set_robust_list, head, length) };
    }
}
