//! The `zombie` module, each test in a process of its own: SIGCHLD concerns the whole process.

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};

use ipc_core::Wait;
use ipc_core::wait::{Interest, poll};

use common::{Fd, ends, eventually, forever, lacks_own_proc, state_of, watch};
use ipc_process::Process;
use ipc_process::zombie::{Reaper, ignore_children, reap, spawn_detached, zombies};

ipc_process::test_support!();

fn run<R: serde::Serialize + serde::de::DeserializeOwned + 'static>(
    program: impl ipc_process::Target<(), Output = R>,
) -> R {
    let process = Process::new(program, ()).daemon(true);
    process.start().unwrap().join().unwrap()
}

/// A child by other means, which ends and is forgotten.
#[expect(clippy::zombie_processes, reason = "that is what it is for")]
fn ended_child() -> u32 {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_to_end(&mut stdout, &mut Vec::new()).unwrap();
    child.id()
}

#[test]
fn zombies_are_listed_and_reaped() {
    if lacks_own_proc() {
        return;
    }
    run(|| {
        assert_eq!(zombies().unwrap(), []);
        let child = ended_child();
        assert!(eventually(|| zombies().unwrap().len() == 1));
        let [zombie] = zombies().unwrap().try_into().unwrap();
        assert_eq!(zombie.pid, child);
        assert_eq!(zombie.name, "true");
        assert!(reap(zombie.pid).unwrap().unwrap().success());
        assert_eq!(zombies().unwrap(), []);
        assert!(reap(zombie.pid).is_err());
        assert!(
            reap(std::process::id()).is_err(),
            "this process is no child of its own"
        );
    });
}

#[test]
fn a_child_that_lives_is_not_reaped() {
    run(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert_eq!(reap(child.id()).unwrap(), None);
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn ignored_children_leave_no_zombies_and_their_ends_are_still_told() {
    if lacks_own_proc() {
        return;
    }
    run(|| {
        let before = ended_child();
        assert!(eventually(|| zombies().unwrap().len() == 1));
        let guard = ignore_children().unwrap();
        let again = ignore_children().unwrap();
        assert_eq!(
            zombies().unwrap(),
            [],
            "the one that was there is reaped: {before}"
        );

        let children: Vec<_> = (0..50).map(|_| ended_child()).collect();
        assert!(
            eventually(|| zombies().unwrap().is_empty()),
            "{}",
            children.len()
        );
        let process = Process::new(|| -> u8 { std::process::exit(42) }, ())
            .start()
            .unwrap();
        let told = process.join().unwrap_err().to_string();
        assert!(told.contains("code 42") || told.contains("6.15"), "{told}");

        // A program that is executed meanwhile does not inherit it.
        let process = Process::new(|| Command::new("true").status().unwrap().success(), ());
        assert!(process.start().unwrap().join().unwrap());

        drop(guard);
        assert!(Command::new("true").status().is_err(), "one guard is left");
        drop(again);
        assert!(
            Command::new("true").status().unwrap().success(),
            "as before"
        );
    });
}

/// Says its pid, and ends when told.
fn says_its_pid(says: Fd, told: Fd) {
    let mut says = std::fs::File::from(says.0);
    says.write_all(&std::process::id().to_le_bytes()).unwrap();
    let _ = std::fs::File::from(told.0).read(&mut [0]);
}

struct Told {
    pid: u32,
    tell: std::io::PipeWriter,
}

fn pipes() -> ((Fd, Fd), impl FnOnce() -> Told) {
    let (mut said, says) = std::io::pipe().unwrap();
    let (told, tell) = std::io::pipe().unwrap();
    let arguments = (Fd(OwnedFd::from(says)), Fd(OwnedFd::from(told)));
    let listen = move || {
        let mut pid = [0; 4];
        said.read_exact(&mut pid).unwrap();
        let pid = u32::from_le_bytes(pid);
        Told { pid, tell }
    };
    (arguments, listen)
}

#[test]
fn a_detached_process_is_nobodys_here() {
    if lacks_own_proc() {
        return;
    }
    run(|| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let (arguments, listen) = pipes();
        let detached = spawn_detached(says_its_pid, arguments).unwrap();
        let Told { pid, tell } = listen();
        assert_eq!(pid, detached.pid());
        let (_, parent) = state_of(pid).unwrap();
        assert_ne!(parent, std::process::id());
        let session = rustix::process::Pid::from_raw(pid.cast_signed());
        assert_eq!(rustix::process::getsid(session).unwrap(), session.unwrap());
        assert_eq!(zombies().unwrap(), [], "the child in between");
        assert!(reap(pid).is_err(), "no child of ours");
        drop(tell);
        let pidfd = OwnedFd::from(detached);
        assert!(ends(&pidfd));
        assert_eq!(zombies().unwrap(), []);
        drop(pidfd);
        let before = open();
        for _ in 0..50 {
            drop(spawn_detached(|| (), ()).unwrap());
        }
        assert_eq!(open(), before);
    });
}

#[test]
fn a_detached_process_outlives_the_program() {
    fn program(says: Fd, told: Fd) {
        spawn_detached(says_its_pid, (says, told)).unwrap();
        std::process::abort();
    }
    let (arguments, listen) = pipes();
    let program = Process::new(program, arguments)
        .limits(ipc_process::Limits::new().core(0))
        .start()
        .unwrap();
    let Told { pid, tell } = listen();
    let pidfd = watch(pid);
    assert!(program.join().is_err());
    let limit = Wait::at_most(std::time::Duration::from_millis(50));
    let ended = poll([(pidfd.as_fd(), Interest::Read)], limit).unwrap();
    assert_eq!(ended, ipc_core::wait::Polled::TimedOut);
    drop(tell);
    assert!(ends(&pidfd));
}

/// Leaves an orphan behind.
fn leaves_an_orphan(says: Fd, told: Fd) -> u32 {
    spawn_detached(says_its_pid, (says, told)).unwrap().pid()
}

#[test]
fn a_reaper_adopts_orphans_and_reaps_them() {
    if lacks_own_proc() {
        return;
    }
    run(|| {
        let reaper = Reaper::start().unwrap();
        let (arguments, listen) = pipes();
        let process = reaper
            .run(Process::new(leaves_an_orphan, arguments))
            .unwrap();
        let Told { pid, tell } = listen();
        assert_eq!(process.join().unwrap(), pid, "the result comes here");
        assert!(eventually(
            || state_of(pid).is_some_and(|(_, p)| p == reaper.pid())
        ));
        let list = reaper.list().unwrap();
        assert_eq!(list.iter().map(|d| d.pid).collect::<Vec<_>>(), [pid]);
        assert!(!list[0].is_zombie);
        drop(tell);
        assert!(
            eventually(|| state_of(pid).is_none()),
            "reaped, not a zombie"
        );
        assert_eq!(reaper.list().unwrap(), []);

        let failing = reaper
            .run(Process::new(|| std::process::exit(7), ()))
            .unwrap();
        let failing: Process<()> = failing;
        let told = failing.join().unwrap_err().to_string();
        assert!(told.contains("code 7") || told.contains("6.15"), "{told}");
    });
}

#[test]
fn a_reaper_ends_a_tree_that_goes_on_forking() {
    if lacks_own_proc() {
        return;
    }
    fn forks_for_ever() {
        loop {
            // Two generations, of which the upper one goes: the lower has no parent any more.
            drop(spawn_detached(|| -> () { forever() }, ()).unwrap());
        }
    }
    run(|| {
        let reaper = Reaper::start().unwrap();
        let process = reaper.run(Process::new(forks_for_ever, ())).unwrap();
        // Those that stay: the others end of themselves, or have.
        let orphans = || {
            let list = reaper.list().unwrap().into_iter();
            list.filter(|d| d.parent == reaper.pid() && !d.is_zombie)
                .count()
        };
        assert!(eventually(|| orphans() > 10));
        let ended = reaper.kill_tree().unwrap();
        assert!(ended > 10, "{ended}");
        assert!(eventually(|| reaper.list().unwrap().is_empty()));
        assert!(!process.is_alive());
    });
}

#[test]
fn the_tree_of_a_reaper_ends_with_the_program_however_it_ends() {
    if lacks_own_proc() {
        return;
    }
    fn program(says: Fd, told: Fd, how: String) {
        let reaper = Reaper::start().unwrap();
        let orphan = reaper.run(Process::new(leaves_an_orphan, (says, told)));
        orphan.unwrap().join().unwrap();
        // Until the test has taken hold of it.
        std::io::stdin().read_exact(&mut [0]).unwrap();
        match how.as_str() {
            "drop" => drop(reaper),
            "exit" => std::process::exit(0),
            _ => forever(),
        }
    }
    for how in ["drop", "exit", "kill"] {
        let ((says, told), listen) = pipes();
        let (stdin, mut go) = std::io::pipe().unwrap();
        let program = Process::new(program, (says, told, how.to_owned()))
            .daemon(true)
            .stdin(OwnedFd::from(stdin))
            .start()
            .unwrap();
        let Told { pid, tell } = listen();
        let pidfd = watch(pid);
        go.write_all(b"!").unwrap();
        if how == "kill" {
            program.kill().unwrap();
        }
        assert!(ends(&pidfd), "{how}");
        drop(tell);
    }
}

#[test]
fn a_reaper_that_was_killed_has_no_tree_any_more() {
    if lacks_own_proc() {
        return;
    }
    run(|| {
        let reaper = Reaper::start().unwrap();
        let pid = rustix::process::Pid::from_raw(reaper.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        assert!(eventually(|| state_of(reaper.pid()).is_none()));
        assert_eq!(reaper.list().unwrap(), []);
        assert_eq!(reaper.kill_tree().unwrap(), 0);
        assert!(reaper.run(Process::new(|| (), ())).is_err());
    });
}
