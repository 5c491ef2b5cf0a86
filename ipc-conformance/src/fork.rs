#![expect(unsafe_code, reason = "fork has no safe wrapper")]
//! What a child made by a bare `fork(2)` does to the ends of its parent.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, waitpid};

use crate::procfs;

/// A child that has ended with this code and waits to be waited for.
pub(crate) fn ended_child(code: i32) -> Pid {
    // SAFETY: the child makes one call, which ends it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the process, and nothing of it runs any more.
        unsafe { libc::_exit(code) }
    }
    let pid = Pid::from_raw(child).filter(|_| child > 0).expect("fork");
    procfs::until("a child to end", || {
        procfs::state(child.unsigned_abs()) == Some('Z')
    });
    pid
}

/// Drops a forked child's copy of the value, waits for the child's end and gives the value back.
pub(crate) fn dropped_in_a_child<T>(value: T) -> T {
    // SAFETY: the child runs destructors and leaves by _exit. It has only the calling thread, so a
    // lock that another one holds now would stay locked: those of the allocator are seen to by the
    // C library, and to get by without any other is what these destructors are tested for.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Lest a drop that hangs outlives a case that the watchdog kills.
        let bound = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(value))).is_ok();
        // SAFETY: ends the process, and nothing of it runs any more.
        unsafe { libc::_exit(i32::from(!(bound && dropped))) }
    }
    let child = Pid::from_raw(child).filter(|_| child > 0).expect("fork");
    let (_, status) = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()))
        .expect("waitpid")
        .expect("the child has ended");
    assert_eq!(status.exit_status(), Some(0), "the child: {status:?}");
    value
}
