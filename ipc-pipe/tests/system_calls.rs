//! System calls per message, counted exactly.

use ipc_conformance::syscalls::{Load, in_pairs, receives, round_trips, sends, sends_batch};
use ipc_core::{Channel, Tunable, WaitStrategy};
use ipc_pipe::{Options, Pipe, Receiver, Sender};

ipc_process::test_support!();

const MESSAGES: u64 = 500;
const LOAD: Load = Load {
    messages: MESSAGES,
    size: 64,
    before: 0,
};

fn pair(options: &Options) -> (Sender, Receiver) {
    Pipe::pair(options).unwrap()
}

fn blocking() -> Options {
    Options::default().wait_strategy(WaitStrategy::Block)
}

#[test]
fn a_send_is_one_call() {
    for options in [Options::default(), blocking()] {
        assert_eq!(sends(pair(&options), LOAD), MESSAGES);
    }
}

#[test]
fn a_batch_is_a_call_for_each_4_kib() {
    let frames_per_call = 4096 / (64 + 4);
    let calls = sends_batch(pair(&Options::default()), LOAD);
    assert_eq!(calls, MESSAGES.div_ceil(frames_per_call));
}

#[test]
fn a_receiver_takes_in_all_that_is_there_with_one_call() {
    let calls = receives(pair(&Options::default()), LOAD);
    assert_eq!(calls, 1, "{MESSAGES} frames are less than one intake");
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    let calls = round_trips(pair(&blocking()), pair(&blocking()), LOAD);
    assert_eq!(calls, 2 * MESSAGES);
}

#[test]
fn no_side_of_a_stream_makes_more_than_a_call_a_message() {
    for options in [Options::default(), blocking()] {
        let calls = in_pairs(pair(&options), LOAD);
        // One read for two messages; a yield before it, unless the machine is too busy for that.
        let least = MESSAGES + MESSAGES / 2;
        assert!((least..=2 * MESSAGES).contains(&calls), "{calls}");
    }
}
