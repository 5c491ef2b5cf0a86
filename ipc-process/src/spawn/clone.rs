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
    argv: *const *const c_char,
    envp: *const *const c_char,
    /// Where in `envp` the child writes its pid.
    pid_digits: *mut u8,
    control: RawFd,
    streams: [RawFd; 3],
    parent: libc::pid_t,
    dies_with_parent: bool,
    new_session: bool,
    error: AtomicI32,
    /// Of a second-level child, from the one in between.
    second: Second,
}

/// The stack of a second-level child, and what became of it.
struct Second {
    stack_top: *mut c_void,
    pid: AtomicI32,
    pidfd: RawFd,
}

/// Makes a child that runs this program's own image: clone(2) with `CLONE_VM | CLONE_VFORK`,
/// so that its cost does not grow with our page tables, and `CLONE_PIDFD`, so that nothing can
/// come between its birth and our holding it. Returns once it has called execve.
pub(crate) fn spawn(spawn: &Spawn) -> Result<(i32, OwnedFd), Errno> {
    with_request(spawn, false, |request, stack_top| {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        let (pid, pidfd) = clone_into(run_child, stack_top, flags, request)?;
        match error_of(request) {
            Ok(()) => Ok((pid, pidfd)),
            Err(error) => {
                crate::reap::forget(&pidfd);
                Err(error)
            }
        }
    })
}

/// As [`spawn`], in a session of its own and as a child of a child that ends at once, so that it
/// is nobody's here. The one in between shares our descriptor table, in which the descriptor of
/// the other therefore arrives.
pub(crate) fn spawn_second_level(spawn: &Spawn) -> Result<(i32, OwnedFd), Errno> {
    let mut second_stack = stack();
    with_request(spawn, true, |request, stack_top| {
        // SAFETY: nobody else uses the request yet.
        unsafe { (*request).second.stack_top = second_stack.as_mut_ptr_range().end.cast() };
        let flags = libc::CLONE_VM
            | libc::CLONE_VFORK
            | libc::CLONE_FILES
            | libc::CLONE_PIDFD
            | libc::SIGCHLD;
        let (_, between) = clone_into(run_between, stack_top, flags, request)?;
        crate::reap::forget(&between);
        // SAFETY: both children have ended or executed another image; the request is ours again.
        let Second { pid, pidfd, .. } = unsafe { &(*request).second };
        let (pid, pidfd) = (pid.load(Ordering::Relaxed), *pidfd);
        if pid <= 0 {
            return Err(error_of(request).err().unwrap_or(Errno::AGAIN));
        }
        // SAFETY: clone succeeded with CLONE_PIDFD and stored a descriptor that nobody owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        error_of(request).map(|()| (pid, pidfd))
    })
}

fn stack() -> Vec<MaybeUninit<u128>> {
    vec![MaybeUninit::uninit(); STACK / size_of::<u128>()]
}

/// Lends out a request and the top of a stack for a child, with all signals blocked: a handler
/// that ran in the child would run in our memory.
fn with_request<T>(
    spawn: &Spawn,
    new_session: bool,
    run: impl FnOnce(*mut Request, *mut c_void) -> T,
) -> T {
    let mut marker = spawn.marker.clone().into_bytes();
    let digits = marker.len();
    marker.extend([b'0'; PID_DIGITS]);
    marker.push(0);
    let marker = marker.as_mut_ptr();

    let argv = pointers(&spawn.argv, None);
    let envp = pointers(&spawn.envp, Some(marker.cast_const().cast()));
    let raw = |stream: &Option<OwnedFd>| stream.as_ref().map_or(-1, |fd| fd.as_raw_fd());
    let mut request = Request {
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        pid_digits: marker.wrapping_add(digits),
        control: spawn.control.as_raw_fd(),
        streams: [
            raw(&spawn.streams[0]),
            raw(&spawn.streams[1]),
            raw(&spawn.streams[2]),
        ],
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        dies_with_parent: spawn.dies_with_parent,
        new_session,
        error: AtomicI32::new(0),
        second: Second {
            stack_top: ptr::null_mut(),
            pid: AtomicI32::new(0),
            pidfd: -1,
        },
    };
    let mut stack = stack();
    let before = signals::block_all();
    let result = run(&raw mut request, stack.as_mut_ptr_range().end.cast());
    signals::restore(&before);
    result
}

fn pointers(strings: &[CString], last: Option<*const c_char>) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain(last)
        .chain([ptr::null()])
        .collect()
}

/// Flags with `CLONE_VM | CLONE_VFORK | CLONE_PIDFD`.
fn clone_into(
    run: extern "C" fn(*mut c_void) -> c_int,
    stack_top: *mut c_void,
    flags: c_int,
    request: *mut Request,
) -> Result<(i32, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    // SAFETY: `run` only makes async-signal-safe calls and ends in execve or _exit; with
    // CLONE_VFORK this thread sleeps until then, so that the stack, which is the child's own, grows
    // down from its end and is aligned to 16, outlives its use, as does the request.
    let pid = unsafe { libc::clone(run, stack_top, flags, request.cast(), &raw mut pidfd) };
    check(pid)?;
    // SAFETY: clone succeeded with CLONE_PIDFD and so stored a new descriptor that nobody owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

fn error_of(request: *mut Request) -> Result<(), Errno> {
    // SAFETY: the request outlives `with_request`, which this is called in.
    // Ordering: the kernel woke us after the child wrote, which orders everything.
    match unsafe { (*request).error.load(Ordering::Relaxed) } {
        0 => Ok(()),
        error => Err(Errno::from_raw_os_error(error)),
    }
}

/// The child in between, which shares our memory and our descriptor table. No allocation, no
/// lock, no panic.
extern "C" fn run_between(request: *mut c_void) -> c_int {
    let request = request.cast::<Request>();
    // SAFETY: `spawn_second_level` passes a request that only this child uses until it ends.
    let stack_top = unsafe { (*request).second.stack_top };
    // SAFETY: a place in the request, for one word.
    let pidfd = unsafe { &raw mut (*request).second.pidfd };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: as in `clone_into`; without CLONE_FILES the new child has its own descriptor table.
    let pid = unsafe { libc::clone(run_child, stack_top, flags, request.cast(), pidfd) };
    if let Err(error) = check(pid) {
        // SAFETY: as above.
        unsafe { &(*request).error }.store(error.raw_os_error(), Ordering::Relaxed);
    }
    // SAFETY: as above.
    unsafe { &(*request).second.pid }.store(pid, Ordering::Relaxed);
    // SAFETY: _exit runs no handlers and unwinds nothing of the parent's.
    unsafe { libc::_exit(0) }
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
    if request.new_session {
        // SAFETY: concerns this process, which leads no group yet.
        check(unsafe { libc::setsid() })?;
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
    // SAFETY: argv and envp are null-terminated arrays of C strings, alive in the parent.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), request.argv, request.envp) };
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
