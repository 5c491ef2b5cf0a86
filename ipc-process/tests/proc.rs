//! Where `/proc` is missing, or is that of another PID namespace: what works, and what is told of
//! the rest. Each test runs itself again in namespaces of its own.
#![expect(unsafe_code, reason = "unshare and mount have no safe form")]

mod common;

use std::ffi::CStr;
use std::process::Command;
use std::ptr;

use common::BOTH;
use ipc_process::zombie::{Reaper, ignore_children, reap, zombies};
use ipc_process::{Pool, Process, StartMethod};
use serde::{Deserialize, Serialize};

ipc_process::test_support!();

const INSIDE: &str = "IPC_TEST_INSIDE";

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Moves this process, which has one thread, into new namespaces; whether that is allowed.
fn unshare(flags: i32) -> bool {
    // SAFETY: concerns this process alone.
    let alone = |flags| unsafe { libc::unshare(flags) } == 0;
    alone(flags) || alone(flags | libc::CLONE_NEWUSER)
}

fn mount(kind: Option<&CStr>, target: &CStr, flags: libc::c_ulong) -> bool {
    let kind = kind.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: strings that live for the call, in a mount namespace of this process's own.
    let mounted = unsafe { libc::mount(kind, target.as_ptr(), kind, flags, ptr::null()) };
    mounted == 0
}

/// What this process becomes before it runs the test again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum Inside {
    WithoutProc,
    WithThatOfAnother,
}

/// Runs this test again in namespaces of its own, and fails as it does.
fn run_inside(inside: Inside, test: &str) {
    fn program(inside: Inside, test: String) -> Result<bool, String> {
        let binary = std::env::current_exe().unwrap();
        let there = match inside {
            Inside::WithoutProc => without_proc(),
            Inside::WithThatOfAnother => unshare(libc::CLONE_NEWPID),
        };
        if !there {
            return Ok(false);
        }
        let run = Command::new(binary)
            .args(["--exact", &test])
            .env(INSIDE, "")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        run.status.success().then_some(true).ok_or(told)
    }
    let program = Process::new(program, (inside, test.to_owned()))
        // For its single thread.
        .start_method(StartMethod::Zygote)
        .daemon(true)
        .start()
        .unwrap();
    match program.join().unwrap() {
        Ok(true) => {}
        Ok(false) => eprintln!("skipped: such namespaces are not allowed here"),
        Err(told) => panic!("{told}"),
    }
}

fn without_proc() -> bool {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    unshare(libc::CLONE_NEWNS) && mount(None, c"/", private) && {
        // Over it: what is below may be locked.
        let covered = mount(Some(c"tmpfs"), c"/proc", 0);
        if covered {
            // This process has known its image from before.
            let told = start(StartMethod::Spawn).unwrap_err();
            assert!(told.contains("execve failed: /proc/self/exe"), "{told}");
        }
        covered
    }
}

fn start(method: StartMethod) -> Result<u32, String> {
    let process = Process::new(|n: u32| 2 * n, (21,)).start_method(method);
    let process = process.start().map_err(|error| error.to_string())?;
    process.join().map_err(|error| error.to_string())
}

/// What needs the pids of `/proc`.
fn told_of_pids() -> [String; 3] {
    [
        zombies().unwrap_err().to_string(),
        Reaper::start().unwrap_err().to_string(),
        ignore_children().unwrap_err().to_string(),
    ]
}

#[test]
fn without_proc_nothing_is_started_and_the_errors_name_it() {
    if !is_inside() {
        return run_inside(
            Inside::WithoutProc,
            "without_proc_nothing_is_started_and_the_errors_name_it",
        );
    }
    let mut told = told_of_pids().to_vec();
    told.extend(BOTH.map(|method| start(method).unwrap_err()));
    told.push(Pool::new(1).unwrap_err().to_string());
    for told in told {
        assert!(told.contains("is /proc mounted"), "{told}");
    }
}

#[test]
fn with_the_proc_of_another_namespace_no_pid_is_mistaken() {
    if !is_inside() {
        return run_inside(
            Inside::WithThatOfAnother,
            "with_the_proc_of_another_namespace_no_pid_is_mistaken",
        );
    }
    for told in told_of_pids() {
        assert!(told.contains("another PID namespace"), "{told}");
    }
    // What goes by descriptors is as ever.
    for method in BOTH {
        assert_eq!(start(method), Ok(42), "{method:?}");
    }
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(|n: u32| n + 1, 0..3).unwrap(), [1, 2, 3]);
    assert!(pool.apply(|| -> u8 { std::process::exit(3) }, ()).is_err());
    assert_eq!(pool.map(|n: u32| n + 1, 0..3).unwrap(), [1, 2, 3]);
    pool.close().join();
    let mut child = Command::new("true").spawn().unwrap();
    while reap(child.id()).unwrap().is_none() {}
    assert!(child.wait().is_err(), "it is reaped");
}
