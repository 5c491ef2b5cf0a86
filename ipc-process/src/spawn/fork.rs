//! fork(2) as a process with a single thread may do it, with a process descriptor and as a child of
//! its parent: clone(2).
#![expect(unsafe_code, reason = "a clone that forks has no safe form")]

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::sys::check;

/// What a fork needs. It holds the stack on which every child runs; each has its own copy.
#[derive(Debug)]
pub(crate) struct Forker {
    stack_top: *mut c_void,
    /// Where the C library keeps its thread's id; null where that is not known.
    tid: *mut libc::pid_t,
    /// Head and length of the list of robust mutexes.
    robust: (*mut c_void, usize),
}

/// As large as a main thread's.
const STACK: usize = 8 << 20;
/// More than a page on any machine.
const GUARD: usize = 64 << 10;

impl Forker {
    /// For a process that has one thread.
    ///
    /// # Errors
    /// BUSY with several threads, whose locks a child would find held for ever; what mmap(2)
    /// reports.
    pub(crate) fn new() -> Result<Self, Errno> {
        if std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 1 {
            return Err(Errno::BUSY);
        }
        let whole = STACK + GUARD;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let bottom = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                whole,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK,
            )
        }?;
        // SAFETY: the lowest part of that mapping, which nobody uses.
        unsafe { rustix::mm::mprotect(bottom, GUARD, MprotectFlags::empty()) }?;
        Ok(Self {
            stack_top: bottom.cast::<u8>().wrapping_add(whole).cast(),
            tid: tid_address(),
            robust: robust_list(),
        })
    }

    /// Whether the C library knows a child's only thread by its right id. Where it does not, the
    /// child has to run code that is not ours in another thread.
    pub(crate) fn renews_thread(&self) -> bool {
        !self.tid.is_null()
    }

    /// Makes a child of this process's parent that calls `run` with its copy of `state`, and ends when that returns. Gives
    /// back ours.
    pub(crate) fn fork<T>(&self, state: T, run: fn(T)) -> (T, Result<(i32, OwnedFd), Errno>) {
        // With CLONE_PARENT the exit signal is that of this process.
        let mut flags = libc::CLONE_PIDFD | libc::CLONE_PARENT;
        if self.renews_thread() {
            flags |= libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
        }
        let mut job = Job {
            state: ManuallyDrop::new(state),
            run,
            robust: self.robust,
        };
        let mut pidfd: RawFd = -1;
        // SAFETY: without CLONE_VM the child has its own copy of `job` and of the stack, which
        // grows down from its page-aligned end. This process has one thread, so that no lock is
        // held and the child may do everything. `tid` is where the C library keeps the id.
        let pid = unsafe {
            libc::clone(
                enter_child::<T>,
                self.stack_top,
                flags,
                (&raw mut job).cast(),
                &raw mut pidfd,
                ptr::null_mut::<c_void>(),
                self.tid,
            )
        };
        let forked = check(pid).map(|()| {
            // SAFETY: clone succeeded with CLONE_PIDFD and stored a descriptor that nobody owns.
            (pid, unsafe { OwnedFd::from_raw_fd(pidfd) })
        });
        (ManuallyDrop::into_inner(job.state), forked)
    }
}

struct Job<T> {
    state: ManuallyDrop<T>,
    run: fn(T),
    robust: (*mut c_void, usize),
}

extern "C" fn enter_child<T>(job: *mut c_void) -> c_int {
    // SAFETY: `fork` passes a pointer to this type, of which this process has its own copy.
    let job = unsafe { &mut *job.cast::<Job<T>>() };
    set_robust_list(job.robust);
    // SAFETY: taken once: this process never returns into the copy of `fork`.
    let state = unsafe { ManuallyDrop::take(&mut job.state) };
    (job.run)(state);
    0
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
