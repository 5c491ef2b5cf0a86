//! The layout is what `src/layout.rs` says: programs that know its page alone, in another language and
//! in a process of their own, make a channel and join one, wait in it, ring and close.
#![cfg(target_arch = "x86_64")]

use std::fmt::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::{Channel, Listener, Name, Receiver as _, RecvError, Sender as _, Wait};
use ipc_shm::{Options, SharedMemory};

ipc_process::test_support!();

/// More than the ring holds, dozens of times.
const MESSAGES: usize = 300;
const PATIENCE: Duration = Duration::from_secs(20);

/// A message of any length from none to the longest, as `pattern` in the script has it.
fn pattern(number: usize) -> Vec<u8> {
    (0..number * 613 % 2041)
        .map(|at| (number + at) as u8)
        .collect()
}

/// Whether there is one that passes descriptors: from 3.9.
fn has_python() -> bool {
    let probe = "import socket; socket.send_fds, socket.recv_fds";
    let probed = Command::new("python3").args(["-c", probe]).output();
    let has = probed.is_ok_and(|run| run.status.success());
    if !has {
        eprintln!("skipped: there is no python3 of at least 3.9 here");
    }
    has
}

fn python(role: &str, path: &Path) -> Child {
    Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer.py"))
        .args([
            role.as_ref(),
            path.as_os_str(),
            MESSAGES.to_string().as_ref(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn name(scratch: &Scratch) -> Name {
    let path = scratch.path().join("name");
    path.to_str().unwrap().parse().unwrap()
}

/// What a script printed, once it has ended well.
fn printed(script: Child) -> String {
    let run = script.wait_with_output().unwrap();
    assert!(run.status.success(), "the script failed: {}", run.status);
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn a_channel_that_python_made_carries_its_messages() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new();
    let name = name(&scratch);
    let mut listener = SharedMemory::listen(&name, &Options::new()).unwrap();
    let script = python("send", &scratch.path().join("name"));
    let mut receiver = listener.accept(Wait::at_most(PATIENCE)).unwrap();
    let mut buffer = [0; 2040];
    for number in 0..MESSAGES {
        let len = receiver.recv_timeout(&mut buffer, PATIENCE).unwrap();
        assert!(buffer[..len] == pattern(number), "message {number}");
    }
    let end = receiver.recv_timeout(&mut buffer, PATIENCE);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    printed(script);
}

#[test]
fn a_receiver_in_python_gets_what_was_sent() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::new();
    let name = name(&scratch);
    let script = python("receive", &scratch.path().join("name"));
    let options = Options::new().capacity(4096);
    let mut sender = SharedMemory::connect(&name, &options, Wait::at_most(PATIENCE)).unwrap();
    // What it prints fills a pipe, which somebody has to read.
    let printed = std::thread::spawn(|| printed(script));
    let mut expected = String::new();
    for number in 0..MESSAGES {
        let message = pattern(number);
        sender.send_timeout(&message, PATIENCE).unwrap();
        for byte in message {
            let _ = write!(expected, "{byte:02x}");
        }
        expected.push('\n');
    }
    drop(sender);
    assert!(printed.join().unwrap() == expected, "other messages");
}
