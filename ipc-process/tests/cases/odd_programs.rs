// Included twice, with `METHOD` the one and the other.
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use crate::common::{
    Fd, close_everything, debug, ends_of_all_kinds, limit_file_size, need_descriptors,
    zombies,
};
use ipc_process::{JoinError, Process, Stdio, Target, Unstarted};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn process<F: Target<A>, A: Serialize + DeserializeOwned>(
    function: F,
    arguments: A,
) -> Unstarted<F, A> {
    Process::new(function, arguments).start_method(METHOD)
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
        (ends_of_all_kinds(METHOD), zombies().len())
    }
    let (ends, zombies) = process(program, ()).start().unwrap().join().unwrap();
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
        (0..20).flat_map(|_| ends_of_all_kinds(METHOD)).collect()
    }
    let ends = process(program, ()).start().unwrap().join().unwrap();
    if kernel_keeps_statuses() {
        for round in ends.chunks(3) {
            expect_all(round);
        }
    }
}

#[test]
fn a_program_without_standard_streams_starts_processes() {
    fn program() -> (i32, usize) {
        for standard in 0..3 {
            // SAFETY: nothing in this process uses them any more.
            unsafe { libc::close(standard) };
        }
        // The control socket would get one of these numbers.
        let process = process(|a: i32| a + 1, (41,))
            .stdout(Stdio::Null)
            .start()
            .unwrap();
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (process.join().unwrap(), open)
    }
    let (answer, _) = process(program, ()).start().unwrap().join().unwrap();
    assert_eq!(answer, 42);
}

#[test]
fn blocked_signals_and_handlers_are_not_inherited() {
    extern "C" fn handler(_: i32) {}
    fn program() -> String {
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGTERM, handler as extern "C" fn(i32) as usize) };
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: initialises the set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: the set is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut()) };
        let process = process(|| -> () { crate::common::forever() }, ())
            .daemon(true)
            .start()
            .unwrap();
        process.terminate().unwrap();
        process.join().unwrap_err().to_string()
    }
    let told = process(program, ()).start().unwrap().join().unwrap();
    assert_eq!(told, "the process was ended by signal 15");
}

#[test]
fn many_starts_leave_no_descriptor_no_mapping_and_no_process() {
    fn program() -> ([usize; 2], [usize; 2], usize) {
        let count = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
            [open, maps.lines().count()]
        };
        let round = |n: u32| {
            let process = process(|n: u32| n, (n,)).daemon(n.is_multiple_of(3));
            let process = process.start().unwrap();
            match n % 3 {
                0 => drop(process),
                1 => assert_eq!(process.join().unwrap(), n),
                _ => {
                    process.kill().unwrap();
                    let _ = process.join();
                }
            }
        };
        (0..30).for_each(round);
        let before = count();
        (0..300).for_each(round);
        assert!(crate::common::eventually(|| count()[0] <= before[0]));
        (before, count(), zombies().len())
    }
    let (before, after, zombies) = process(program, ()).start().unwrap().join().unwrap();
    assert!(after[0] <= before[0], "descriptors: {before:?}, {after:?}");
    // The allocator may map an arena or two for threads that it had not seen before.
    assert!(after[1] <= before[1] + 8, "mappings: {before:?}, {after:?}");
    assert_eq!(zombies, 0);
}

fn limit_descriptors(soft: u64) {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = Some(soft);
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

fn many_descriptors() -> Vec<Fd> {
    (0..300)
        .map(|_| Fd(std::fs::File::open("/dev/null").unwrap().into()))
        .collect()
}

#[test]
fn more_descriptors_than_the_starter_may_have_are_an_error() {
    need_descriptors(1000);
    fn when_told() -> Vec<Fd> {
        let descriptors = many_descriptors();
        std::io::stdin().read_exact(&mut [0]).unwrap();
        descriptors
    }
    fn program() -> (String, bool) {
        let (stdin, mut tell) = std::io::pipe().unwrap();
        let process = process(when_told, ())
            .stdin(OwnedFd::from(stdin))
            .start()
            .unwrap();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        limit_descriptors(100);
        tell.write_all(b"!").unwrap();
        let told = process.join().err().unwrap().to_string();
        (told, crate::common::eventually(|| open() < before))
    }
    let (told, nothing_left) = process(program, ()).start().unwrap().join().unwrap();
    assert!(told.contains("RLIMIT_NOFILE"), "{told}");
    assert!(nothing_left);
}

#[test]
fn a_process_whose_end_a_debugger_holds_is_waited_for_at_rest() {
    fn program() -> (Option<String>, bool, f64) {
        let held = process(|| -> () { crate::common::forever() }, ())
            .daemon(true)
            .start()
            .unwrap();
        let debugger = debug(held.pid());
        held.kill().unwrap();
        let seconds = || {
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
        };
        let before = seconds();
        let status = held
            .wait_timeout(std::time::Duration::from_millis(300))
            .unwrap();
        let used = seconds() - before;
        let alive = held.is_alive();
        // Not everybody may be a debugger: then there was nothing to hold.
        let seized = debugger.let_go();
        assert_eq!(status.is_none(), seized);
        let told = held.join().err().map(|error| error.to_string());
        (told, alive && seized, used)
    }
    let (told, alive, used) = process(program, ()).start().unwrap().join().unwrap();
    assert_eq!(told.as_deref(), Some("the process was ended by signal 9"));
    assert!(!alive);
    assert!(used < 0.1, "{used} s of processor time in 0.3 s of waiting");
}

#[test]
fn a_function_that_closes_every_descriptor_is_told_by_its_exit_code() {
    let ended = process(close_everything, ()).start().unwrap().join();
    assert!(
        matches!(ended, Err(JoinError::Exited { code: 103 })),
        "{ended:?}"
    );
    let told = ended.unwrap_err().to_string();
    assert!(told.contains("closed descriptors"), "{told}");
    // What it says itself is heard.
    let own = || {
        close_everything();
        std::process::exit(0)
    };
    let ended: Result<(), _> = process(own, ()).start().unwrap().join();
    assert!(
        matches!(ended, Err(JoinError::Exited { code: 0 })),
        "{ended:?}"
    );
}

#[test]
fn bodies_beyond_the_limit_of_file_sizes_are_errors_and_no_signal() {
    fn program() -> (String, Result<usize, String>) {
        let length = |text: String| text.len();
        limit_file_size(100_000);
        let start = |len| process(length, ("x".repeat(len),)).start();
        let fits = start(90_000).unwrap().join().map_err(|e| e.to_string());
        (start(200_000).unwrap_err().to_string(), fits)
    }
    let (told, fits) = process(program, ()).start().unwrap().join().unwrap();
    assert!(told.contains("RLIMIT_FSIZE"), "{told}");
    assert_eq!(fits, Ok(90_000));
    let long = process(|| "x".repeat(200_000), ());
    let long = long.limits(ipc_process::Limits::new().file_size(100_000));
    let told = long.start().unwrap().join().unwrap_err();
    assert!(matches!(told, JoinError::Result { .. }), "{told:?}");
    assert!(told.to_string().contains("RLIMIT_FSIZE"), "{told}");
}
