//! System calls per message, counted exactly.

use std::io::IoSlice;
use std::time::Duration;

use ipc_conformance::syscalls::{Probe, count};
use ipc_core::{Channel, Listener as _, Receiver as _, Sender as _, Tunable, Wait, WaitStrategy};
use ipc_process::Process;
use ipc_socket::{Options, Receiver, Sender, Socket};

ipc_process::test_support!();

/// So many fit into the send buffer of an untuned system one by one.
const MESSAGES: u64 = 100;

fn send_each(probe: Probe, mut sender: Sender) {
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
    }
    counted.stop();
}

fn send_batch(probe: Probe, mut sender: Sender) {
    let message = [7u8; 64];
    let batch = [IoSlice::new(&message); 1000];
    let counted = probe.start();
    assert_eq!(sender.send_batch(&batch).unwrap(), batch.len());
    counted.stop();
}

fn receive(probe: Probe, mut receiver: Receiver) {
    let mut buffer = [0; 64];
    let counted = probe.start();
    for _ in 0..MESSAGES {
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

fn echo(mut receiver: Receiver, mut sender: Sender) {
    let mut buffer = [0; 64];
    while let Ok(len) = receiver.recv(&mut buffer) {
        sender.send(&buffer[..len]).unwrap();
    }
}

fn ask(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 64];
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

/// As the receiver of a stream does: two messages are there whenever it comes.
fn in_pairs(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 64];
    let counted = probe.start();
    for _ in 0..MESSAGES / 2 {
        sender.send(&[7; 64]).unwrap();
        sender.send(&[7; 64]).unwrap();
        receiver.recv(&mut buffer).unwrap();
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

fn each_strategy() -> [Options; 3] {
    [
        WaitStrategy::Block,
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
    ]
    .map(|strategy| Options::default().wait_strategy(strategy))
}

#[test]
fn a_send_is_one_call() {
    for options in each_strategy() {
        let (sender, _receiver) = Socket::pair(&options).unwrap();
        assert_eq!(count(send_each, sender), MESSAGES);
    }
}

#[test]
fn a_batch_is_a_call_for_each_32_kib() {
    let (sender, _receiver) = Socket::pair(&Options::default()).unwrap();
    let frames_per_call = (32 << 10) / (64 + 4);
    assert_eq!(count(send_batch, sender), 1000u64.div_ceil(frames_per_call));
}

#[test]
fn a_receiver_takes_in_all_that_is_there_with_one_call() {
    for options in each_strategy() {
        let (mut sender, receiver) = Socket::pair(&options).unwrap();
        for _ in 0..MESSAGES {
            sender.send(&[7; 64]).unwrap();
        }
        assert_eq!(count(receive, receiver), 1);
    }
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    let [blocking, ..] = each_strategy();
    let (ask_sender, ask_receiver) = Socket::pair(&blocking).unwrap();
    let (answer_sender, answer_receiver) = Socket::pair(&blocking).unwrap();
    let child = Process::new(echo, (ask_receiver, answer_sender))
        .start()
        .unwrap();
    assert_eq!(count(ask, (ask_sender, answer_receiver)), 2 * MESSAGES);
    child.join().unwrap();
}

#[test]
fn no_side_of_a_stream_makes_more_than_a_call_a_message() {
    for options in each_strategy() {
        let calls = count(in_pairs, Socket::pair(&options).unwrap());
        // One read for two messages; a yield before it, unless the machine is too busy for that.
        let least = MESSAGES + MESSAGES / 2;
        assert!((least..=2 * MESSAGES).contains(&calls), "{calls}");
    }
}

fn tcp(options: &Options) -> (Sender, Receiver) {
    let mut listener = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), options).unwrap();
    let address = format!("tcp:{}", listener.tcp_address().unwrap());
    let sender = Socket::connect(&address.parse().unwrap(), options, Wait::Never).unwrap();
    let patience = Wait::at_most(Duration::from_secs(20));
    (sender, listener.accept(patience).unwrap())
}

#[test]
fn tcp_takes_a_call_a_message_too() {
    let [blocking, ..] = each_strategy();
    let (ask_sender, ask_receiver) = tcp(&blocking);
    let (answer_sender, answer_receiver) = tcp(&blocking);
    let child = Process::new(echo, (ask_receiver, answer_sender))
        .start()
        .unwrap();
    assert_eq!(count(ask, (ask_sender, answer_receiver)), 2 * MESSAGES);
    child.join().unwrap();
}
