//! clone(2) and execve(2), and what happens between them in memory that both sides share.
#![expect(
    unsafe_code,
    reason = "clone with a shared address space has no safe form"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;

use super::sys::{check, last_errno};
use super::{PID_DIGITS, Spawn, signals};

/// execve and a dozen thin wrappers need a few hundred bytes; a page of room for each surprise.
const STACK: usize = 64 * 1024;

/// What the child reads and the few words that it writes, in the memory both share until execve.
struct Request {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    /// Where in `envp` the child writes its pid.
    pid_digits: *mut u8,
    control: RawFd,
    streams: [RawFd; 3],
    parent: libc::pid_t,
    dies_with_parent: bool,
    error: AtomicI32,
}

/// Makes a child that runs this program's own image: clone(2) with `CLONE_VM | CLONE_VFORK`,
/// so that its cost does not grow with our page tables, and `CLONE_PIDFD`, so that nothing can
/// come between its birth and our holding it. Returns once it has called execve.
pub(crate) fn spawn(spawn: &Spawn) -> Result<(i32, OwnedFd), Errno> {
    let mut marker = spawn.marker.clone().into_bytes();
    let digits = marker.len();
    marker.extend([b'0'; PID_DIGITS]);
    marker.push(0);
    let marker = marker.as_mut_ptr();

    let argv = pointers(&spawn.argv, None);
    let envp = pointers(&spawn.envp, Some(marker.cast_const().cast()));
    let raw = |stream: &Option<OwnedFd>| stream.as_ref().map_or(-1, |fd| fd.as_raw_fd());
    let request = Request {
        program: spawn.program.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        pid_digits: marker.wrapping_add(digits),
        control: spawn.control.as_raw_fd(),
        streams: [
            raw(&spawn.streams[0]),
            raw(&spawn.streams[1]),
            raw(&spawn.streams[2]),
        ],
        parent: rustix::process::getpid().as_raw_pid(),
        dies_with_parent: spawn.dies_with_parent,
        error: AtomicI32::new(0),
    };
    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
    let mut pidfd: RawFd = -1;

    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // A handler that ran in the child would run in our memory.
    let before = signals::block_all();
    // SAFETY: `run_child` only makes async-signal-safe calls and ends in execve or _exit; with
    // CLONE_VFORK this thread sleeps until then, so that stack, request, argv and envp outlive
    // their use, and the stack is its own, grows down from `top` and is aligned to 16.
    let pid = unsafe {
        libc::clone(
            run_child,
            top.cast(),
            flags,
            ptr::from_ref(&request).cast_mut().cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let cloned = check(pid);
    signals::restore(&before);
    cloned?;
    // SAFETY: clone succeeded with CLONE_PIDFD and so stored a new descriptor that nobody owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // Ordering: the kernel woke us after the child wrote, which orders everything.
    match request.error.load(Ordering::Relaxed) {
        0 => Ok((pid, pidfd)),
        error => {
            crate::reap::forget(&pidfd);
            Err(Errno::from_raw_os_error(error))
        }
    }
}

fn pointers(strings: &[CString], last: Option<*const c_char>) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain(last)
        .chain([ptr::null()])
        .collect()
}

/// The child between clone and execve: shares our memory, has its own descriptor table and
/// signal handlers. No allocation, no lock, no panic.
extern "C" fn run_child(request: *mut c_void) -> c_int {
    // SAFETY: whoever cloned passes a request that lives until this child has called execve or
    // _exit, and sleeps meanwhile.
    let request = unsafe { &*request.cast::<Request>() };
    let Err(error) = prepare_and_exec(request);
    request.error.store(error.raw_os_error(), Ordering::Relaxed);
    // SAFETY: _exit runs no handlers and unwinds nothing of the parent's.
    unsafe { libc::_exit(127) }
}

fn prepare_and_exec(request: &Request) -> Result<std::convert::Infallible, Errno> {
    if request.dies_with_parent {
        // Survives execve. The thread that it is tied to is the supervisor, which never ends.
        // SAFETY: sets an attribute of this process.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // SAFETY: getppid cannot fail.
        if unsafe { libc::getppid() } != request.parent {
            // The parent died before the attribute was set: nobody would send the signal.
            return Err(Errno::SRCH);
        }
    }
    signals::default_all();
    for (target, &stream) in (0..).zip(&request.streams) {
        if stream >= 0 {
            // SAFETY: both are plain numbers; dup2 clears close-on-exec on the target.
            check(unsafe { libc::dup2(stream, target) })?;
        }
    }
    // SAFETY: changes a flag of this process's own descriptors.
    let closed = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if closed == -1 {
        return Err(last_errno());
    }
    // SAFETY: clears close-on-exec on the one descriptor that crosses execve.
    check(unsafe { libc::fcntl(request.control, libc::F_SETFD, 0) })?;
    write_pid(request.pid_digits);
    // SAFETY: a C string and two null-terminated arrays of them, alive in the parent.
    unsafe { libc::execve(request.program, request.argv, request.envp) };
    Err(last_errno())
}

/// Completes the marker in the environment.
fn write_pid(digits: *mut u8) {
    // SAFETY: getpid cannot fail.
    let mut pid = unsafe { libc::getpid() }.unsigned_abs();
    for place in (0..PID_DIGITS).rev() {
        // SAFETY: the marker has this many digits, and only this child writes them.
        unsafe { digits.wrapping_add(place).write(b'0' + (pid % 10) as u8) };
        pid /= 10;
    }
}
