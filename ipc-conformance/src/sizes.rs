//! Promise 1 at every length: whole, or refused and nothing sent.

use std::io::IoSlice;

use ipc_core::{Empty, End, Receiver as _, RecvError, SendError, Sender as _, Wait};

use crate::content;
use crate::harness::{Case, longest, pair};
use crate::list::cases;

/// Beyond this nobody is asked to allocate a message just to see it refused.
const REFUSABLE: usize = 64 << 20;

/// Sends messages of these lengths from another process and checks what arrives here.
fn exchange<C: ipc_core::Channel>(case: &Case, lengths: Vec<usize>) {
    let (tx, mut rx) = pair::<C>();
    let mut buffer = vec![0; lengths.iter().copied().max().unwrap_or(0)];
    let sender = case.start("sender", send_all::<C>, (End::new(tx), lengths.clone()));
    for (number, length) in (0u64..).zip(lengths) {
        case.step(&format!("receiving message {number} of {length} B"));
        let got = rx
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("message {number}: {e}"));
        content::check(number, length, &buffer[..got]).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    case.step("receiving the end");
    let end = rx.recv(&mut buffer);
    assert!(
        matches!(end, Err(RecvError::Closed)),
        "after the last message: {end:?}"
    );
    case.join(sender);
}

fn send_all<C: ipc_core::Channel>(case: Case, (tx, lengths): (End<C::Sender>, Vec<usize>)) {
    let mut tx = tx.into_inner();
    for (number, length) in (0u64..).zip(lengths) {
        case.step(&format!("sending message {number} of {length} B"));
        tx.send(&content::message(number, length))
            .unwrap_or_else(|e| panic!("{number}: {e}"));
    }
}

/// Receives one message of one byte, and then the end.
fn receive_only_x<C: ipc_core::Channel>(case: Case, (rx, _): (End<C::Receiver>, ())) {
    let mut rx = rx.into_inner();
    let mut buffer = [0; 8];
    case.step("receiving what comes after a refused message");
    let got = rx.recv(&mut buffer).expect("the short message arrives");
    assert_eq!(
        &buffer[..got],
        b"x",
        "something of a refused message arrived"
    );
    let end = rx.recv(&mut buffer);
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

fn state_longest<C: ipc_core::Channel>(
    _case: Case,
    (tx, rx): (End<C::Sender>, End<C::Receiver>),
) -> [usize; 2] {
    let (tx, rx) = (tx.into_inner(), rx.into_inner());
    [tx.limits().max_message, rx.limits().max_message]
}

cases! {
    /// Carried: it arrives, distinct from the end. Refused: `Limit`, and the channel goes on.
    fn an_empty_message_is_carried_or_refused_as_declared(case) {
        match C::CAPABILITIES.empty {
            Empty::Carried => exchange::<C>(&case, vec![0, 3, 0, 0, 5, 0]),
            Empty::Refused => {
                let (mut tx, rx) = pair::<C>();
                let receiver = case.start("receiver", receive_only_x::<C>, (End::new(rx), ()));
                for wait in [Wait::Never, Wait::Forever] {
                    let refused = tx.send_with(&[], wait);
                    assert!(matches!(refused, Err(SendError::Limit(_))), "{refused:?}");
                }
                tx.send(b"x").expect("a message after the refusal");
                drop(tx);
                case.join(receiver);
            }
        }
    }

    /// The smallest message that every mechanism carries.
    fn a_message_of_one_byte_arrives(case) {
        exchange::<C>(&case, vec![1, 1, 1]);
    }

    /// All lengths up to 300 B, or to the longest.
    fn messages_of_every_small_length_arrive_whole(case) {
        let (tx, rx) = pair::<C>();
        let end = longest(tx.limits()).min(300);
        drop((tx, rx));
        exchange::<C>(&case, (1..=end).collect());
    }

    /// Exactly `max_message` (1 MiB where it is more), and lengths close by.
    fn the_longest_message_arrives_whole(case) {
        let (tx, rx) = pair::<C>();
        let max = longest(tx.limits());
        drop((tx, rx));
        exchange::<C>(&case, vec![max, 1, max, max - 1, max / 2 + 1, max]);
    }

    /// `TooLong` with the right numbers, however long one would wait, and nothing arrives.
    fn one_byte_more_than_the_longest_is_refused_and_nothing_is_sent(case) {
        let (mut tx, rx) = pair::<C>();
        let receiver = case.start("receiver", receive_only_x::<C>, (End::new(rx), ()));
        let limit = tx.limits().max_message;
        if limit < REFUSABLE {
            let message = vec![1; limit + 1];
            for wait in [Wait::Never, Wait::Forever, Wait::at_most(std::time::Duration::ZERO)] {
                case.step("sending too long a message");
                let refused = tx.send_with(&message, wait);
                assert!(
                    matches!(refused, Err(SendError::TooLong { len, max })
                        if len == limit + 1 && max == limit),
                    "{} B where {limit} B fit: {refused:?}", limit + 1
                );
            }
        }
        case.step("sending after the refusal");
        tx.send(b"x").expect("a message after the refusal");
        drop(tx);
        case.join(receiver);
    }

    /// However often one asks with too small a buffer; then it arrives whole, and the next too.
    fn a_buffer_too_small_keeps_the_message(case) {
        let (tx, mut rx) = pair::<C>();
        let length = longest(rx.limits()).min(100);
        let sender = case.start("sender", send_all::<C>, (End::new(tx), vec![length, 1, length]));
        let mut buffer = [0xaa; 200];
        for small in [length - 1, 0, 1, length - 1] {
            case.step(&format!("receiving {length} B into {small} B"));
            let refused = rx.recv(&mut buffer[..small]);
            assert!(
                matches!(refused, Err(RecvError::BufferTooSmall { needed }) if needed == length),
                "{length} B into a buffer of {small} B: {refused:?}"
            );
        }
        for (number, length) in [(0, length), (1, 1), (2, length)] {
            case.step("receiving into a buffer that is large enough");
            let got = rx.recv(&mut buffer[..length]).expect("the message was kept");
            content::check(number, length, &buffer[..got]).unwrap_or_else(|e| panic!("{e}"));
        }
        case.join(sender);
    }

    /// `recv_vec` from a vector of no capacity.
    fn a_vector_grows_to_the_message(case) {
        let (tx, mut rx) = pair::<C>();
        let max = longest(rx.limits());
        let lengths = vec![1, max, 1];
        let sender = case.start("sender", send_all::<C>, (End::new(tx), lengths.clone()));
        let mut message = Vec::new();
        for (number, length) in (0u64..).zip(lengths) {
            case.step("receiving into a vector");
            rx.recv_vec(&mut message, Wait::Forever).expect("a message");
            content::check(number, length, &message).unwrap_or_else(|e| panic!("{e}"));
        }
        let end = rx.recv_vec(&mut message, Wait::Forever);
        assert!(matches!(end, Err(RecvError::Closed)) && message.is_empty(), "{end:?}");
        case.join(sender);
    }

    /// Each message of a batch once, in order, whatever part of it was taken at a time.
    fn a_batch_arrives_like_single_messages(case) {
        let (tx, mut rx) = pair::<C>();
        let longest = longest(rx.limits()).min(700);
        let sender = case.start("sender", send_batches::<C>, (End::new(tx), longest));
        let mut buffer = vec![0; longest];
        for number in 0..BATCHES * BATCH {
            if number % BATCH == 0 {
                case.step(&format!("receiving message {number}"));
            }
            let got = rx.recv(&mut buffer).unwrap_or_else(|e| panic!("message {number}: {e}"));
            content::check(number, content::length(number, longest), &buffer[..got])
                .unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        let end = rx.recv(&mut buffer);
        assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
        case.join(sender);
    }

    /// Here, and in the process where they have gone.
    fn both_ends_state_the_same_longest_message(case) {
        let (tx, rx) = pair::<C>();
        let here = [tx.limits().max_message, rx.limits().max_message];
        let ends = (End::new(tx), End::new(rx));
        let elsewhere = case.start("both ends", state_longest::<C>, ends);
        let there = case.join(elsewhere);
        assert_eq!([here, there], [[here[0]; 2]; 2], "of sender and receiver");
        assert!(here[0] >= 8, "no mechanism carries less than a word");
    }
}

const BATCHES: u64 = 100;
const BATCH: u64 = 33;

fn send_batches<C: ipc_core::Channel>(case: Case, (tx, longest): (End<C::Sender>, usize)) {
    let mut tx = tx.into_inner();
    assert_eq!(tx.send_batch(&[]).expect("an empty batch"), 0);
    for batch in 0..BATCHES {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let messages: Vec<Vec<u8>> = numbers
            .map(|n| content::message(n, content::length(n, longest)))
            .collect();
        let slices: Vec<IoSlice<'_>> = messages.iter().map(|m| IoSlice::new(m)).collect();
        let mut sent = 0;
        while sent < slices.len() {
            case.step(&format!("sending batch {batch} from its message {sent}"));
            let taken = tx
                .send_batch(&slices[sent..])
                .unwrap_or_else(|e| panic!("{batch}: {e}"));
            assert!(
                taken > 0 && taken <= slices.len() - sent,
                "a batch of which {taken} went"
            );
            sent += taken;
        }
    }
}
