//! The `zombie` module, each test in a process of its own: SIGCHLD concerns the whole process.

mod common;

use std::process::{Command, Stdio};

use common::eventually;
use ipc_process::Process;
use ipc_process::zombie::{ignore_children, reap, zombies};

ipc_process::test_support!();

fn run<R: serde::Serialize + serde::de::DeserializeOwned + 'static>(
    program: impl ipc_process::Target<(), Output = R>,
) -> R {
    Process::new(program, ()).start().unwrap().join().unwrap()
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
