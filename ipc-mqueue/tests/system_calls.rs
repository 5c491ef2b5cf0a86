//! System calls per message, counted exactly. A queue carries one message a call, so a send is one
//! call and a receive is one; what is added is a look at the queue at every 32nd of them, and in a
//! stream a look and a yield for each queue full of messages.

use ipc_conformance::syscalls::{Probe, count};
use ipc_core::{Channel, Receiver as _, Sender as _, Tunable, WaitStrategy};
use ipc_mqueue::{MessageQueue, Options, Receiver, Sender};
use ipc_process::Process;

ipc_process::test_support!();

const MESSAGES: u64 = 500;
/// Most messages in the queue, so that tests fit into the limit of a user.
const DEPTH: u64 = 4;

fn options(strategy: WaitStrategy) -> Options {
    Options::default()
        .message_size(64)
        .depth(DEPTH as usize)
        .wait_strategy(strategy)
}

/// The first blocking call of a process starts the thread that watches the lifelines.
fn warm_up(sender: &mut Sender, receiver: &mut Receiver) {
    sender.send(&[7; 64]).unwrap();
    receiver.recv(&mut [0; 64]).unwrap();
}

fn to_itself(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 64];
    warm_up(&mut sender, &mut receiver);
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

#[test]
fn a_send_is_one_call_and_a_receive_of_what_is_there_is_one() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Spin] {
        let ends = MessageQueue::pair(&options(strategy)).unwrap();
        let calls = count(to_itself, ends);
        // Every 20 ms a sender looks at its lifeline.
        let looks = calls - 2 * MESSAGES;
        assert!(looks <= MESSAGES / 10, "{calls}");
    }
}

fn echo(mut receiver: Receiver, mut sender: Sender) {
    let mut buffer = [0; 64];
    while let Ok(len) = receiver.recv(&mut buffer) {
        sender.send(&buffer[..len]).unwrap();
    }
}

fn ask(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 64];
    sender.send(&[7; 64]).unwrap();
    receiver.recv(&mut buffer).unwrap();
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

#[test]
fn a_blocking_round_trip_is_two_calls_and_a_look_now_and_then() {
    let options = options(WaitStrategy::Block);
    let (ask_sender, ask_receiver) = MessageQueue::pair(&options).unwrap();
    let (answer_sender, answer_receiver) = MessageQueue::pair(&options).unwrap();
    let child = Process::new(echo, (ask_receiver, answer_sender))
        .start()
        .unwrap();
    let calls = count(ask, (ask_sender, answer_receiver));
    child.join().unwrap();
    // A look that finds the answer there already takes it for a stream until the next, a queue
    // later: at most two calls more for each queue of messages.
    let most = 2 * MESSAGES + 2 * MESSAGES.div_ceil(DEPTH);
    assert!((2 * MESSAGES..=most).contains(&calls), "{calls}");
}

fn send_stream(probe: Probe, mut sender: Sender) {
    sender.send(&[7; 64]).unwrap();
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
    }
    counted.stop();
}

fn drain(mut receiver: Receiver) -> u64 {
    let mut buffer = [0; 64];
    (0..).find(|_| receiver.recv(&mut buffer).is_err()).unwrap()
}

#[test]
fn a_blocking_stream_adds_two_calls_a_queue_of_messages() {
    let (sender, receiver) = MessageQueue::pair(&options(WaitStrategy::Block)).unwrap();
    let child = Process::new(drain, (receiver,)).start().unwrap();
    let calls = count(send_stream, sender);
    assert_eq!(child.join().unwrap(), MESSAGES + 1);
    let most = MESSAGES + 2 * MESSAGES.div_ceil(DEPTH);
    assert!((MESSAGES..=most).contains(&calls), "{calls}");
}
