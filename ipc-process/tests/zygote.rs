//! What is particular to the fork server: it is replaced when it dies or when the program has
//! changed, nothing of it outlives the program, and what it forks is like what is spawned.
#![expect(unsafe_code, reason = "prctl and setuid have no safe form")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use common::{
    BOTH, Fd, ends, eventually, forever, lacks_own_proc, method_of, number_of, own_group, state_of,
    try_watch, watch,
};
use ipc_process::{Process, StartMethod, Unstarted};
use serde::{Deserialize, Serialize};

ipc_process::test_support!();

fn zygote<F, A>(function: F, arguments: A) -> Unstarted<F, A>
where
    F: ipc_process::Target<A>,
    A: Serialize + serde::de::DeserializeOwned,
{
    Process::new(function, arguments).start_method(StartMethod::Zygote)
}

/// Runs a test in a process of its own, which alone then has a zygote.
fn alone<R: Serialize + serde::de::DeserializeOwned + 'static>(
    program: impl ipc_process::Target<(), Output = R>,
) -> R {
    let process = Process::new(program, ()).daemon(true);
    process.start().unwrap().join().unwrap()
}

/// Children of this process, by the name of their main thread.
fn children_called(name: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &u32| state_of(pid).is_some_and(|(_, p)| p == std::process::id()))
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .collect()
}

#[test]
fn processes_are_children_of_the_program_with_one_thread() {
    alone(|| {
        let report = || {
            let threads = fs::read_dir("/proc/self/task").unwrap().count();
            (std::os::unix::process::parent_id(), threads)
        };
        for daemon in [false, true] {
            let process = zygote(report, ()).daemon(daemon).start().unwrap();
            assert_eq!(process.join().unwrap(), (std::process::id(), 1));
        }
    });
}

#[test]
fn a_zygote_that_is_killed_is_replaced() {
    if lacks_own_proc() {
        return;
    }
    alone(|| {
        let answer = || zygote(|| 42, ()).start().unwrap().join().unwrap();
        assert_eq!(answer(), 42);
        for round in 0..20 {
            // The server and those that wait, in any order.
            for pid in children_called("ipc-zygote") {
                // One that waits ends with its server.
                let Some(pidfd) = try_watch(pid) else {
                    continue;
                };
                let kill = rustix::process::Signal::KILL;
                let _ = rustix::process::pidfd_send_signal(&pidfd, kill);
                assert!(ends(&pidfd));
            }
            assert_eq!(answer(), 42, "{round}");
        }
        assert!(eventually(|| common::zombies().is_empty()));
    });
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inherited {
    directory: PathBuf,
    variable: Option<String>,
    umask: u32,
    files: Option<u64>,
    group: i32,
    ignored: String,
    blocked: String,
    streams: Vec<PathBuf>,
}

fn inherited() -> Inherited {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key));
        line.unwrap_or_default().to_owned()
    };
    let umask = line("Umask:");
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Inherited {
        directory: std::env::current_dir().unwrap(),
        variable: std::env::var("IPC_TEST_INHERITED").ok(),
        umask: u32::from_str_radix(umask.trim_start_matches("Umask:").trim(), 8).unwrap(),
        files: files.current,
        group: own_group(),
        ignored: line("SigIgn:"),
        blocked: line("SigBlk:"),
        streams: (0..3)
            .map(|n| fs::read_link(format!("/proc/self/fd/{n}")).unwrap())
            .collect(),
    }
}

#[test]
fn what_is_inherited_is_what_a_spawned_process_inherits() {
    fn change(step: u32) {
        match step {
            0 => {}
            1 => std::env::set_current_dir("/proc").unwrap(),
            // SAFETY: this process has one thread that reads the environment: this one.
            2 => unsafe { std::env::set_var("IPC_TEST_INHERITED", "yes") },
            3 => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o27));
            }
            4 => {
                let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
                limit.current = Some(77);
                rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            }
            5 => {
                // SAFETY: SIG_IGN is a valid disposition.
                unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
            }
            6 => rustix::process::setpgid(None, None).unwrap(),
            _ => {
                let null = fs::File::open("/dev/zero").unwrap();
                rustix::stdio::dup2_stdin(null).unwrap();
            }
        }
    }
    alone(|| {
        for step in 0..8 {
            change(step);
            let [spawned, forked] = BOTH.map(|method| {
                let process = Process::new(inherited, ()).start_method(method);
                process.start().unwrap().join().unwrap()
            });
            assert_eq!(spawned, forked, "after step {step}");
        }
    });
}

/// With nothing behind it that would have it written out: no end of a line, no exit handler.
fn say_by_rust_and_by_c() {
    print!("rust ");
    // SAFETY: a C string without a conversion.
    unsafe { libc::printf(c"and c".as_ptr()) };
}

#[test]
fn what_a_process_wrote_is_written_out_at_its_end() {
    for method in BOTH {
        let (mut said, says) = std::io::pipe().unwrap();
        let process = Process::new(say_by_rust_and_by_c, ())
            .stdout(OwnedFd::from(says))
            .start_method(method);
        process.start().unwrap().join().unwrap();
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        assert_eq!(text, "rust and c", "{method:?}");
    }
}

#[test]
fn a_thread_that_keeps_standard_output_does_not_keep_the_process() {
    for method in BOTH {
        let process = Process::new(
            || {
                let (locked, is_locked) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let _out = std::io::stdout().lock();
                    locked.send(()).unwrap();
                    forever()
                });
                is_locked.recv().unwrap();
            },
            (),
        );
        let process = process.daemon(true).start_method(method).start().unwrap();
        let end = process.wait_timeout(std::time::Duration::from_secs(5));
        let end = end.unwrap();
        assert!(end.is_some_and(|end| end.success()), "{method:?}: {end:?}");
    }
}

#[test]
fn a_server_with_privileges_that_were_given_up_is_not_used() {
    alone(|| {
        let user = || rustix::process::geteuid().as_raw();
        let seen = || {
            zygote(user, ())
                .start()
                .map(|process| process.join().unwrap())
        };
        assert_eq!(seen().unwrap(), user());
        if user() != 0 {
            return eprintln!("skipped: there is nothing to give up");
        }
        // SAFETY: raw identifiers.
        if unsafe { libc::setresuid(65_534, 65_534, 65_534) } == -1 {
            return eprintln!("skipped: there is no other user in this namespace");
        }
        match seen() {
            Ok(seen) => assert_eq!(seen, 65_534),
            // A program in a directory of root's cannot be executed again.
            Err(error) => assert!(error.to_string().contains("denied"), "{error}"),
        }
    });
}

/// Says its pids (itself, the server and those that wait, a daemon) and waits.
fn family(says: Fd, method: u8) {
    let daemon = |loses_signal: bool| {
        let run = |loses_signal: bool| {
            if loses_signal {
                // SAFETY: sets an attribute of this process.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
            }
            println!("there");
            forever()
        };
        let (mut there, says) = std::io::pipe().unwrap();
        let process: Process<()> = Process::new(run, (loses_signal,))
            .daemon(true)
            .stdout(OwnedFd::from(says))
            .start_method(method_of(method))
            .start()
            .unwrap();
        there.read_exact(&mut [0; 5]).unwrap();
        process
    };
    let daemons = [daemon(false), daemon(true)];
    let mut pids = children_called("ipc-zygote");
    assert_eq!(pids.is_empty(), method == 0);
    pids.extend(daemons.each_ref().map(Process::pid));
    let bytes: Vec<u8> = pids.iter().flat_map(|pid| pid.to_le_bytes()).collect();
    fs::File::from(says.0).write_all(&bytes).unwrap();
    forever()
}

#[test]
fn nothing_is_left_a_second_after_the_program_was_killed() {
    if lacks_own_proc() {
        return;
    }
    for method in BOTH {
        let (mut said, says) = std::io::pipe().unwrap();
        let (held, holds) = std::io::pipe().unwrap();
        let arguments = (Fd(OwnedFd::from(says)), number_of(method));
        let program = Process::new(family, arguments)
            .daemon(true)
            // Every process inherits it, so that its end tells when all are gone.
            .stderr(OwnedFd::from(holds))
            .start()
            .unwrap();
        let mut bytes = Vec::new();
        said.read_to_end(&mut bytes).unwrap();
        let pids = bytes
            .as_chunks()
            .0
            .iter()
            .map(|pid| u32::from_le_bytes(*pid));
        let family: Vec<_> = pids.map(|pid| (pid, watch(pid))).collect();
        assert!(family.len() >= 2, "{method:?}");
        let begin = std::time::Instant::now();
        program.kill().unwrap();
        for (pid, pidfd) in &family {
            assert!(ends(pidfd), "{method:?}: {pid}");
        }
        let mut held = fs::File::from(OwnedFd::from(held));
        held.read_to_end(&mut Vec::new()).unwrap();
        assert!(begin.elapsed() < std::time::Duration::from_secs(1));
    }
}

/// As for a program that a container's runtime, or unshare(1), made the first of its PID namespace.
#[test]
fn a_group_and_a_session_of_another_pid_namespace_serve_as_well() {
    const INSIDE: &str = "IPC_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        assert_eq!(own_group(), 0);
        for _ in 0..3 {
            assert_eq!(zygote(own_group, ()).start().unwrap().join().unwrap(), 0);
        }
        rustix::process::setpgid(None, None).unwrap();
        let moved = zygote(own_group, ()).start().unwrap();
        assert_eq!(moved.join().unwrap(), own_group());
        return;
    }
    let skipped = alone(|| {
        // SAFETY: concerns the processes that this one makes from now on: one.
        if unsafe { libc::unshare(libc::CLONE_NEWPID) } == -1 {
            return true;
        }
        let inside = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_group_and_a_session_of_another_pid_namespace_serve_as_well",
            ])
            .env(INSIDE, "")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&inside.stdout).into_owned();
        assert!(inside.status.success(), "{told}");
        false
    });
    if skipped {
        eprintln!("skipped: a PID namespace is not allowed here");
    }
}

#[test]
fn the_terminal_reaches_processes_but_not_the_server() {
    if lacks_own_proc() {
        return;
    }
    alone(|| {
        // A shell starts what runs in the background with SIGINT ignored.
        // SAFETY: SIG_DFL is a valid disposition. It is this program's own matter.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        rustix::process::setpgid(None, None).unwrap();
        let own = rustix::process::Pid::from_raw(own_group()).unwrap();
        let wait = || zygote(|| -> () { forever() }, ()).daemon(true);
        let (ours, alone) = (
            wait().start().unwrap(),
            wait().own_group(true).start().unwrap(),
        );
        // A process has the server's name until its function is about to run.
        let mut waiting = children_called("ipc-zygote");
        waiting.retain(|&pid| pid != ours.pid() && pid != alone.pid());
        assert!(!waiting.is_empty());
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        rustix::process::kill_process_group(own, rustix::process::Signal::INT).unwrap();
        let end = ours
            .wait_timeout(std::time::Duration::from_secs(5))
            .unwrap();
        let end = end.expect("a process of this program's group gets its signals");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&end),
            Some(libc::SIGINT)
        );
        assert!(alone.is_alive());
        assert!(waiting.iter().all(|&pid| state_of(pid).is_some()));
    });
}
