//! The facts of the kernel that this crate relies on. Every signal goes to the calling thread,
//! which blocks it, so the other tests of this process never see it.
#![expect(
    unsafe_code,
    reason = "signals have no safe API; the facts are those of the bare calls"
)]

mod common;

use std::mem::{offset_of, zeroed};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr;

use common::this_thread;
use ipc_process::Process;
use rustix::process::{Resource, Rlimit, setrlimit};

ipc_process::test_support!();

/// The words of a `siginfo_t`: 16 of 8 bytes.
type Words = [u64; 16];

fn signal() -> i32 {
    libc::SIGRTMIN() + 5
}

fn set() -> libc::sigset_t {
    // SAFETY: zeros are a valid set.
    let mut set = unsafe { zeroed() };
    // SAFETY: a valid set.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: a valid set.
    unsafe { libc::sigaddset(&raw mut set, signal()) };
    set
}

fn block() {
    let set = set();
    // SAFETY: a valid set; the mask is this thread's own.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
}

/// A siginfo of SI_QUEUE in which every word has its own value.
fn info(first: u64) -> Words {
    let mut info: Words = std::array::from_fn(|word| first + word as u64);
    let code = i64::from(libc::SI_QUEUE) as u64 & 0xFFFF_FFFF;
    info[0] = 77 << 32 | signal() as u64;
    info[1] = code;
    info
}

fn queue(pidfd: &OwnedFd, info: *const Words) -> i32 {
    // SAFETY: null or 128 readable bytes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal(),
            info,
            0,
        )
    };
    if done == 0 {
        0
    } else {
        std::io::Error::last_os_error().raw_os_error().unwrap()
    }
}

fn take() -> Option<Words> {
    let mut info: Words = [u64::MAX; 16];
    let now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let (set, place) = (set(), (&raw mut info).cast());
    // SAFETY: room for a siginfo_t, and valid constants.
    let taken = unsafe { libc::sigtimedwait(&raw const set, place, &raw const now) };
    (taken == signal()).then_some(info)
}

#[test]
fn forty_eight_bytes_of_a_siginfo_travel() {
    block();
    let Some(thread) = this_thread() else {
        return;
    };
    assert_eq!(offset_of!(libc::siginfo_t, si_errno), 4);
    let sent = info(1000);
    assert_eq!(queue(&thread, &raw const sent), 0);
    let got = take().expect("it is there when the call returns");
    assert_eq!(got[0], sent[0], "number and si_errno");
    assert_eq!(got[3..6], sent[3..6], "si_value and the 16 bytes behind it");
    assert_eq!(got[6..], [0; 10], "the rest is cleared");
}

#[test]
fn signals_of_one_number_keep_their_order() {
    block();
    let Some(thread) = this_thread() else {
        return;
    };
    for first in 0..100 {
        assert_eq!(queue(&thread, &info(first)), 0);
    }
    for first in 0..100 {
        assert_eq!(take().unwrap()[3], first + 3);
    }
    assert!(take().is_none());
}

#[test]
fn a_signal_to_a_thread_is_for_that_thread_alone() {
    block();
    let Some(thread) = this_thread() else {
        return;
    };
    assert_eq!(queue(&thread, &info(7)), 0);
    std::thread::spawn(|| assert!(take().is_none()))
        .join()
        .unwrap();
    assert!(take().is_some());
}

#[test]
fn a_thread_that_ended_is_told_from_one_that_is_there() {
    block();
    let thread = std::thread::spawn(|| {
        block();
        this_thread()
    });
    let Some(thread) = thread.join().unwrap() else {
        return;
    };
    // join returns a moment before the kernel is done with the thread.
    let gone = (0..1_000_000).any(|_| queue(&thread, &info(7)) == libc::ESRCH);
    assert!(gone);
}

#[test]
fn a_signal_without_siginfo_is_not_of_si_queue() {
    block();
    let Some(thread) = this_thread() else {
        return;
    };
    assert_eq!(queue(&thread, ptr::null()), 0);
    let got = take().unwrap();
    assert_ne!(got[1] as u32 as i32, libc::SI_QUEUE);
}

#[test]
fn the_mask_of_a_waiting_thread_shows_the_signal_unblocked() {
    if this_thread().is_none() {
        return;
    }
    let (told, tid) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        block();
        told.send((
            rustix::thread::gettid().as_raw_nonzero().get(),
            this_thread().unwrap(),
        ))
        .unwrap();
        let (mut info, set): (Words, _) = ([0; 16], set());
        // SAFETY: room for a siginfo_t, and a valid set.
        unsafe { libc::sigtimedwait(&raw const set, (&raw mut info).cast(), ptr::null()) }
    });
    let (tid, pidfd) = tid.recv().unwrap();
    let bit = 1u64 << (signal() - 1);
    let shows_unblocked = || {
        let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status")).unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:"))
            .unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & bit == 0
    };
    assert!((0..1_000_000).any(|_| shows_unblocked()));
    assert_eq!(queue(&pidfd, &info(0)), 0);
    assert_eq!(waiter.join().unwrap(), signal());
}

/// In a process of its own, whose limit it lowers: what a queued signal meets there, and what comes
/// of three by `kill(2)`.
fn beyond_the_limit() -> (i32, Vec<(i32, u64)>) {
    block();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Sigpending, none).unwrap();
    let refused = queue(&this_thread().unwrap(), &info(7));
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for _ in 0..3 {
        // SAFETY: two integers.
        assert_eq!(unsafe { libc::kill(own, signal()) }, 0);
    }
    let arrived = std::iter::from_fn(take).map(|info| (info[1] as u32 as i32, info[3]));
    (refused, arrived.collect())
}

#[test]
fn at_the_limit_a_queued_signal_is_refused_and_three_bare_ones_become_one_of_nobody() {
    if this_thread().is_none() {
        return;
    }
    let outcome = Process::new(beyond_the_limit, ()).start().unwrap().join();
    assert_eq!(outcome.unwrap(), (libc::EAGAIN, vec![(libc::SI_USER, 0)]));
}
