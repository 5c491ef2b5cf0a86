//! System calls per message, counted exactly: a send is one and a receive is one. The sender looks
//! for notices once a millisecond, the receiver sends one for each eighth of the window and is
//! interrupted every 40 ms.

use ipc_conformance::syscalls::{Probe, count};
use ipc_core::{Channel, Receiver as _, Sender as _, Tunable, WaitStrategy};
use ipc_process::Process;
use ipc_signal::{Options, Receiver, Sender, SignalQueue};

ipc_process::test_support!();

const MESSAGES: u64 = 500;
/// What may be added for all of them together, under a tracer that makes each call slow.
const BESIDES: u64 = MESSAGES / 4;

fn blocking() -> Options {
    Options::default().wait_strategy(WaitStrategy::Block)
}

fn to_itself(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 8];
    sender.send(&[7; 8]).unwrap();
    receiver.recv(&mut buffer).unwrap();
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 8]).unwrap();
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

#[test]
fn a_send_is_one_call_and_a_receive_of_what_is_there_is_one() {
    for options in [Options::default(), blocking()] {
        let calls = count(to_itself, SignalQueue::pair(&options).unwrap());
        let expected = 2 * MESSAGES..=2 * MESSAGES + BESIDES;
        assert!(expected.contains(&calls), "{calls}");
    }
}

fn echo(mut receiver: Receiver, mut sender: Sender) {
    let mut buffer = [0; 8];
    while let Ok(len) = receiver.recv(&mut buffer) {
        sender.send(&buffer[..len]).unwrap();
    }
}

fn ask(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 8];
    sender.send(&[7; 8]).unwrap();
    receiver.recv(&mut buffer).unwrap();
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 8]).unwrap();
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    let (ask_sender, ask_receiver) = SignalQueue::pair(&blocking()).unwrap();
    let (answer_sender, answer_receiver) = SignalQueue::pair(&blocking()).unwrap();
    let child = Process::new(echo, (ask_receiver, answer_sender))
        .start()
        .unwrap();
    let calls = count(ask, (ask_sender, answer_receiver));
    child.join().unwrap();
    let expected = 2 * MESSAGES..=2 * MESSAGES + BESIDES;
    assert!(expected.contains(&calls), "{calls}");
}
