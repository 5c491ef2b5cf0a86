//! System calls per message, counted exactly, on both sides.

use ipc_conformance::syscalls::{Probe, count};
use ipc_core::{Channel, Pollable, Receiver as _, Sender as _, Wait, WaitStrategy};
use ipc_shm::{Options, Receiver, Sender, SharedMemory};

ipc_process::test_support!();

const MESSAGES: u64 = 500;

fn pair() -> (Sender, Receiver) {
    SharedMemory::pair(&Options::new().wait_strategy(WaitStrategy::Adaptive)).unwrap()
}

/// Both sides in one thread, so that both are counted and neither can fall asleep.
fn both(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let mut buffer = [0; 64];
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 64);
    }
    counted.stop();
}

#[test]
fn messages_cost_no_call_while_both_run() {
    assert_eq!(count(both, pair()), 0);
}

fn in_place(probe: Probe, (mut sender, mut receiver): (Sender, Receiver)) {
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.loan(64, Wait::Forever).unwrap().commit();
        drop(receiver.borrow(Wait::Forever).unwrap());
    }
    counted.stop();
}

#[test]
fn messages_in_place_cost_no_call_either() {
    assert_eq!(count(in_place, pair()), 0);
}

fn fill(probe: Probe, mut sender: Sender) {
    let counted = probe.start();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
    }
    counted.stop();
}

/// A receiver that said it sleeps is rung for once, not at each message.
#[test]
fn a_sleeper_is_rung_for_once() {
    let (sender, mut receiver) = pair();
    assert!(!receiver.arm(), "nothing is there");
    assert_eq!(count(fill, sender), 1);
}

fn take(probe: Probe, mut receiver: Receiver) {
    let mut buffer = [0; 64];
    let counted = probe.start();
    for _ in 0..MESSAGES {
        receiver.recv(&mut buffer).unwrap();
    }
    counted.stop();
}

#[test]
fn what_is_there_is_received_without_a_call() {
    let (mut sender, receiver) = pair();
    for _ in 0..MESSAGES {
        sender.send(&[7; 64]).unwrap();
    }
    assert_eq!(count(take, receiver), 0);
}
