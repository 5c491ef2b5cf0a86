//! In sandboxes and on kernels that refuse what the doorbell and the barriers ask for: a filter of
//! system calls stands for them, in a process of its own.

use std::time::Duration;

use ipc_core::{Channel, Pollable, Receiver as _, Sender as _, WaitStrategy};
use ipc_process::Process;
use ipc_shm::{Options, Receiver, Sender, SharedMemory};
use rustix::event::{PollFd, PollFlags, Timespec};

ipc_process::test_support!();

/// Linux before 6.4, sandboxes of old and of today.
const ERRORS: [i32; 3] = [libc::EOPNOTSUPP, libc::EPERM, libc::ENOSYS];
const FLAGGED: [libc::c_long; 2] = [libc::SYS_preadv2, libc::SYS_pwritev2];
const PATIENCE: Duration = Duration::from_secs(20);

fn pair(strategy: WaitStrategy) -> (Sender, Receiver) {
    SharedMemory::pair(&Options::new().wait_strategy(strategy)).unwrap()
}

/// Runs `program` in a process of its own, and fails if it hangs.
fn run(program: impl ipc_process::Target<(i32,), Output = ()>, errno: i32) {
    let process = Process::new(program, (errno,))
        .daemon(true)
        .start()
        .unwrap();
    let ended = process.wait_timeout(PATIENCE).unwrap();
    assert!(ended.is_some(), "the program hangs, errno {errno}");
    process.join().unwrap();
}

fn rung(receiver: &Receiver) -> bool {
    let mut polled = [PollFd::new(receiver, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).unwrap() > 0
}

fn ring_and_silence(errno: i32) {
    ipc_conformance::refuse(&FLAGGED, errno);
    let (mut sender, mut receiver) = pair(WaitStrategy::Block);
    for _ in 0..3 {
        assert!(!receiver.arm(), "nothing is there");
        sender.send(b"news").unwrap();
        assert!(rung(&receiver), "nobody rang");
        assert!(receiver.arm(), "a message is there");
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 4);
        assert!(!rung(&receiver), "a ring of the past");
    }
}

#[test]
fn a_doorbell_rings_and_falls_silent_without_the_flagged_calls() {
    for errno in ERRORS {
        run(ring_and_silence, errno);
    }
}

fn without_flagged_calls(errno: i32) {
    ipc_conformance::refuse(&FLAGGED, errno);
    sleep_and_wake();
}

fn without_barriers(errno: i32) {
    ipc_conformance::refuse(&[libc::SYS_membarrier], errno);
    sleep_and_wake();
}

fn sleep_and_wake() {
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let (mut there, mut input) = pair(strategy);
        let (mut output, mut back) = pair(strategy);
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 8];
            while let Ok(len) = input.recv(&mut buffer) {
                output.send(&buffer[..len]).unwrap();
            }
        });
        let mut buffer = [0; 8];
        for number in 0..500u64 {
            there.send(&number.to_ne_bytes()).unwrap();
            assert_eq!(back.recv(&mut buffer).unwrap(), 8);
            assert_eq!(u64::from_ne_bytes(buffer), number);
        }
        drop(there);
        echo.join().unwrap();
    }
}

#[test]
fn ends_that_sleep_are_woken_without_the_flagged_calls_and_without_barriers() {
    for errno in ERRORS {
        run(without_flagged_calls, errno);
        run(without_barriers, errno);
    }
}
