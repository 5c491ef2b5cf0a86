//! What a receiver does to the process that it lives in: as little as its page says. Masks and
//! dispositions belong to a whole process, so each test runs in one of its own.
#![expect(
    unsafe_code,
    reason = "masks and handlers of a host that means no good have no safe API"
)]

mod common;

use std::mem::zeroed;
use std::ptr;
use std::time::Duration;

use common::{alone, this_thread};
use ipc_core::{Channel, Handoff, OpenError, Receiver as _, SendError, Sender as _};
use ipc_process::Process;
use ipc_signal::{Options, Receiver, Sender, SignalQueue};

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);

/// What a thread blocks, and what its process ignores and catches.
type Signals = [u64; 3];

fn signals() -> Signals {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    ["SigBlk:", "SigIgn:", "SigCgt:"].map(|name| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
    })
}

fn difference(before: Signals, after: Signals) -> Signals {
    std::array::from_fn(|kind| before[kind] ^ after[kind])
}

fn recv(receiver: &mut Receiver) -> Vec<u8> {
    let mut message = [0; 8];
    let len = receiver.recv_timeout(&mut message, PATIENCE).unwrap();
    message[..len].to_vec()
}

fn with_one_thread() -> (Signals, u32) {
    let before = signals();
    let (mut sender, mut receiver) = SignalQueue::pair(&Options::default().signal(7)).unwrap();
    sender.send(b"x").unwrap();
    assert_eq!(recv(&mut receiver), b"x");
    drop((sender, receiver));
    (
        difference(before, signals()),
        libc::SIGRTMIN().unsigned_abs(),
    )
}

#[test]
fn with_one_thread_one_signal_is_blocked_and_caught_and_no_other() {
    let (changed, first) = Process::new(with_one_thread, ())
        .start()
        .unwrap()
        .join()
        .unwrap();
    let own = 1 << (first + 7 - 1);
    assert_eq!(changed, [own, 0, own]);
}

fn with_other_threads() -> Signals {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let idle = std::thread::spawn(move || stopped.recv().is_err());
    let before = signals();
    let (mut sender, mut receiver) = SignalQueue::pair(&Options::default()).unwrap();
    sender.send(b"x").unwrap();
    assert_eq!(recv(&mut receiver), b"x");
    let changed = difference(before, signals());
    drop((sender, receiver, stop));
    assert!(idle.join().unwrap());
    changed
}

#[test]
fn among_threads_that_block_nothing_no_mask_and_no_handler_changes() {
    if this_thread().is_none() {
        return;
    }
    assert_eq!(
        Process::new(with_other_threads, ())
            .start()
            .unwrap()
            .join()
            .unwrap(),
        [0; 3]
    );
}

fn send_and_look(mut sender: Sender) -> Signals {
    let before = signals();
    for _ in 0..100 {
        sender.send(b"x").unwrap();
    }
    difference(before, signals())
}

#[test]
fn nothing_changes_in_the_sending_process() {
    alone(|| {
        let (sender, mut receiver) = SignalQueue::pair(&Options::default()).unwrap();
        let child = Process::new(send_and_look, (sender,)).start().unwrap();
        for _ in 0..100 {
            assert_eq!(recv(&mut receiver), b"x");
        }
        assert_eq!(child.join().unwrap(), [0; 3]);
    });
}

/// Sets this thread's mask to one signal, or to none.
fn block_only(number: Option<i32>) {
    // SAFETY: zeros are a valid set.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: a valid set.
    unsafe { libc::sigemptyset(&raw mut set) };
    if let Some(number) = number {
        // SAFETY: a valid set and a valid number.
        unsafe { libc::sigaddset(&raw mut set, number) };
    }
    // SAFETY: a valid set; the mask is this thread's own.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) };
}

fn with_an_emptied_mask() -> Vec<u8> {
    let (mut sender, mut receiver) = SignalQueue::pair(&Options::default()).unwrap();
    sender.send(b"survive").unwrap();
    // The signal is pending: unblocked, its default action would end the process here.
    block_only(None);
    recv(&mut receiver)
}

#[test]
fn a_thread_that_empties_its_mask_neither_dies_nor_loses_the_message() {
    assert_eq!(
        Process::new(with_an_emptied_mask, ())
            .start()
            .unwrap()
            .join()
            .unwrap(),
        b"survive"
    );
}

extern "C" fn handler(_: i32) {}

fn with_numbers_in_use() -> (bool, bool, u64) {
    let first = libc::SIGRTMIN();
    let handler: extern "C" fn(i32) = handler;
    // SAFETY: the handler does nothing and lives as long as the program.
    unsafe { libc::signal(first, handler as libc::sighandler_t) };
    // SAFETY: a valid number and disposition.
    unsafe { libc::signal(first + 1, libc::SIG_IGN) };
    block_only(Some(first + 2));
    let refused = |offset| {
        let pair = SignalQueue::pair(&Options::default().signal(offset));
        matches!(pair, Err(OpenError::Limit(limit)) if limit.name == "Options::signal")
    };
    let taken = (0..3).all(refused);
    let before = signals();
    let (mut sender, mut receiver) = SignalQueue::pair(&Options::default()).unwrap();
    sender.send(b"x").unwrap();
    let received = recv(&mut receiver) == b"x";
    (
        taken,
        received,
        difference(before, signals())[0] >> (first - 1),
    )
}

#[test]
fn a_number_that_the_host_catches_ignores_or_blocks_is_left_to_it() {
    let (taken, received, blocked) = Process::new(with_numbers_in_use, ())
        .start()
        .unwrap()
        .join()
        .unwrap();
    assert!(taken && received);
    assert_eq!(blocked, 1 << 3, "the first that is free");
}

#[test]
fn nothing_is_sent_to_a_receiver_that_is_not_ready() {
    alone(|| {
        let (mut sender, receiver) = SignalQueue::pair(&Options::default()).unwrap();
        let parts = receiver.into_parts().unwrap();
        // It has left this process, which a signal that nobody blocks would end.
        assert!(matches!(sender.try_send(b"x"), Err(SendError::Full)));
        let mut receiver = Receiver::from_parts(parts).unwrap();
        sender.send_timeout(b"ready", PATIENCE).unwrap();
        assert_eq!(recv(&mut receiver), b"ready");
    });
}
