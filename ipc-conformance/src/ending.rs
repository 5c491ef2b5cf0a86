//! Promise 1's end and the orderly half of promise 3.

use std::time::{Duration, Instant};

use ipc_core::{
    Channel, End, Receiver as _, RecvError, SendError, Sender as _, Wait, WaitStrategy,
};

use crate::board::Gate;
use crate::content;
use crate::harness::{Case, longest, pair, small};
use crate::list::cases;
use crate::timing::{NOTICE, prompt};
use crate::waiting::{drain, fill, fills};

/// Fills the channel, or sends a good many messages where it cannot be full, and leaves.
fn fill_and_leave<C: Channel>(case: Case, (tx, _): (End<C::Sender>, ())) -> u64 {
    let mut tx = tx.into_inner();
    case.step("filling the channel");
    if fills::<C>() {
        return fill::<C>(&mut tx);
    }
    let length = longest(tx.limits()).min(64);
    for number in 0..10_000 {
        tx.try_send(&content::message(number, length))
            .expect("there is always room");
    }
    10_000
}

fn receive_closed<C: Channel>(case: Case, (rx, _): (End<C::Receiver>, ())) {
    let mut rx = rx.into_inner();
    case.step("receiving the end");
    for _ in 0..3 {
        let end = rx.recv(&mut [0; 64]);
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
    }
}

/// Closes the receiving end when the gate opens.
fn close_receiver<C: Channel>(case: Case, (rx, gate): (End<C::Receiver>, Gate)) {
    let rx = rx.into_inner();
    case.step("waiting to close the receiver");
    gate.pass();
    drop(rx);
    case.step("closed the receiver");
}

fn send_into_full<C: Channel>(case: Case, (tx, _): (End<C::Sender>, ())) {
    let mut tx = tx.into_inner();
    let length = longest(tx.limits()).min(64);
    case.step("sending into a full channel with no deadline");
    for _ in 0..3 {
        let sent = tx.send(&content::message(0, length));
        assert!(matches!(sent, Err(SendError::Closed)), "{sent:?}");
    }
}

/// Sends until the error that is not lack of room.
pub(crate) fn send_until_error<C: Channel>(tx: &mut C::Sender) -> SendError {
    let length = longest(tx.limits()).min(64);
    let message = content::message(0, length);
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        match tx.send_with(&message, Wait::at_most(Duration::from_millis(20))) {
            Ok(()) | Err(SendError::TimedOut) => {}
            Err(error) => return error,
        }
        assert!(
            Instant::now() < patience,
            "ten seconds of sending to a receiver that is gone"
        );
    }
}

cases! {
    /// The sender's process has ended before the first message is received.
    fn the_end_comes_after_the_last_message_of_a_full_channel(case) {
        for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
            let (tx, mut rx) = small::<C>(strategy);
            let sender = case.start("sender", fill_and_leave::<C>, (End::new(tx), ()));
            let count = case.join(sender);
            case.step(&format!("receiving {count} messages"));
            drain::<C>(&mut rx, 0..count, Wait::Forever);
            for wait in [Wait::Forever, Wait::Never, Wait::at_most(Duration::ZERO)] {
                case.step("receiving the end");
                let end = rx.recv_with(&mut [0; 64], wait);
                assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
            }
        }
    }

    /// It was asleep on an empty channel, and says so again when asked again.
    fn a_waiting_receiver_learns_that_the_sender_closed(case) {
        let (tx, rx) = pair::<C>();
        let receiver = case.start("receiver", receive_closed::<C>, (End::new(rx), ()));
        receiver.until_asleep();
        case.step("closing the sender");
        drop(tx);
        case.join(receiver);
    }

    /// `Closed` within 100 ms, and again at each later call.
    fn a_sender_learns_that_the_receiver_closed(case) {
        prompt("the news that the receiver closed", NOTICE, || {
            let (mut tx, rx) = pair::<C>();
            let gate = Gate::new();
            let arguments = (End::new(rx), gate.another());
            let receiver = case.start("receiver", close_receiver::<C>, arguments);
            tx.send(b"x").expect("the receiver is there");
            gate.open();
            case.join(receiver);
            case.step("sending to a receiver that closed");
            let start = Instant::now();
            for _ in 0..3 {
                let error = send_until_error::<C>(&mut tx);
                assert!(matches!(error, SendError::Closed), "{error:?}");
            }
            start.elapsed()
        });
    }

    /// It was asleep on a full channel.
    fn a_sender_waiting_for_room_learns_that_the_receiver_closed(case) {
        if !fills::<C>() {
            return;
        }
        let (mut tx, rx) = small::<C>(WaitStrategy::default());
        fill::<C>(&mut tx);
        let sender = case.start("sender", send_into_full::<C>, (End::new(tx), ()));
        sender.until_asleep();
        case.step("closing the receiver");
        drop(rx);
        case.join(sender);
    }
}
