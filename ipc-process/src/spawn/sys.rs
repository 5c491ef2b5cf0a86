//! The system calls that have no safe form: clone(2) and execve(2) with what happens between
//! them, pthread_sigmask(3), sigaction(2), ioctl_pidfs(2) PIDFD_GET_INFO, atexit(3).
#![expect(
    unsafe_code,
    reason = "clone with a shared address space has no safe form"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::Errno;
use rustix::process::Signal;

use super::Spawn;

/// execve and a dozen thin wrappers need a few hundred bytes; a page of room for each surprise.
const STACK: usize = 64 * 1024;

/// What the child reads and the one word that it writes, in the memory both share until execve.
struct Request {
    argv: *const *const c_char,
    envp: *const *const c_char,
    control: RawFd,
    streams: [RawFd; 3],
    parent: libc::pid_t,
    dies_with_parent: bool,
    error: AtomicI32,
}

/// Makes a child that runs this program's own image: clone(2) with `CLONE_VM | CLONE_VFORK`,
/// so that its cost does not grow with our page tables, and `CLONE_PIDFD`, so that nothing can
/// come between its birth and our holding it. Returns once it has called execve.
///
/// The calling thread must block all signals: a handler that ran in the child would run in our
/// memory.
pub(crate) fn spawn(spawn: &Spawn) -> Result<(i32, OwnedFd), Errno> {
    let argv = pointers(&spawn.argv);
    let envp = pointers(&spawn.envp);
    let raw = |stream: &Option<OwnedFd>| stream.as_ref().map_or(-1, |fd| fd.as_raw_fd());
    let request = Request {
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        control: spawn.control.as_raw_fd(),
        streams: [
            raw(&spawn.streams[0]),
            raw(&spawn.streams[1]),
            raw(&spawn.streams[2]),
        ],
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        dies_with_parent: spawn.dies_with_parent,
        error: AtomicI32::new(0),
    };
    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
    let mut pidfd: RawFd = -1;

    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
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
    if pid == -1 {
        return Err(last_errno());
    }
    // SAFETY: clone succeeded with CLONE_PIDFD and so stored a new descriptor that nobody owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match request.error.load(Ordering::Relaxed) {
        0 => Ok((pid, pidfd)),
        error => {
            crate::reap::forget(&pidfd);
            Err(Errno::from_raw_os_error(error))
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([ptr::null()])
        .collect()
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The child between clone and execve: shares our memory, has its own descriptor table and
/// signal handlers. No allocation, no lock, no panic.
extern "C" fn run_child(request: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a Request that lives until this child has called execve or _exit.
    let request = unsafe { &*request.cast::<Request>() };
    let Err(error) = prepare_and_exec(request);
    // Ordering: the parent reads after the kernel has woken it, which orders everything.
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
    default_signals();
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
    // SAFETY: argv and envp are null-terminated arrays of C strings, alive in the parent.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), request.argv, request.envp) };
    Err(last_errno())
}

fn check(result: c_int) -> Result<(), Errno> {
    if result == -1 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// Handlers back to the default before signals are let through, since they would run in the
/// parent's memory; ignored SIGCHLD and SIGPIPE too, since execve would keep them ignored and
/// the new process is to start like any other. The mask is kept by execve: it must be empty.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: reads the disposition into memory of the right type; numbers that libc keeps
        // for itself are refused with EINVAL.
        if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } == -1 {
            continue;
        }
        // SAFETY: sigaction filled it in; all zeroes are valid besides.
        let mut action = unsafe { action.assume_init() };
        let ignored = action.sa_sigaction == libc::SIG_IGN;
        let keep = ignored && signal != libc::SIGCHLD && signal != libc::SIGPIPE;
        if action.sa_sigaction == libc::SIG_DFL || keep {
            continue;
        }
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = 0;
        // SAFETY: SIG_DFL is a valid disposition; without CLONE_SIGHAND it is this process's own.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    allow_signals();
}

/// Lets no signal be delivered to this thread.
pub(crate) fn block_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised; the mask is this thread's own.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
}

/// Lets every signal be delivered to this thread.
pub(crate) fn allow_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set is initialised; the mask is this thread's own.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
}

/// Does what Rust's start-up does before `main`: a write to a closed pipe is an error, not the
/// end of the process. Only for processes that run a function from before `main`.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
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

/// Removes a variable from the environment.
pub(crate) fn remove_variable(name: &str) {
    // SAFETY: called once, from before `main` or its first line, where the program has no other
    // thread yet; `init` asks for that.
    unsafe { std::env::remove_var(name) };
}

/// The signal of this number, unless there is none or libc keeps it for itself.
pub(crate) fn signal_of_number(number: i32) -> Option<Signal> {
    let real_time = || {
        // SAFETY: numbers in this range are signals that libc leaves to programs.
        let signal = || unsafe { Signal::from_raw_unchecked(number) };
        (libc::SIGRTMIN()..=libc::SIGRTMAX())
            .contains(&number)
            .then(signal)
    };
    Signal::from_named_raw(number).or_else(real_time)
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

/// What becomes of the children of this process when they end.
pub(crate) struct ChildDisposition(libc::sigaction);

/// Has the kernel discard children that end: `SA_NOCLDWAIT`, sigaction(2). Gives what was before.
pub(crate) fn discard_children() -> Result<ChildDisposition, Errno> {
    // SAFETY: all zeroes are a valid sigaction: the default disposition and an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_flags = libc::SA_NOCLDWAIT;
    let mut previous = action;
    // SAFETY: both are valid for the call; the default disposition runs no code.
    check(unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, &raw mut previous) })?;
    Ok(ChildDisposition(previous))
}

/// Undoes [`discard_children`].
pub(crate) fn restore_children(previous: &ChildDisposition) {
    // SAFETY: it was the disposition of this process before, and so is valid. It cannot fail.
    unsafe { libc::sigaction(libc::SIGCHLD, &raw const previous.0, ptr::null_mut()) };
}

/// Runs `hook` when the program returns from `main` or calls `exit`.
pub(crate) fn at_exit(hook: extern "C" fn()) {
    // SAFETY: the hook is a plain function that does not unwind. Failure (no memory) leaves the
    // rest to PR_SET_PDEATHSIG.
    unsafe { libc::atexit(hook) };
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
