//! System calls per message, counted exactly: a send is one and a receive is one. The sender looks
//! for notices once a millisecond, the receiver sends one for each eighth of the window and is
//! interrupted every 40 ms.

mod common;

use common::alone;
use ipc_conformance::syscalls::{Load, round_trips, to_itself};
use ipc_core::{Channel, Tunable, WaitStrategy};
use ipc_signal::{Options, Receiver, Sender, SignalQueue};

ipc_process::test_support!();

const MESSAGES: u64 = 500;
/// What may be added for all of them together, under a tracer that makes each call slow.
const BESIDES: u64 = MESSAGES / 4;
const LOAD: Load = Load {
    messages: MESSAGES,
    size: 8,
    before: 1,
};

fn pair(options: &Options) -> (Sender, Receiver) {
    SignalQueue::pair(options).unwrap()
}

fn blocking() -> Options {
    Options::default().wait_strategy(WaitStrategy::Block)
}

#[test]
fn a_send_is_one_call_and_a_receive_of_what_is_there_is_one() {
    alone(|| {
        for options in [Options::default(), blocking()] {
            let calls = to_itself(pair(&options), LOAD);
            let expected = 2 * MESSAGES..=2 * MESSAGES + BESIDES;
            assert!(expected.contains(&calls), "{calls}");
        }
    });
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    alone(|| {
        let calls = round_trips(pair(&blocking()), pair(&blocking()), LOAD);
        let expected = 2 * MESSAGES..=2 * MESSAGES + BESIDES;
        assert!(expected.contains(&calls), "{calls}");
    });
}
