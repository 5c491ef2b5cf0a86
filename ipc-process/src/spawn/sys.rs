//! The remaining calls that have no safe form: ioctl_pidfs(2) PIDFD_GET_INFO, epoll_wait(2),
//! atexit(3) and an end without its handlers, taking over a descriptor by its number, a group or
//! session that is none of ours.
#![expect(unsafe_code, reason = "C interfaces")]

use std::ffi::{CStr, OsStr, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

pub(super) fn check(result: c_int) -> Result<(), Errno> {
    if result == -1 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// Takes the descriptor that the marker names, if it is open and a Unix sequenced-packet socket.
pub(crate) fn adopt_control(raw: RawFd) -> Option<OwnedFd> {
    if raw < 3 {
        return None;
    }
    // SAFETY: any number may be asked for its flags.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } == -1 {
        return None;
    }
    // SAFETY: it is open, as just seen.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    let is_packet = rustix::net::sockopt::socket_type(borrowed)
        .is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET);
    let is_unix = rustix::net::sockopt::socket_domain(borrowed)
        .is_ok_and(|family| family == rustix::net::AddressFamily::UNIX);
    if !is_packet || !is_unix {
        return None;
    }
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: the process that started us left this descriptor to us, and nothing else in this
    // process knows of it: its number came in the marker.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Whether setenv(3) admits this as the name of a variable.
pub(crate) fn is_variable_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0)
}

/// Sets a variable of the environment, or removes it; not one with a name that there cannot be,
/// which the environment of a program may contain all the same.
pub(crate) fn set_variable(name: &OsStr, value: Option<&OsStr>) {
    if !is_variable_name(name) {
        return;
    }
    match value {
        // SAFETY: called only from before `main` or its first line, where `init` asks for there
        // to be no other thread, and before the function runs.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}

/// The wait status of a process that somebody else reaped, from Linux 6.15 on: ioctl_pidfs(2).
/// `None` while it is not yet reaped, an error where the kernel does not keep it (ENOTTY, ESRCH).
pub(crate) fn exit_status_after_reaping(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    // SAFETY: all zeroes are a valid pidfd_info.
    let mut info: libc::pidfd_info = unsafe { MaybeUninit::zeroed().assume_init() };
    info.mask = libc::PIDFD_INFO_EXIT.into();
    // SAFETY: the request says how long the structure is; the kernel fills in at most that.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) })?;
    let known = info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
    Ok(known.then_some(info.exit_code))
}

/// Has the kernel kill this process when the pipe's other end closes, whoever this process is by
/// then: fcntl(2) F_SETSIG. A byte that arrived would kill it too; a socket that ever carries
/// something is not fit for this, since its reader may be ahead of the event.
pub(crate) fn die_at_hang_up(pipe: BorrowedFd<'_>) -> Result<(), Errno> {
    // <asm-generic/fcntl.h>; libc does not name it.
    const F_SETSIG: c_int = 10;
    let fcntl = |command, argument: c_int| {
        // SAFETY: each of the commands takes a number.
        check(unsafe { libc::fcntl(pipe.as_raw_fd(), command, argument) })
    };
    fcntl(libc::F_SETOWN, rustix::process::getpid().as_raw_pid())?;
    fcntl(F_SETSIG, libc::SIGKILL)?;
    fcntl(libc::F_SETFL, libc::O_ASYNC)
}

/// One thing that `epoll_wait(2)` tells: the number that the descriptor was added with, and the
/// flags.
pub(crate) type Event = (u64, u32);

/// Sleeps until something happens to a descriptor of this epoll, or for so long, rounded up to
/// milliseconds. Adds what has happened to `events`. The form that rustix has leaves the size of
/// the signal mask unset, which the kernel does not read without a mask and memcheck reports.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut Vec<Event>,
    timeout: Option<Duration>,
) -> Result<(), Errno> {
    let mut buffer = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let ms = timeout.map_or(-1, |time| {
        c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    // SAFETY: the buffer has room for as many events as are asked for.
    let count = unsafe {
        libc::epoll_wait(
            epoll.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len() as c_int,
            ms,
        )
    };
    check(count)?;
    let count = usize::try_from(count).unwrap_or(0);
    events.extend(
        buffer
            .iter()
            .take(count)
            .map(|event| (event.u64, event.events)),
    );
    Ok(())
}

/// Runs `hook` when the program returns from `main` or calls `exit`.
pub(crate) fn at_exit(hook: extern "C" fn()) {
    // SAFETY: the hook is a plain function that does not unwind. Failure (no memory) leaves the
    // rest to PR_SET_PDEATHSIG.
    unsafe { libc::atexit(hook) };
}

/// Whether this process has no thread but this one: what unshare(2) asks before it does nothing.
/// No where a sandbox does not let it be asked.
pub(crate) fn has_one_thread() -> bool {
    // SAFETY: with one thread there is nothing to be unshared, with several it is an error.
    unsafe { libc::unshare(libc::CLONE_SIGHAND) == 0 }
}

/// Writes out what C's streams hold: fflush(3).
pub(crate) fn flush_c_streams() {
    // SAFETY: null stands for every stream.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// _exit(2).
pub(crate) fn end_without_handlers(code: i32) -> ! {
    // SAFETY: ends this process, runs nothing of it.
    unsafe { libc::_exit(code) }
}

/// The process group that this process belongs to, as setpgid(2) numbers it; none where its leader
/// is outside this PID namespace: pid_namespaces(7). The form that rustix has takes the kernel's 0
/// for a pid.
pub(crate) fn own_group() -> Option<Pid> {
    // SAFETY: getpgrp cannot fail.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// As [`own_group`], for the session.
pub(crate) fn own_session() -> Option<Pid> {
    // SAFETY: any number may be asked for; that of the calling process, 0, is there.
    Pid::from_raw(unsafe { libc::getsid(0) })
}

/// The name as the kernel shows it for this thread; cut to 15 bytes.
pub(crate) fn set_thread_name(name: &str) {
    let bytes: Vec<u8> = name
        .bytes()
        .filter(|&byte| byte != 0)
        .take(15)
        .chain([0])
        .collect();
    if let Ok(name) = CStr::from_bytes_with_nul(&bytes) {
        // A name is decoration.
        let _ = rustix::thread::set_name(name);
    }
}
