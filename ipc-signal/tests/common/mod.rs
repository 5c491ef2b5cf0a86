//! What the tests need of a kernel, and of the process that they run in.
#![allow(dead_code, reason = "each target uses its part")]
#![allow(unreachable_pub, reason = "a module of test targets, not of a library")]
#![expect(unsafe_code, reason = "rustix does not know PIDFD_THREAD")]

use std::os::fd::{FromRawFd as _, OwnedFd};

use ipc_process::{Process, Target};

/// The calling thread, where the kernel lets a signal be sent to one thread: `pidfd_open(2)`, `PIDFD_THREAD`.
pub fn this_thread() -> Option<OwnedFd> {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    // SAFETY: two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, thread, libc::PIDFD_THREAD) };
    if fd < 0 {
        eprintln!("skipped: PIDFD_THREAD needs Linux 6.9");
        return None;
    }
    // SAFETY: a new descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).ok()?) })
}

/// Runs a test in a process of its own: before Linux 6.9 no thread may be there that does not block the
/// signal, and those of the test program do not.
pub fn alone(test: impl Target<(), Output = ()>) {
    let process = Process::new(test, ()).daemon(true);
    process.start().unwrap().join().unwrap();
}
