//! System calls per message, counted exactly. A queue carries one message a call, so a send is one
//! call and a receive is one; what is added is a look at the queue at every 32nd of them, and in a
//! stream a look and a yield for each queue full of messages.

use ipc_conformance::syscalls::{Load, round_trips, streams, to_itself};
use ipc_core::{Channel, Tunable, WaitStrategy};
use ipc_mqueue::{MessageQueue, Options, Receiver, Sender};

ipc_process::test_support!();

const MESSAGES: u64 = 500;
/// Most messages in the queue, so that tests fit into the limit of a user.
const DEPTH: u64 = 4;
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
    // A look that finds the answer there already takes it for a stream until the next, a queue
    // later: at most two calls more for each queue of messages.
    let most = 2 * MESSAGES + 2 * MESSAGES.div_ceil(DEPTH);
    assert!((2 * MESSAGES..=most).contains(&calls), "{calls}");
}

#[test]
fn a_blocking_stream_adds_two_calls_a_queue_of_messages() {
    let calls = streams(pair(WaitStrategy::Block), LOAD);
    let most = MESSAGES + 2 * MESSAGES.div_ceil(DEPTH);
    assert!((MESSAGES..=most).contains(&calls), "{calls}");
}
