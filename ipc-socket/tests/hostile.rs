//! Peers that mean harm: bytes that are no messages, and parts that are no ends.

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::receiver_of;
use ipc_core::{
    Channel, Handoff, OpenError, Parts, Receiver as _, RecvError, SendError, Sender as _, Wait,
};
use ipc_socket::{Options, Receiver, Sender, Socket};

/// Long enough that only a hang exceeds it.
const PATIENCE: Duration = Duration::from_secs(10);

fn patience() -> Wait {
    Wait::at_most(PATIENCE)
}

fn pair() -> (Sender, Receiver) {
    Socket::pair(&Options::default()).unwrap()
}

/// A generator whose numbers are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn no_bytes_make_a_receiver_panic_hang_or_read_astray() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let options = Options::default().max_message(100_000);
    let mut buffer = vec![0; 100_000];
    for _ in 0..2000 {
        let (mut peer, mut rx) = receiver_of(&options);
        peer.set_nonblocking(true).unwrap();
        for _ in 0..numbers.next() % 20 {
            // Mostly headers that almost make sense, so that the deeper states are reached.
            let length =
                [0, 1, 4, 300, 32_764, 32_765, 65_536, 65_537][numbers.next() as usize % 8] as u32;
            let kind = [0, 0, 1, 2, 3, 0x80, 0x80, 0x81][numbers.next() as usize % 8];
            let [a, b, c, _] = length.to_le_bytes();
            // A receiver that found the channel broken reads no more: what is cut off is fine too.
            let _ = peer.write(&[a, b, c, kind]);
            let body = numbers.next() as usize % 3 * length as usize / 2;
            // A verdict and the body of a message alike.
            let filler = (numbers.next() % 3) as u8;
            let _ = peer.write(&vec![filler; body]);
            while let Ok(len) = rx.recv_with(&mut buffer, Wait::Never) {
                assert!(len <= 100_000);
            }
        }
        drop(peer);
        let end = loop {
            match rx.recv_with(&mut buffer, patience()) {
                Ok(_) => {}
                Err(end) => break end,
            }
        };
        assert!(
            matches!(
                end,
                RecvError::Corrupt { .. } | RecvError::PeerDied | RecvError::Closed
            ),
            "{end:?}"
        );
    }
}

#[test]
fn half_a_frame_keeps_nobody_beyond_the_deadline() {
    for half in [
        &[9][..],
        &[8, 0, 0],
        &[8, 0, 0, 0, 1, 2],
        &[8, 0, 0, 0x80, 1, 2],
    ] {
        let (mut peer, mut rx) = receiver_of(&Options::default());
        peer.write_all(half).unwrap();
        assert!(matches!(rx.try_recv(&mut [0; 64]), Err(RecvError::Empty)));
        let started = Instant::now();
        let soon = Wait::at_most(Duration::from_millis(50));
        assert!(matches!(
            rx.recv_with(&mut [0; 64], soon),
            Err(RecvError::TimedOut)
        ));
        assert!(started.elapsed() >= Duration::from_millis(50));
        drop(peer);
        assert!(matches!(rx.recv(&mut [0; 64]), Err(RecvError::PeerDied)));
    }
}

#[test]
fn a_flood_of_what_never_becomes_a_message_keeps_nobody_beyond_the_deadline() {
    let (mut peer, mut rx) = receiver_of(&Options::default());
    let flood = std::thread::spawn(move || {
        // Messages that are taken back, again and again, until nobody reads any more.
        let abandoned = [1, 0, 0, 0x80, 7, 0].repeat(8192);
        while peer.write_all(&abandoned).is_ok() {}
    });
    for _ in 0..5 {
        let started = Instant::now();
        assert!(matches!(
            rx.recv_timeout(&mut [], SOON),
            Err(RecvError::TimedOut)
        ));
        assert!(
            started.elapsed() < SOON + Duration::from_millis(50),
            "{:?}",
            started.elapsed()
        );
        assert!(matches!(rx.try_recv(&mut []), Err(RecvError::Empty)));
    }
    drop(rx);
    flood.join().unwrap();
}

const SOON: Duration = Duration::from_millis(20);

#[test]
fn a_receiver_that_answers_with_noise_is_no_farewell() {
    let (tx, rx) = pair();
    let mut parts = rx.into_parts().unwrap();
    let mut peer = UnixStream::from(parts.descriptors.remove(0));
    peer.write_all(b"noise").unwrap();
    drop(peer);
    let mut tx = tx;
    assert!(matches!(tx.send(b"x"), Err(SendError::PeerDied)));
}

#[test]
fn parts_that_were_tampered_with_are_refused_or_harmless() {
    let mut numbers = Numbers(7);
    for _ in 0..500 {
        let (mut tx, mut rx) = pair();
        tx.send(&[7; 30]).unwrap();
        tx.send(&[8; 40]).unwrap();
        rx.recv(&mut [0; 64]).unwrap();
        let (tx_parts, rx_parts) = (tx.into_parts().unwrap(), rx.into_parts().unwrap());
        for (parts, of_sender) in [(tx_parts, true), (rx_parts, false)] {
            let Parts {
                descriptors,
                mut data,
            } = parts;
            let place = numbers.next() as usize % data.len();
            data[place] ^= 1 << (numbers.next() % 8);
            data.truncate(data.len() - numbers.next() as usize % 2);
            let parts = Parts { descriptors, data };
            if of_sender {
                if let Ok(mut tx) = Sender::from_parts(parts) {
                    let _ = tx.try_send(b"x");
                }
            } else if let Ok(mut rx) = Receiver::from_parts(parts) {
                let _ = rx.try_recv(&mut [0; 64]);
            }
        }
    }
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let data = pair().1.to_parts().unwrap().data;
    let refused = Receiver::from_parts(Parts {
        descriptors: vec![file],
        data,
    });
    assert!(
        matches!(refused, Err(OpenError::Untrusted { .. })),
        "{refused:?}"
    );
}
