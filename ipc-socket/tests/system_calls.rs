//! System calls per message, counted exactly.

use std::time::Duration;

use ipc_conformance::syscalls::{
    Load, in_pairs, receives, round_trips, sends, sends_batch, to_itself,
};
use ipc_core::{Channel, Listener as _, Tunable, Wait, WaitStrategy};
use ipc_socket::{Options, Receiver, Sender, Socket};

ipc_process::test_support!();

/// So many fit into the send buffer of an untuned system one by one.
const MESSAGES: u64 = 100;
const LOAD: Load = Load {
    messages: MESSAGES,
    size: 64,
    before: 0,
};

fn pair(options: &Options) -> (Sender, Receiver) {
    Socket::pair(options).unwrap()
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
        assert_eq!(sends(pair(&options), LOAD), MESSAGES);
    }
}

#[test]
fn a_batch_is_a_call_for_each_32_kib() {
    let frames_per_call = (32 << 10) / (64 + 4);
    let load = Load {
        messages: 1000,
        ..LOAD
    };
    let calls = sends_batch(pair(&Options::default()), load);
    assert_eq!(calls, 1000u64.div_ceil(frames_per_call));
}

#[test]
fn a_receiver_takes_in_all_that_is_there_with_one_call() {
    for options in each_strategy() {
        assert_eq!(receives(pair(&options), LOAD), 1);
    }
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    let [blocking, ..] = each_strategy();
    let calls = round_trips(pair(&blocking), pair(&blocking), LOAD);
    assert_eq!(calls, 2 * MESSAGES);
}

#[test]
fn a_long_message_is_one_call_to_send_and_one_more_to_receive_the_first() {
    let [blocking, ..] = each_strategy();
    // Two chunks, which fit into the send buffer of an untuned system.
    let first = Load {
        messages: 1,
        size: 100_000,
        before: 0,
    };
    assert_eq!(sends(pair(&blocking), first), 1);
    assert_eq!(receives(pair(&blocking), first), 2);
    // One like the one before is read at once.
    let next = Load {
        messages: 10,
        before: 1,
        ..first
    };
    assert_eq!(to_itself(pair(&blocking), next), 2 * 10);
}

#[test]
fn no_side_of_a_stream_makes_more_than_a_call_a_message() {
    for options in each_strategy() {
        let calls = in_pairs(pair(&options), LOAD);
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
    let calls = round_trips(tcp(&blocking), tcp(&blocking), LOAD);
    assert_eq!(calls, 2 * MESSAGES);
}

#[test]
fn a_batch_over_tcp_is_a_call_for_each_32_kib_too() {
    let frames_per_call = (32 << 10) / (64 + 5);
    let load = Load {
        messages: 1000,
        ..LOAD
    };
    let calls = sends_batch(tcp(&Options::default()), load);
    assert_eq!(calls, 1000u64.div_ceil(frames_per_call));
}
