// Included twice, with `METHOD` the one and the other.
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use crate::common::{Fd, ends, eventually, forever, lacks_own_proc, state_of, watch, zombies};
use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use ipc_process::{JoinError, Process, Target, Unstarted};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn process<F: Target<A>, A: Serialize + DeserializeOwned>(
    function: F,
    arguments: A,
) -> Unstarted<F, A> {
    Process::new(function, arguments).start_method(METHOD)
}

fn wait_to_be_ended() {
    forever()
}

#[test]
fn a_panic_comes_with_message_place_and_backtrace() {
    #[inline(never)]
    fn innermost_frame(n: u32) {
        assert!(n != 7, "seven is refused: {n}");
    }
    let process = process(innermost_frame, (7_u32,)).start().unwrap();
    let Err(JoinError::Panicked(panic)) = process.join() else {
        panic!("it did not panic")
    };
    assert_eq!(panic.message, "seven is refused: 7");
    assert!(panic.location.contains("end.rs"), "{}", panic.location);
    assert!(
        panic.backtrace.contains("innermost_frame"),
        "{}",
        panic.backtrace
    );
}

#[test]
fn a_panic_that_was_caught_is_no_end() {
    fn catches() -> bool {
        std::panic::catch_unwind(|| panic!("caught")).is_err()
    }
    assert!(process(catches, ()).start().unwrap().join().unwrap());
}

#[test]
fn a_panic_with_a_value_that_is_no_text_is_told() {
    let process = process(|| std::panic::panic_any(7_u8), ()).start();
    let process: Process<()> = process.unwrap();
    let Err(JoinError::Panicked(panic)) = process.join() else {
        panic!("it did not panic")
    };
    assert!(panic.location.contains("end.rs"));
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    for code in [0, 1, 7, 255] {
        let process = process(|code: i32| std::process::exit(code), (code,)).start();
        let process: Process<()> = process.unwrap();
        let join = process.join();
        assert!(
            matches!(join, Err(JoinError::Exited { code: c }) if c == code),
            "{join:?}"
        );
    }
    for signal in [
        libc::SIGKILL,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGRTMIN() + 3,
    ] {
        let process = process(wait_to_be_ended, ()).daemon(true).start().unwrap();
        process.signal(signal).unwrap();
        let join = process.join();
        assert!(
            matches!(join, Err(JoinError::Killed { signal: s, .. }) if s == signal),
            "{join:?}"
        );
    }
    let process = process(|| std::process::abort(), ()).start();
    let process: Process<()> = process.unwrap();
    let join = process.join();
    assert!(
        matches!(
            join,
            Err(JoinError::Killed {
                signal: libc::SIGABRT,
                ..
            })
        ),
        "{join:?}"
    );
}

#[test]
fn signals_to_a_process_that_has_ended_are_fine_and_nonsense_is_not() {
    let process = process(|| 1, ()).start().unwrap();
    process.wait().unwrap();
    process.kill().unwrap();
    process.terminate().unwrap();
    process.signal(libc::SIGUSR1).unwrap();
    for nonsense in [-1, 0, 32, 65, i32::MAX, i32::MIN] {
        let error = process.signal(nonsense).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{nonsense}");
    }
    assert_eq!(process.join().unwrap(), 1);
}

#[test]
fn waits_keep_their_deadline_and_can_be_repeated() {
    let process = process(wait_to_be_ended, ()).daemon(true).start().unwrap();
    for ms in [0, 1, 30] {
        let (limit, start) = (Duration::from_millis(ms), Instant::now());
        assert_eq!(process.wait_timeout(limit).unwrap(), None);
        assert!(start.elapsed() >= limit);
    }
    let descriptor = [(process.as_fd(), Interest::Read)];
    assert_eq!(poll(descriptor, Wait::Never), Ok(Polled::TimedOut));
    process.terminate().unwrap();
    let first = process.wait_timeout(Duration::from_secs(5)).unwrap();
    assert!(first.is_some());
    assert_eq!(process.wait_timeout(Duration::ZERO).unwrap(), first);
    assert_eq!(Some(process.wait().unwrap()), first);
    assert_eq!(poll(descriptor, Wait::Never), Ok(Polled::Ready));
}

#[test]
fn a_stopped_process_is_alive() {
    if lacks_own_proc() {
        return;
    }
    let process = process(wait_to_be_ended, ()).daemon(true).start().unwrap();
    process.signal(libc::SIGSTOP).unwrap();
    assert!(eventually(
        || state_of(process.pid()).is_some_and(|(state, _)| state == 'T')
    ));
    assert!(process.is_alive());
    assert_eq!(
        process.wait_timeout(Duration::from_millis(10)).unwrap(),
        None
    );
    process.kill().unwrap();
    assert!(
        process
            .wait_timeout(Duration::from_secs(5))
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_process_is_reaped_whether_its_handle_is_kept_or_dropped() {
    if lacks_own_proc() {
        return;
    }
    let kept: Vec<_> = (0..10)
        .map(|_| process(|| (), ()).start().unwrap())
        .collect();
    for _ in 0..10 {
        drop(process(|| (), ()).start().unwrap());
    }
    for process in &kept {
        assert!(eventually(|| state_of(process.pid()).is_none()));
    }
    assert!(eventually(|| zombies().is_empty()), "{:?}", zombies());
}

#[test]
fn a_dropped_process_goes_on_and_its_drop_does_not_wait() {
    fn says_so_when_told(told: Fd, says: Fd) {
        File::from(told.0).read_exact(&mut [0]).unwrap();
        File::from(says.0).write_all(b"still here").unwrap();
    }
    let (told, mut tell) = std::io::pipe().unwrap();
    let (mut said, says) = std::io::pipe().unwrap();
    let arguments = (Fd(OwnedFd::from(told)), Fd(OwnedFd::from(says)));
    drop(process(says_so_when_told, arguments).start().unwrap());
    tell.write_all(b"!").unwrap();
    let mut text = String::new();
    said.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
}

#[test]
fn a_daemon_ends_with_its_handle() {
    if lacks_own_proc() {
        return;
    }
    let process = process(wait_to_be_ended, ()).daemon(true).start().unwrap();
    let (pid, pidfd) = (process.pid(), watch(process.pid()));
    assert!(process.is_daemon());
    drop(process);
    assert!(ends(&pidfd));
    assert!(eventually(|| state_of(pid).is_none()));
}

#[test]
fn a_daemon_outlives_the_thread_that_started_it() {
    let started = || process(wait_to_be_ended, ()).daemon(true).start().unwrap();
    let process = std::thread::spawn(started).join().unwrap();
    assert_eq!(
        process.wait_timeout(Duration::from_millis(200)).unwrap(),
        None
    );
}

/// Starts one process of each kind, says their pids, and ends as told.
fn starter(says: Fd, told: Fd, then: String) {
    let daemon = process(wait_to_be_ended, ()).daemon(true).start().unwrap();
    let other = process(
        |told: Fd| {
            // Until the test closes its end.
            let _ = File::from(told.0).read(&mut [0]);
        },
        (told,),
    );
    let other = other.start().unwrap();
    let mut pids = daemon.pid().to_le_bytes().to_vec();
    pids.extend(other.pid().to_le_bytes());
    File::from(says.0).write_all(&pids).unwrap();
    // Until the test has taken hold of both.
    std::io::stdin().read_exact(&mut [0]).unwrap();
    match then.as_str() {
        "return" => std::mem::forget((daemon, other)),
        "exit" => std::process::exit(3),
        "panic" => panic!("as told"),
        "abort" => std::process::abort(),
        _ => forever(),
    }
}

struct Family {
    starter: Process<()>,
    daemon: OwnedFd,
    other: OwnedFd,
    tell: std::io::PipeWriter,
}

fn family(then: &str) -> Family {
    let (mut said, says) = std::io::pipe().unwrap();
    let (told, tell) = std::io::pipe().unwrap();
    let arguments = (
        Fd(OwnedFd::from(says)),
        Fd(OwnedFd::from(told)),
        then.to_owned(),
    );
    let (go, mut says_go) = std::io::pipe().unwrap();
    let starter = process(starter, arguments)
        .daemon(true)
        .stdin(OwnedFd::from(go))
        .stderr(ipc_process::Stdio::Null)
        .limits(ipc_process::Limits::new().core(0))
        .start()
        .unwrap();
    let mut pids = [[0; 4]; 2];
    said.read_exact(pids.as_flattened_mut()).unwrap();
    let [daemon, other] = pids.map(|pid| watch(u32::from_le_bytes(pid)));
    says_go.write_all(b"!").unwrap();
    Family {
        starter,
        daemon,
        other,
        tell,
    }
}

#[test]
fn a_daemon_dies_with_a_killed_or_aborted_starter_and_others_go_on() {
    for then in ["wait", "abort"] {
        let Family {
            starter,
            daemon,
            other,
            tell,
        } = family(then);
        if then == "wait" {
            starter.kill().unwrap();
        }
        assert!(ends(&daemon), "{then}");
        let alive = poll(
            [(other.as_fd(), Interest::Read)],
            Wait::at_most(Duration::from_millis(100)),
        );
        assert_eq!(alive, Ok(Polled::TimedOut));
        drop(tell);
        assert!(ends(&other));
    }
}

#[test]
fn a_program_that_ends_ends_its_daemons_and_waits_for_the_others() {
    for then in ["return", "exit", "panic"] {
        let Family {
            starter,
            daemon,
            other,
            tell,
        } = family(then);
        assert!(ends(&daemon), "{then}");
        assert_eq!(
            starter.wait_timeout(Duration::from_millis(50)).unwrap(),
            None,
            "{then}"
        );
        drop(tell);
        assert!(ends(&other), "{then}");
        let code = starter.wait().unwrap().code();
        let expected = match then {
            "return" => 0,
            "exit" => 3,
            _ => 101,
        };
        assert_eq!(code, Some(expected), "{then}");
    }
}
