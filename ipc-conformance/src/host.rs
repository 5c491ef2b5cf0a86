#![expect(unsafe_code, reason = "signal dispositions have no safe wrapper")]
//! The second half of promise 8: what belongs to the program around a channel stays as it is.

use std::fs;

use ipc_core::{Channel, Listener as _, Receiver as _, RecvError, SendError, Sender as _, Wait};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::content;
use crate::ending::send_until_error;
use crate::fork::ended_child;
use crate::harness::{Case, crosses, pair};
use crate::list::cases;

/// Signals below this number are the program's; a channel of real-time signals has one above, as it says.
const FIRST_REAL_TIME: u32 = 32;

/// What a process is said to be in `proc_pid_status(5)`: its umask, and the signals that it catches,
/// ignores and blocks.
fn state() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").expect("/proc is mounted");
    let masks = ["SigCgt:", "SigIgn:", "SigBlk:"].map(|name| {
        let mask = line(&status, name);
        let mask = u64::from_str_radix(mask, 16).expect("a hexadecimal number");
        format!("{name} {:x}", mask & ((1 << (FIRST_REAL_TIME - 1)) - 1))
    });
    let mut state = masks.to_vec();
    state.push(format!("umask {}", line(&status, "Umask:")));
    let directory = std::env::current_dir().expect("a directory");
    state.push(format!("in {}", directory.display()));
    state
}

fn line<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a line of that name").trim()
}

/// Everything that a channel does in a process: nameless, named, to the end and beyond.
fn live<C: Channel>(case: &Case) {
    let (mut tx, mut rx) = pair::<C>();
    exchange::<C>(&mut tx, &mut rx);
    let _ = rx.recv_with(
        &mut [0; 64],
        Wait::at_most(std::time::Duration::from_millis(1)),
    );
    drop(tx);
    let end = rx.recv(&mut [0; 64]);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    let (mut tx, rx) = pair::<C>();
    drop(rx);
    let end = send_until_error::<C>(&mut tx);
    assert!(matches!(end, SendError::Closed), "{end:?}");
    if !crosses::<C>() {
        return;
    }
    let path = case.directory().join("name");
    let name: C::Address = path
        .to_str()
        .expect("ASCII")
        .parse()
        .unwrap_or_else(|e| panic!("{e}"));
    let options = C::Options::default();
    let wait = Wait::at_most(std::time::Duration::from_secs(5));
    let mut listener = C::listen(&name, &options).expect("the name is free");
    let mut tx = C::connect(&name, &options, wait).expect("somebody listens");
    let mut rx = listener.accept(wait).expect("a visitor is there");
    exchange::<C>(&mut tx, &mut rx);
}

fn exchange<C: Channel>(tx: &mut C::Sender, rx: &mut C::Receiver) {
    tx.send(&content::message(1, 8)).expect("there is room");
    let mut buffer = [0; 64];
    let got = rx.recv(&mut buffer).expect("it is there");
    content::check(1, 8, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// Whether the kernel lets everything be written without SIGPIPE: pipes too, by `RWF_NOSIGNAL`.
fn spares_everybody() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(18))
}

cases! {
    /// In a program that SIGPIPE would end: a receiver that was closed, and one whose process died.
    fn a_send_to_nobody_raises_no_signal(case) {
        if !spares_everybody() {
            eprintln!("skipped: RWF_NOSIGNAL needs Linux 6.18");
            return;
        }
        // SAFETY: a valid signal and disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (mut tx, rx) = pair::<C>();
        case.step("sending to a receiver that closed");
        drop(rx);
        let end = send_until_error::<C>(&mut tx);
        assert!(matches!(end, SendError::Closed), "{end:?}");
        if crosses::<C>() {
            let (mut tx, rx) = pair::<C>();
            case.hold("receiver", rx).kill();
            case.step("sending to a receiver that died");
            let end = send_until_error::<C>(&mut tx);
            assert!(matches!(end, SendError::PeerDied), "{end:?}");
        }
    }

    /// Umask, working directory, dispositions and masks of all signals but real-time ones; and a child
    /// that has ended is still there for whoever waits for it.
    fn the_program_around_a_channel_is_left_alone(case) {
        let child: Pid = ended_child(7);
        let before = state();
        for _ in 0..3 {
            case.step("using channels");
            live::<C>(&case);
        }
        assert_eq!(state(), before, "after the use of channels, and before");
        let (_, status) = waitpid(Some(child), WaitOptions::NOHANG)
            .expect("the child of the program was taken away")
            .expect("it has ended");
        assert_eq!(status.exit_status(), Some(7), "{status:?}");
    }
}
