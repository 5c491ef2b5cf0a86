//! What only the crate itself can see: how many system calls a message takes.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::Duration;

use ipc_core::{
    Channel, Listener as _, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait,
    WaitStrategy,
};

use crate::farewell::Owed;
use crate::frame::{END, HEADER, PART_MAX, Pieces, WHOLE_MAX, part};
use crate::sys::{Sleep, Transport, calls};
use crate::{Options, Receiver, Socket};

#[test]
fn a_small_message_takes_one_call_a_side_and_a_batch_takes_one_in_all() {
    let (mut tx, mut rx) = Socket::pair(&Options::default()).unwrap();
    let mut buffer = [0; 64];
    for len in [0, 1, 64] {
        let before = calls();
        tx.send_with(&[7; 64][..len], Wait::Forever).unwrap();
        assert_eq!(rx.recv_with(&mut buffer, Wait::Forever).unwrap(), len);
        assert_eq!(calls() - before, 2);
    }
    let message = [7; 64];
    let batch = [IoSlice::new(&message); 256];
    let before = calls();
    assert_eq!(tx.send_batch(&batch).unwrap(), 256);
    for _ in 0..256 {
        assert_eq!(rx.recv(&mut buffer).unwrap(), 64);
    }
    assert_eq!(calls() - before, 2);
}

#[test]
fn adaptive_and_blocking_ends_take_one_call_while_messages_wait() {
    for strategy in [
        WaitStrategy::Block,
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
    ] {
        let options = Options::default().wait_strategy(strategy);
        let (mut tx, mut rx) = Socket::pair(&options).unwrap();
        let before = calls();
        for _ in 0..100 {
            tx.send(b"message").unwrap();
        }
        assert_eq!(calls() - before, 100, "{strategy:?}");
        let before = calls();
        for _ in 0..100 {
            rx.recv(&mut [0; 8]).unwrap();
        }
        assert_eq!(calls() - before, 1, "{strategy:?}");
    }
}

#[test]
fn messages_of_every_size_come_back_as_they_went() {
    let (mut tx, mut rx) = Socket::pair(&Options::default()).unwrap();
    let mut received = Vec::new();
    for len in [
        0,
        1,
        4092,
        4093,
        WHOLE_MAX,
        WHOLE_MAX + 1,
        PART_MAX,
        PART_MAX + 1,
        1 << 18,
    ] {
        let message: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        tx.try_send(&message).unwrap();
        rx.recv_vec(&mut received, Wait::Never).unwrap();
        assert!(received == message, "{len}");
    }
    assert!(matches!(rx.try_recv(&mut []), Err(RecvError::Empty)));
}

#[test]
fn a_message_given_up_half_way_never_was() {
    let options = Options::default().capacity(128 << 10).max_message(4 << 20);
    let (mut tx, mut rx) = Socket::pair(&options).unwrap();
    tx.send(b"before").unwrap();
    let large = vec![1; 4 << 20];
    let soon = Wait::at_most(Duration::from_millis(20));
    assert!(matches!(
        tx.send_with(&large, soon),
        Err(SendError::TimedOut)
    ));
    assert!(!tx.owed.is_empty());
    assert!(matches!(tx.try_send(b"x"), Err(SendError::Full)));
    let mut buffer = [0; 64];
    assert_eq!(rx.recv(&mut buffer).unwrap(), 6);
    assert!(matches!(rx.try_recv(&mut buffer), Err(RecvError::Empty)));
    tx.send(b"after").unwrap();
    assert_eq!(rx.recv(&mut buffer).unwrap(), 5);
    // And again, now with nothing but the farewell after it.
    assert!(matches!(
        tx.send_with(&large, soon),
        Err(SendError::TimedOut)
    ));
    assert!(!tx.owed.is_empty());
    drop(tx);
    assert!(matches!(rx.recv(&mut buffer), Err(RecvError::Closed)));
    assert!(matches!(rx.recv(&mut buffer), Err(RecvError::Closed)));
}

#[test]
fn a_farewell_gets_through_a_full_buffer() {
    for message in [&[1; 1][..], &[2; 5000], &vec![3; WHOLE_MAX]] {
        for options in [Options::default(), Options::default().capacity(1)] {
            let (mut tx, mut rx) = Socket::pair(&options).unwrap();
            let mut sent = 0;
            while tx.try_send(message).is_ok() {
                sent += 1;
            }
            drop(tx);
            let mut buffer = vec![0; message.len()];
            for _ in 0..sent {
                assert_eq!(rx.try_recv(&mut buffer).unwrap(), message.len());
            }
            assert!(matches!(rx.try_recv(&mut buffer), Err(RecvError::Closed)));
        }
    }
}

#[test]
fn every_way_to_abandon_a_message_leaves_the_stream_in_step() {
    // From every offset into the message, the bytes owed lead back to a frame boundary.
    let pieces = Pieces::of(PART_MAX + 3);
    let mut stream = part(PART_MAX).to_vec();
    stream.resize(HEADER + PART_MAX, 9);
    stream.extend_from_slice(&part(3));
    stream.extend_from_slice(&[9; 3]);
    stream.extend_from_slice(&END);
    assert_eq!(stream.len(), pieces.total());
    let near = [1, 3, 4, 5, 1000, PART_MAX + 3];
    for sent in near.into_iter().chain(PART_MAX + 4..pieces.total()) {
        let (ours, theirs) = crate::sys::pair().unwrap();
        let options = Options::default();
        crate::sys::size_buffer(ours.as_fd(), None, 1 << 20).unwrap();
        assert_eq!(
            crate::sys::send(ours.as_fd(), &stream[..sent], Sleep::Never).unwrap(),
            sent
        );
        let mut rx = Receiver::new(theirs, Transport::Unix, &options);
        assert!(matches!(rx.try_recv(&mut []), Err(RecvError::Empty)));
        crate::farewell::say(ours.as_fd(), &mut Owed::after(pieces, sent));
        assert!(
            matches!(rx.try_recv(&mut []), Err(RecvError::Closed)),
            "{sent}"
        );
    }
}

#[test]
fn a_large_message_that_does_not_fit_now_is_full_and_one_that_never_fits_is_a_limit() {
    let options = Options::default().capacity(128 << 10).max_message(1 << 20);
    let (mut tx, mut rx) = Socket::pair(&options).unwrap();
    assert!(matches!(
        tx.try_send(&vec![0; 1 << 20]),
        Err(SendError::Limit(_))
    ));
    let message = vec![0; 100 << 10];
    tx.try_send(&message).unwrap();
    assert!(matches!(tx.try_send(&message), Err(SendError::Full)));
    let mut buffer = vec![0; 100 << 10];
    assert_eq!(rx.try_recv(&mut buffer).unwrap(), 100 << 10);
    tx.try_send(&message).unwrap();
    drop(rx);
    assert!(matches!(tx.try_send(&message), Err(SendError::Closed)));
}

#[test]
fn tcp_carries_the_same_and_ends_the_same() {
    let options = Options::default();
    let mut listener = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let address = format!("tcp:{}", listener.tcp_address().unwrap());
    let mut tx = Socket::connect(&address.parse().unwrap(), &options, Wait::Never).unwrap();
    let mut rx = listener
        .accept(Wait::at_most(Duration::from_secs(5)))
        .unwrap();
    let mut received = Vec::new();
    for len in [0, 1, 5000, 100_000] {
        let message: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        tx.send(&message).unwrap();
        rx.recv_vec(&mut received, Wait::Forever).unwrap();
        assert!(received == message, "{len}");
    }
    // Filled to the brim, then left: what was committed arrives, then the farewell.
    let mut sent = 0;
    while tx.try_send(&[5; 1000]).is_ok() {
        sent += 1;
    }
    drop(tx);
    for _ in 0..sent {
        rx.recv_vec(&mut received, Wait::Forever).unwrap();
        assert_eq!(received, [5; 1000]);
    }
    assert!(matches!(rx.recv(&mut []), Err(RecvError::Closed)));
}
