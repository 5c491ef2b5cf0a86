//! Many processes, and starts that fail, each case in a process of its own.
#![expect(unsafe_code, reason = "clone3 has no safe form")]

mod common;

use std::io;

use common::{BOTH, ends, eventually, method_of, need_descriptors, number_of, watch, zombies};
use ipc_process::{Process, StartError};
use rustix::process::{Resource, getrlimit, setrlimit};

ipc_process::test_support!();

fn square(n: u64) -> u64 {
    n * n
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn children() -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| common::state_of(pid).is_some_and(|(_, p)| p == std::process::id()))
        .count()
}

#[test]
fn a_thousand_in_turn_leave_nothing() {
    fn program(method: u8) -> usize {
        let run = |n: u64| {
            let process = Process::new(square, (n,)).start_method(method_of(method));
            assert_eq!(process.start().unwrap().join().unwrap(), n * n);
        };
        (0..20).for_each(run);
        let before = (open_descriptors(), children());
        (0..1000).for_each(run);
        // A zygote keeps a few ready, and how many changes by the moment.
        let same = || open_descriptors() <= before.0 + 8 && children() <= before.1 + 4;
        assert!(eventually(same), "{before:?}: {}", open_descriptors());
        zombies().len()
    }
    for method in BOTH {
        let own = Process::new(program, (number_of(method),))
            .daemon(true)
            .start()
            .unwrap();
        assert_eq!(own.join().unwrap(), 0, "{method:?}");
    }
}

#[test]
fn two_hundred_at_once_come_back_in_any_order() {
    need_descriptors(1000);
    for method in BOTH {
        let start = |n| {
            Process::new(square, (n,))
                .start_method(method)
                .start()
                .unwrap()
        };
        let processes: Vec<_> = (0..200).map(start).collect();
        for (n, process) in (0..).zip(processes).collect::<Vec<_>>().into_iter().rev() {
            assert_eq!(process.join().unwrap(), n * n, "{method:?}");
        }
    }
    assert!(eventually(|| zombies().is_empty()));
}

#[test]
fn a_thousand_starts_without_descriptors_fail_clearly_and_leave_nothing() {
    fn program(method: u8) -> (usize, usize, String, u64) {
        let start = |n| {
            Process::new(square, (n,))
                .start_method(method_of(method))
                .start()
        };
        assert_eq!(start(3).unwrap().join().unwrap(), 9);
        let before = open_descriptors();
        let mut limit = getrlimit(Resource::Nofile);
        let usual = limit;
        // Not one more: every descriptor that there is has a number below this.
        let highest = std::fs::read_dir("/proc/self/fd").unwrap();
        let highest = highest.map(|e| e.unwrap().file_name().to_str().unwrap().parse::<u64>());
        limit.current = highest.map(Result::unwrap).max();
        setrlimit(Resource::Nofile, limit).unwrap();
        let mut filled = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            filled.push(file);
        }
        let mut told = String::new();
        for n in 0..1000 {
            match start(n) {
                Err(StartError::Io { call, source }) => {
                    assert_eq!(source.raw_os_error(), Some(libc::EMFILE), "{call}");
                    told = call.to_owned();
                }
                other => panic!("{other:?}"),
            }
        }
        drop(filled);
        setrlimit(Resource::Nofile, usual).unwrap();
        // And then it works again.
        let works = start(4).unwrap().join().unwrap();
        assert!(eventually(|| open_descriptors() <= before + 8));
        (before, zombies().len(), told, works)
    }
    for method in BOTH {
        let own = Process::new(program, (number_of(method),))
            .daemon(true)
            .start()
            .unwrap();
        let (_, zombies, told, works) = own.join().unwrap();
        assert_eq!((zombies, works), (0, 16), "{method:?}: {told}");
    }
}

#[test]
fn a_fork_that_is_refused_is_an_error_of_start() {
    fn program(method: u8) -> Result<(), String> {
        // Root is above this limit (setrlimit(2)).
        if rustix::process::geteuid().is_root() {
            let nobody = 65_534_u32;
            // SAFETY: raw identifiers, for the whole process by libc.
            let given_up = unsafe { libc::setgroups(0, std::ptr::null()) } == 0
                // SAFETY: as above.
                && unsafe { libc::setresgid(nobody, nobody, nobody) } == 0
                // SAFETY: as above.
                && unsafe { libc::setresuid(nobody, nobody, nobody) } == 0;
            if !given_up {
                return Err("cannot become another user".to_owned());
            }
        }
        let start = || {
            Process::new(square, (2,))
                .start_method(method_of(method))
                .start()
        };
        // The supervisor's thread counts as a process; it is there after the first start.
        if let Err(error) = start().map(|process| process.join()) {
            return Err(format!("the program cannot be read by this user: {error}"));
        }
        let mut limit = getrlimit(Resource::Nproc);
        limit.current = Some(0);
        setrlimit(Resource::Nproc, limit).unwrap();
        for _ in 0..20 {
            match start() {
                Err(StartError::Io { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::WouldBlock, "{source}");
                }
                other => panic!("{other:?}"),
            }
        }
        limit.current = limit.maximum;
        setrlimit(Resource::Nproc, limit).unwrap();
        assert_eq!(start().unwrap().join().unwrap(), 4);
        assert_eq!(zombies(), []);
        Ok(())
    }
    for method in BOTH {
        let own = Process::new(program, (number_of(method),))
            .daemon(true)
            .start()
            .unwrap();
        if let Err(why) = own.join().unwrap() {
            eprintln!("{method:?} skipped: {why}");
        }
    }
}

/// A process with this pid, which ends when told; `None` where that is not allowed.
fn with_pid(pid: i32) -> Option<(i32, io::PipeWriter)> {
    let (reader, writer) = io::pipe().unwrap();
    let set_tid = [pid];
    // SAFETY: all zeroes are valid arguments: a plain fork.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = (&raw const set_tid) as u64;
    args.set_tid_size = 1;
    // SAFETY: as fork(2). The child only makes async-signal-safe calls.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match made {
        -1 => None,
        0 => {
            use std::os::fd::AsRawFd as _;
            let mut byte = 0_u8;
            // SAFETY: closes our copy of the end that the test holds.
            unsafe { libc::close(writer.as_raw_fd()) };
            // SAFETY: reads one byte into one byte.
            unsafe { libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) };
            // SAFETY: runs no handlers.
            unsafe { libc::_exit(0) }
        }
        _ => Some((pid, writer)),
    }
}

#[test]
fn a_signal_does_not_hit_a_process_that_came_by_the_pid() {
    fn program(method: u8) -> Option<bool> {
        let process = Process::new(square, (5,)).start_method(method_of(method));
        let process = process.start().unwrap();
        process.wait().unwrap();
        let (stranger, tell) = with_pid(process.pid().cast_signed())?;
        let stranger = watch(stranger.unsigned_abs());
        process.kill().unwrap();
        process.terminate().unwrap();
        assert!(!process.is_alive());
        use std::os::fd::AsFd as _;
        let stranger_lives = ipc_core::wait::poll(
            [(stranger.as_fd(), ipc_core::wait::Interest::Read)],
            ipc_core::Wait::at_most(std::time::Duration::from_millis(20)),
        ) == Ok(ipc_core::wait::Polled::TimedOut);
        assert_eq!(process.join().unwrap(), 25);
        drop(tell);
        assert!(ends(&stranger));
        Some(stranger_lives)
    }
    for method in BOTH {
        let own = Process::new(program, (number_of(method),))
            .daemon(true)
            .start()
            .unwrap();
        match own.join().unwrap() {
            Some(lives) => assert!(lives, "{method:?}"),
            None => eprintln!("skipped: clone3 with set_tid is not allowed here"),
        }
    }
}
