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

/// Calls of an end that does not block, the first time: where pipes do not know `RWF_NOWAIT`, it hears so
/// and makes its descriptor non-blocking.
fn once(strategy: WaitStrategy) -> u64 {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let mut byte = [0];
    let buffers = &mut [std::io::IoSliceMut::new(&mut byte)];
    match preadv2(&reader, buffers, u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(Errno::AGAIN) => 0,
        _ if strategy == WaitStrategy::Block => 0,
        _ => 2,
    }
}

#[test]
fn a_send_is_one_call() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Block] {
        let options = Options::default().wait_strategy(strategy);
        assert_eq!(sends(pair(&options), LOAD), MESSAGES + once(strategy));
    }
}

#[test]
fn a_batch_is_a_call_for_each_4_kib() {
    let frames_per_call = 4096 / (64 + 4);
    let calls = sends_batch(pair(&Options::default()), LOAD);
    let once = once(WaitStrategy::Adaptive);
    assert_eq!(calls, MESSAGES.div_ceil(frames_per_call) + once);
}

#[test]
fn a_receiver_takes_in_all_that_is_there_with_one_call() {
    let calls = receives(pair(&Options::default()), LOAD);
    let once = once(WaitStrategy::Adaptive);
    assert_eq!(
        calls,
        1 + once,
        "{MESSAGES} frames are less than one intake"
    );
}

#[test]
fn a_blocking_round_trip_is_two_calls() {
    let calls = round_trips(pair(&blocking()), pair(&blocking()), LOAD);
    assert_eq!(calls, 2 * MESSAGES);
}

#[test]
fn no_side_of_a_stream_makes_more_than_a_call_a_message() {
    for strategy in [WaitStrategy::Adaptive, WaitStrategy::Block] {
        let options = Options::default().wait_strategy(strategy);
        let calls = in_pairs(pair(&options), LOAD) - 2 * once(strategy);
        // One read for two messages; a yield before it, unless the machine is too busy for that.
        let least = MESSAGES + MESSAGES / 2;
        assert!((least..=2 * MESSAGES).contains(&calls), "{calls}");
    }
}
