//! Promise 1 at length: once, whole, in order.

use ipc_core::{Channel, End, Receiver as _, RecvError, Sender as _, Tunable as _, WaitStrategy};

use crate::content;
use crate::harness::{Case, longest, pair_with};
use crate::list::cases;

pub(crate) fn send_many<C: Channel>(case: Case, (tx, count): (End<C::Sender>, u64)) {
    let mut tx = tx.into_inner();
    let longest = longest(tx.limits());
    let mut message = vec![0; longest];
    for number in 0..count {
        if number % 1000 == 0 {
            case.step(&format!("sending from message {number} on"));
        }
        let message = &mut message[..content::length(number, longest)];
        content::fill(number, message);
        tx.send(message)
            .unwrap_or_else(|e| panic!("message {number} was not sent: {e}"));
    }
    case.step("closing");
}

pub(crate) fn receive_many<C: Channel>(
    case: &Case,
    rx: &mut C::Receiver,
    count: u64,
    longest: usize,
) {
    let mut buffer = vec![0; longest];
    for number in 0..count {
        if number % 1000 == 0 {
            case.step(&format!("receiving from message {number} on"));
        }
        let got = rx
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("instead of {number}: {e}"));
        content::check(number, content::length(number, longest), &buffer[..got])
            .unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    case.step("receiving the end");
    let end = rx.recv(&mut buffer);
    assert!(
        matches!(end, Err(RecvError::Closed)),
        "after {count} messages: {end:?}"
    );
}

fn stream<C: Channel>(case: &Case, options: &C::Options, count: u64) {
    let (tx, mut rx) = pair_with::<C>(options);
    let sender = case.start("sender", send_many::<C>, (End::new(tx), count));
    let longest = longest(rx.limits());
    receive_many::<C>(case, &mut rx, count, longest);
    case.join(sender);
}

fn answer<C: Channel>(case: Case, (rx, tx): (End<C::Receiver>, End<C::Sender>)) {
    let (mut rx, mut tx) = (rx.into_inner(), tx.into_inner());
    let mut buffer = vec![0; 8];
    case.step("answering");
    while let Ok(length) = rx.recv(&mut buffer) {
        tx.send(&buffer[..length]).expect("the asker listens");
    }
}

cases! {
    /// From one process to another, every byte checked.
    fn a_hundred_thousand_messages_of_random_sizes_arrive_once_whole_and_in_order(case) {
        stream::<C>(&case, &C::Options::default(), 100_000);
    }

    /// `Block`, `Spin` and `Adaptive` differ in nothing but speed; a small channel makes both
    /// sides wait often.
    fn every_wait_strategy_carries_the_same_messages(case) {
        for strategy in [WaitStrategy::Block, WaitStrategy::Spin, WaitStrategy::Adaptive] {
            case.step(&format!("{strategy:?}"));
            let options = C::Options::default().wait_strategy(strategy).capacity(16 << 10);
            stream::<C>(&case, &options, 3000);
        }
    }

    /// Two channels, one each way, and no message waits for the next to push it out.
    fn a_reply_follows_each_request(case) {
        for strategy in [WaitStrategy::Block, WaitStrategy::Spin, WaitStrategy::Adaptive] {
            let options = C::Options::default().wait_strategy(strategy);
            let (mut ask, request) = pair_with::<C>(&options);
            let (reply, mut hear) = pair_with::<C>(&options);
            let peer = case.start("answerer", answer::<C>, (End::new(request), End::new(reply)));
            let mut buffer = [0; 8];
            for number in 0..500u64 {
                if number % 100 == 0 {
                    case.step(&format!("{strategy:?}: asking from {number} on"));
                }
                ask.send(&number.to_le_bytes()).expect("the answerer listens");
                assert_eq!(hear.recv(&mut buffer).expect("the answerer answers"), 8);
                assert_eq!(u64::from_le_bytes(buffer), number);
            }
            drop(ask);
            case.join(peer);
            assert!(matches!(hear.recv(&mut buffer), Err(RecvError::Closed)));
        }
    }
}
