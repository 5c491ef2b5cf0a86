//! System calls per message, counted exactly: a send is one and a receive is one. The sender looks
//! for notices once a millisecond, the receiver sends one for each eighth of the window and is
//! interrupted every 40 ms.

mod common;

use std::time::Instant;

use common::alone;
use ipc_conformance::syscalls::{Load, round_trips, to_itself};
use ipc_core::{Channel, Tunable, WaitStrategy};
use ipc_signal::{Options, Receiver, Sender, SignalQueue};

ipc_process::test_support!();

const MESSAGES: u64 = 500;
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

/// What `exchange` counts, and how many calls its time allows besides those for messages.
fn measured(exchange: impl FnOnce() -> u64) -> (u64, u64) {
    let started = Instant::now();
    let calls = exchange();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap();
    // Looks, interruptions, and notices with what reads them.
    let notices = MESSAGES / 128 + 1;
    (calls, ms + ms / 40 + 2 * notices)
}

#[test]
fn a_send_is_one_call_and_a_receive_of_what_is_there_is_one() {
    alone(|| {
        for options in [Options::default(), blocking()] {
            let (calls, besides) = measured(|| to_itself(pair(&options), LOAD));
            let expected = 2 * MESSAGES..=2 * MESSAGES + besides;
            assert!(expected.contains(&calls), "{calls}, {expected:?}");
        }
    });
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    alone(|| {
        let (calls, besides) = measured(|| round_trips(pair(&blocking()), pair(&blocking()), LOAD));
        let expected = 2 * MESSAGES..=2 * MESSAGES + besides;
        assert!(expected.contains(&calls), "{calls}, {expected:?}");
    });
}
