//! Programs that ignore SIGCHLD, or whose other parts wait for every child. Each runs in a
//! process of its own, because both concern the whole process.
#![expect(
    unsafe_code,
    reason = "dispositions of signals and waitpid(-1) have no safe form"
)]

mod common;

use common::zombies;
use ipc_process::{JoinError, Process};

ipc_process::test_support!();

/// Ends of all kinds, each as the number that tells it.
fn ends_of_all_kinds() -> Vec<Result<i32, String>> {
    let returned = Process::new(|| 5, ()).start().unwrap();
    let exited = Process::new(|| -> i32 { std::process::exit(42) }, ())
        .start()
        .unwrap();
    let killed = Process::new(|| -> i32 { common::forever() }, ())
        .start()
        .unwrap();
    killed.kill().unwrap();
    [returned, exited, killed]
        .into_iter()
        .map(|process| match process.join() {
            Ok(value) => Ok(value),
            Err(JoinError::Exited { code }) => Ok(code),
            Err(JoinError::Killed { signal, .. }) => Ok(signal),
            Err(other) => Err(other.to_string()),
        })
        .collect()
}

/// Whether this kernel keeps the status of processes that are reaped elsewhere.
fn kernel_keeps_statuses() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

fn expect_all(ends: &[Result<i32, String>]) {
    if kernel_keeps_statuses() {
        assert_eq!(ends, [Ok(5), Ok(42), Ok(9)]);
    } else {
        assert_eq!(ends[0], Ok(5), "a result does not depend on the status");
        assert!(
            ends[1..].iter().all(Result::is_err),
            "and a status is never made up"
        );
    }
}

#[test]
fn ends_are_told_right_while_sigchld_is_ignored() {
    fn program() -> (Vec<Result<i32, String>>, usize) {
        // SAFETY: SIG_IGN is a valid disposition.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        (ends_of_all_kinds(), zombies().len())
    }
    let (ends, zombies) = Process::new(program, ()).start().unwrap().join().unwrap();
    expect_all(&ends);
    assert_eq!(zombies, 0);
}

#[test]
fn ends_are_told_right_while_somebody_waits_for_every_child() {
    fn program() -> Vec<Result<i32, String>> {
        std::thread::spawn(|| {
            loop {
                // SAFETY: no status is asked for.
                unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
            }
        });
        (0..20).flat_map(|_| ends_of_all_kinds()).collect()
    }
    let ends = Process::new(program, ()).start().unwrap().join().unwrap();
    if kernel_keeps_statuses() {
        for round in ends.chunks(3) {
            expect_all(round);
        }
    }
}
