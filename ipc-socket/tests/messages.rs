//! Messages of every size through one pair: whole, in chunks, given up half way.

use std::io::IoSlice;
use std::time::Duration;

use ipc_core::{
    Channel, Listener as _, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait,
};
use ipc_socket::{Options, Receiver, Sender, Socket};

/// Longest message in one frame, and longest piece of a longer one; see the crate's page.
const WHOLE_MAX: usize = (32 << 10) - 4;
const PART_MAX: usize = 64 << 10;

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7) as u8).collect()
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
    ] {
        let message = message(len);
        tx.try_send(&message).unwrap();
        rx.recv_vec(&mut received, Wait::Never).unwrap();
        assert!(received == message, "{len}");
    }
    // More than net.core.wmem_max lets a socket hold on most systems.
    let long = message(1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| tx.send(&long).unwrap());
        let patience = Wait::at_most(Duration::from_secs(20));
        rx.recv_vec(&mut received, patience).unwrap();
    });
    assert!(received == long);
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

fn tcp(options: &Options) -> (Sender, Receiver) {
    let mut listener = Socket::listen(&"tcp:127.0.0.1:0".parse().unwrap(), options).unwrap();
    let address = format!("tcp:{}", listener.tcp_address().unwrap());
    let tx = Socket::connect(&address.parse().unwrap(), options, Wait::Never).unwrap();
    let rx = listener.accept(Wait::at_most(Duration::from_secs(5)));
    (tx, rx.unwrap())
}

#[test]
fn tcp_carries_the_same_and_ends_the_same() {
    let (mut tx, mut rx) = tcp(&Options::default());
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

#[test]
fn a_batch_that_tcp_cuts_arrives_in_order_and_once() {
    const OFFERED: usize = 50;
    let (mut tx, mut rx) = tcp(&Options::default().capacity(128 << 10));
    let message = |number: usize| vec![number as u8; 100 + number % 1000];
    let (mut sent, mut cut) = (0, 0);
    let mut received = Vec::new();
    for _ in 0..8 {
        let first = sent;
        loop {
            let batch: Vec<Vec<u8>> = (sent..sent + OFFERED).map(message).collect();
            let slices: Vec<IoSlice<'_>> = batch.iter().map(|it| IoSlice::new(it)).collect();
            match tx.send_batch_with(&slices, Wait::Never) {
                Ok(count) => {
                    sent += count;
                    cut += usize::from(count < OFFERED);
                }
                Err(SendError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        for number in first..sent {
            let wait = Wait::at_most(Duration::from_secs(5));
            rx.recv_vec(&mut received, wait).unwrap();
            assert!(received == message(number), "{number}");
        }
    }
    assert!(cut > 0, "no batch was cut");
    drop(tx);
    assert!(matches!(rx.recv(&mut []), Err(RecvError::Closed)));
}
