//! System calls per message, counted exactly. A queue carries one message a call, so a send is one
//! call and a receive is one. What is added by blocking ends is a look at the queue at every 64th, which
//! is two calls of a receiver, and in a stream a yield for each queue full of messages.

use ipc_conformance::syscalls::{Load, round_trips, streams, to_itself};
use ipc_core::{Channel, Tunable, WaitStrategy};
use ipc_mqueue::{MessageQueue, Options, Receiver, Sender};

ipc_process::test_support!();

const MESSAGES: u64 = 500;
/// Most messages in the queue, so that tests fit into the limit of a user.
const DEPTH: u64 = 4;
/// Calls of a blocking end between two looks.
const CALM: u64 = 64;
/// The first blocking call of a process starts the thread that watches the lifelines.
const LOAD: Load = Load {
    messages: MESSAGES,
    size: 64,
    before: 1,
};

fn pair(strategy: WaitStrategy) -> (Sender, Receiver) {
    let options = Options::default()
        .message_size(64)
        .depth(DEPTH as usize)
        .wait_strategy(strategy);
    MessageQueue::pair(&options).unwrap()
}

#[test]
fn a_send_is_one_call_and_a_receive_of_what_is_there_is_one() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Spin] {
        let calls = to_itself(pair(strategy), LOAD);
        // Every 20 ms a sender looks at its lifeline.
        let looks = calls - 2 * MESSAGES;
        assert!(looks <= MESSAGES / 10, "{calls}");
    }
}

#[test]
fn a_blocking_round_trip_is_two_calls_and_a_look_now_and_then() {
    let calls = round_trips(pair(WaitStrategy::Block), pair(WaitStrategy::Block), LOAD);
    // One of the sender, and a yield and a look of the receiver.
    let most = 2 * MESSAGES + 3 * MESSAGES.div_ceil(CALM);
    assert!((2 * MESSAGES..=most).contains(&calls), "{calls}");
}

#[test]
fn a_blocking_stream_adds_a_yield_a_queue_of_messages() {
    let calls = streams(pair(WaitStrategy::Block), LOAD);
    let yields = MESSAGES.div_ceil(DEPTH);
    // And a look before the first of them, one a score of queues, and one whenever it had run dry.
    let most = MESSAGES + yields + yields.div_ceil(16) + MESSAGES.div_ceil(CALM);
    assert!((MESSAGES..=most).contains(&calls), "{calls}");
}
