//! Several receivers of one channel: `Consumers::Competing`.

use ipc_core::{Channel, End, Receiver as _, RecvError, SendError, Sender as _, TryClone};

use crate::content;
use crate::ending::send_until_error;
use crate::harness::{Case, pair, small};
use crate::list::cases;

const RECEIVERS: usize = 4;
const MESSAGES: u64 = 8000;

/// Receives until the end; the numbers of the messages that came here.
fn receive_share<C: Channel>(case: Case, (rx, _): (End<C::Receiver>, ())) -> Vec<u64> {
    let mut rx = rx.into_inner();
    let mut buffer = [0; 64];
    let mut numbers = Vec::new();
    case.step("receiving a share");
    loop {
        match rx.recv(&mut buffer) {
            Ok(got) => {
                let number = u64::from_le_bytes(buffer[..8].try_into().expect("eight bytes"));
                assert_eq!(
                    got,
                    8 + number as usize % 40,
                    "the length of message {number}"
                );
                numbers.push(number);
            }
            Err(RecvError::Closed) => return numbers,
            Err(error) => panic!("after {} messages: {error}", numbers.len()),
        }
    }
}

cases! { [C::Receiver: TryClone]
    /// Each message goes to exactly one of four, and to each of them in order.
    fn several_receivers_share_the_messages(case) {
        let (mut tx, mut rx) = small::<C>(ipc_core::WaitStrategy::default());
        let peers: Vec<_> = (0..RECEIVERS)
            .map(|id| {
                let clone = rx.try_clone().expect("one more receiver");
                let side = format!("receiver {id}");
                case.start(&side, receive_share::<C>, (End::new(clone), ()))
            })
            .collect();
        drop(rx);
        case.step("sending to all");
        for number in 0..MESSAGES {
            let mut message = content::message(number, 8 + number as usize % 40);
            message[..8].copy_from_slice(&number.to_le_bytes());
            tx.send(&message).expect("receivers are there");
        }
        drop(tx);
        let mut all = Vec::new();
        for peer in peers {
            let share = case.join(peer);
            assert!(share.is_sorted(), "one receiver saw messages out of order");
            all.extend(share);
        }
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..MESSAGES), "a message came twice or never");
    }

    /// As long as one receiver is open, there is somebody to send to.
    fn a_sender_learns_that_the_last_of_several_receivers_closed(_case) {
        let (mut tx, mut rx) = pair::<C>();
        let mut clone = rx.try_clone().expect("one more receiver");
        drop(rx);
        tx.try_send(b"x").expect("a receiver is open");
        assert_eq!(clone.try_recv(&mut [0; 8]).expect("a message"), 1);
        drop(clone);
        let error = send_until_error::<C>(&mut tx);
        assert!(matches!(error, SendError::Closed), "{error:?}");
    }
}
