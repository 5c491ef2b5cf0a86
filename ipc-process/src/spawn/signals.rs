//! Signal masks and dispositions: pthread_sigmask(3), sigaction(2), signalfd(2).
#![expect(unsafe_code, reason = "the signal calls of libc are C interfaces")]

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Signal;

use super::sys::check;

/// The signals that a thread blocks.
pub(crate) struct Mask(libc::sigset_t);

fn full_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: initialised above.
    unsafe { set.assume_init() }
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised above.
    unsafe { set.assume_init() }
}

fn set_mask(how: i32, set: &libc::sigset_t) -> Mask {
    let mut before = empty_set();
    // SAFETY: both sets are initialised; the mask is this thread's own.
    unsafe { libc::pthread_sigmask(how, set, &raw mut before) };
    Mask(before)
}

/// Lets no signal be delivered to this thread. Gives what it blocked before.
pub(crate) fn block_all() -> Mask {
    set_mask(libc::SIG_SETMASK, &full_set())
}

/// Undoes [`block_all`].
pub(crate) fn restore(before: &Mask) {
    set_mask(libc::SIG_SETMASK, &before.0);
}

/// Lets every signal be delivered to this thread.
pub(crate) fn allow_all() {
    set_mask(libc::SIG_SETMASK, &empty_set());
}

/// Lets every signal but this one be delivered to this thread.
pub(crate) fn allow_all_but(signal: Signal) {
    set_mask(libc::SIG_SETMASK, &set_of(signal));
}

fn set_of(signal: Signal) -> libc::sigset_t {
    let mut set = empty_set();
    // SAFETY: the set is initialised, the number is a signal's.
    unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
    set
}

/// Blocks this signal in this thread and those it starts, and gives a descriptor that is readable
/// from its arrival on: signalfd(2).
pub(crate) fn arrival_of(signal: Signal) -> Result<OwnedFd, Errno> {
    let set = set_of(signal);
    set_mask(libc::SIG_BLOCK, &set);
    // SAFETY: the set is initialised.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(fd)?;
    // SAFETY: a new descriptor that nobody owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// For a child that still shares our memory. Handlers back to the default before signals are let
/// through, since they would run in the parent's memory; ignored SIGCHLD and SIGPIPE too, since
/// execve would keep them ignored and the new process is to start like any other. The mask is kept
/// by execve: it must be empty.
pub(crate) fn default_all() {
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
    allow_all();
}

/// Does what Rust's start-up does before `main`: a write to a closed pipe is an error, not the
/// end of the process. Only for processes that run a function from before `main`.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// The signal of this number, unless there is none or libc keeps it for itself.
pub(crate) fn of_number(number: i32) -> Option<Signal> {
    let real_time = || {
        // SAFETY: numbers in this range are signals that libc leaves to programs.
        let signal = || unsafe { Signal::from_raw_unchecked(number) };
        (libc::SIGRTMIN()..=libc::SIGRTMAX())
            .contains(&number)
            .then(signal)
    };
    Signal::from_named_raw(number).or_else(real_time)
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
